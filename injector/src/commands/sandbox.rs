//! `injector sandbox`: starts everything on this machine, says what to type next, and stops it all on Ctrl-C.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use intercept_outbound::server::DialRecord;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::args;
use crate::error::{CliError, OrHint, Result};
use crate::sandbox::{
    INVENTORY, NotFound, Options, SERVICE, Sandbox, SandboxError, USUAL_PORT, find_envoy,
    find_filter,
};
use crate::shell::quote;

/// Runs until Ctrl-C, SIGTERM or the terminal's end.
pub async fn run(args: &args::Sandbox) -> Result<()> {
    let options = Options {
        port: args.port,
        concurrency: args.concurrency,
        envoy: find_envoy().map_err(not_found)?,
        filter: find_filter().map_err(not_found)?,
    };
    // Before anything is started: from now on a signal no longer just ends us.
    let mut stopped = Stop::new()?;
    let mut sandbox = tokio::select! {
        started = Sandbox::start(&options) => started.map_err(|error| failed(error, args))?,
        () = stopped.wait() => return Ok(()),
    };
    tell(&sandbox, args);
    let dials = sandbox.take_dials();
    let ended = tokio::select! {
        error = sandbox.failed() => Err(failed(error, args)),
        () = stopped.wait() => Ok(()),
        () = tell_dials(dials) => Ok(()),
    };
    sandbox.stop().await;
    ended
}

/// A reader that has gone away wanted no more.
fn tell(sandbox: &Sandbox, args: &args::Sandbox) {
    let program = env::current_exe().ok();
    let path = env::var_os("PATH").unwrap_or_default();
    let beside_path = program.and_then(|program| beside_path(&program, &path));
    let text = next_steps(
        sandbox.address(),
        sandbox.dir().path(),
        args.port,
        beside_path.as_deref(),
    );
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
}

/// One line of JSON for each, as `injector outbound` writes them.
async fn tell_dials(dials: Option<mpsc::Receiver<DialRecord>>) {
    let mut dials = dials;
    while let Some(dials) = &mut dials
        && let Some(record) = dials.recv().await
    {
        if let Ok(line) = serde_json::to_string(&record) {
            let _ = writeln!(io::stdout(), "{line}");
        }
    }
    std::future::pending().await
}

/// The directory of this program, where `injector` does not already mean it. A relative directory on the PATH means another one in another terminal.
fn beside_path(program: &Path, path: &OsStr) -> Option<PathBuf> {
    let name = program.file_name().filter(|name| *name == "injector")?;
    let meant = env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    let is_meant = meant.is_some_and(|file| same_file(&file, program));
    match is_meant {
        true => None,
        false => program.parent().map(Path::to_owned),
    }
}

/// By whatever links.
fn same_file(one: &Path, other: &Path) -> bool {
    let [one, other] = [one, other].map(|path| path.canonicalize().ok());
    one.is_some() && one == other
}

fn next_steps(
    address: SocketAddr,
    dir: &Path,
    wanted: Option<u16>,
    beside_path: Option<&Path>,
) -> String {
    let url = format!("http://{address}");
    let taken = if wanted.is_none() && address.port() != USUAL_PORT {
        format!("port {USUAL_PORT} is taken, so it is {}\n", address.port())
    } else {
        String::new()
    };
    let path = beside_path.map_or_else(String::new, |dir| {
        format!("  export PATH={}:$PATH\n", quote(&dir.to_string_lossy()))
    });
    format!(
        "{SERVICE} answers on {url} (Envoy, the service and the relay; Ctrl-C stops them)\n{taken}\n\
         in another terminal:\n{path}  \
           export INJECTOR_ENVOY={}\n  \
           curl {url}/api/version\n  \
           injector intercept {SERVICE} --port 3000 --http-header=Coder=Bob\n\
         and in a third one, with your own server on port 3000:\n  \
           curl -H 'Coder: Bob' {url}/api/version\n\
         and a second service, http://{inventory}/, which only the cluster reaches:\n  \
           injector forward {inventory}:{port}:8090\n  \
           curl http://127.0.0.1:8090/\n",
        quote(&dir.to_string_lossy()),
        inventory = INVENTORY.0,
        port = INVENTORY.1,
    )
}

fn not_found(missing: NotFound) -> CliError {
    let hint = match missing.what {
        "envoy" => "make tools (or: export ENVOY=/path/to/envoy)",
        _ => "make build (or: export INJECTOR_FILTER=/path/to/filter.wasm)",
    };
    CliError::failed(missing, hint)
}

fn failed(error: SandboxError, args: &args::Sandbox) -> CliError {
    let hint = match &error {
        SandboxError::Port { .. } => {
            "injector sandbox (without --port it takes a free one)".to_owned()
        }
        SandboxError::Envoy { .. } => match args.port {
            Some(port) => {
                format!("injector sandbox --port {port} (or: export ENVOY=/path/to/envoy)")
            }
            None => "injector sandbox (or: export ENVOY=/path/to/envoy)".to_owned(),
        },
        _ => "injector sandbox".to_owned(),
    };
    let failure = CliError::failed(&error, hint);
    match error {
        SandboxError::Envoy { log, .. } => failure.with_details(log),
        _ => failure,
    }
}

/// The signals that end us.
struct Stop([Signal; 3]);

impl Stop {
    fn new() -> Result<Self> {
        let [interrupt, terminate, hangup] = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(|kind| signal(kind).or_hint("signals", "ulimit -n"));
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_steps_on(port: u16, wanted: Option<u16>, beside_path: Option<&str>) -> String {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let dir = Path::new("/tmp/injector-sandbox-x/envoy");
        next_steps(address, dir, wanted, beside_path.map(Path::new))
    }

    #[test]
    fn a_newcomer_reads_what_to_type_next() {
        insta::assert_snapshot!(next_steps_on(8080, None, None));
    }

    #[test]
    fn a_newcomer_whose_path_lacks_the_command_reads_how_to_get_it_there() {
        let dir = "/home/bob/my projects/injector/target/release";
        insta::assert_snapshot!(next_steps_on(8080, None, Some(dir)));
    }

    #[test]
    fn another_port_than_usual_is_said_unless_it_was_asked_for() {
        let taken = "port 8080 is taken, so it is 8081";
        assert!(next_steps_on(8081, None, None).contains(taken));
        assert!(!next_steps_on(8081, Some(8081), None).contains(taken));
    }

    #[test]
    fn the_path_lacks_a_command_that_another_program_stands_for_or_none() {
        let place = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let dir = place.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            dir
        };
        let (ours, linked, others, empty) =
            (dir("ours"), dir("linked"), dir("others"), dir("empty"));
        let program = ours.join("injector");
        std::fs::write(&program, "ours").unwrap();
        std::fs::write(others.join("injector"), "another version").unwrap();
        std::os::unix::fs::symlink(&program, linked.join("injector")).unwrap();
        let lacks = |dirs: &[&Path]| {
            let path = env::join_paths(dirs).unwrap();
            beside_path(&program, &path)
        };
        assert_eq!(lacks(&[&empty, &ours]), None);
        assert_eq!(lacks(&[&linked, &others]), None, "a link to it");
        assert_eq!(lacks(&[&empty]), Some(ours.clone()));
        assert_eq!(lacks(&[&others, &ours]), Some(ours.clone()));
        assert_eq!(lacks(&[Path::new("ours")]), Some(ours.clone()));
        let renamed = ours.join("injector-0.1.0");
        assert_eq!(beside_path(&renamed, empty.as_os_str()), None);
    }
}

//! A child process that does not outlive this one, however that ends.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, ChildStdin, Command};

/// The watchdog, which kills the child and removes the files once this process is gone.
///
/// It waits for the end of its standard input, which only this process holds open.
///
/// (With a parent-death signal instead, the child would have to run code between fork and exec.)
const WATCH: &str = r#"read -r _; kill -9 "$1"; rm -rf -- "$2""#;

/// A child process with a watchdog.
#[derive(Debug)]
pub struct Process {
    child: Child,
    watch: Child,
    /// The watchdog's standard input, open as long as this value lives.
    _alive: Option<ChildStdin>,
}

impl Process {
    /// Starts the program.
    ///
    /// The watchdog removes `files` if this process dies before [`Process::stop`].
    ///
    /// Both get their own process group: Ctrl-C on the terminal reaches only this process, which then ends them in order.
    pub fn start(program: &Path, arguments: &[OsString], files: &Path) -> io::Result<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().unwrap_or_default().to_string();
        let mut watch = Command::new("/bin/sh")
            .args(["-c", WATCH, "sh", &pid])
            .arg(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            child,
            _alive: watch.stdin.take(),
            watch,
        })
    }

    /// Waits for the exit, and describes it.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => format!("ended ({status})"),
            Err(error) => format!("is lost ({error})"),
        }
    }

    /// Ends both processes.
    ///
    /// The watchdog goes first: once the child is reaped, another process may get its id.
    pub async fn stop(&mut self) {
        for child in [&mut self.watch, &mut self.child] {
            // Fails if it has ended already.
            let _ = child.kill().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn sleeper(files: &Path) -> Process {
        Process::start(Path::new("/bin/sleep"), &["600".into()], files).unwrap()
    }

    #[tokio::test]
    async fn when_we_are_gone_the_process_and_its_files_go_too() {
        let scratch = tempfile::tempdir().unwrap();
        let files = scratch.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let mut process = sleeper(&files);
        // The system closes this end of the pipe when this process dies.
        process._alive = None;
        let ended = timeout(LONG, process.ended())
            .await
            .expect("killed by the watch");
        assert!(ended.contains("SIGKILL"), "{ended}");
        timeout(LONG, process.watch.wait())
            .await
            .expect("the watch ends")
            .unwrap();
        assert!(!files.exists());
    }

    #[tokio::test]
    async fn stopping_ends_the_process_and_leaves_the_files_to_their_owner() {
        let scratch = tempfile::tempdir().unwrap();
        let mut process = sleeper(scratch.path());
        timeout(LONG, process.stop()).await.expect("stopped");
        assert!(process.ended().await.contains("SIGKILL"));
        assert!(scratch.path().exists());
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(Process::start(Path::new("/none"), &[], scratch.path()).is_err());
    }
}

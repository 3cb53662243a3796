//! The command is what it would be without the namespace, and nothing is left behind, however anything ends.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use super::fixture::{Fixture, output, trial, wait_for};
use super::server::{self, PAGE};

/// The tests of this file.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("leftovers::command_is_unchanged", command_is_unchanged),
        trial("leftovers::exit_codes_and_signals", exit_codes_and_signals),
        trial("leftovers::nested_in_itself", nested_in_itself),
        trial("leftovers::none_at_the_end", none_at_the_end),
        trial(
            "leftovers::none_after_killed_engine",
            none_after_killed_engine,
        ),
        trial("leftovers::killed_helper_is_told", killed_helper_is_told),
        trial(
            "leftovers::none_after_killed_command",
            none_after_killed_command,
        ),
        trial("leftovers::none_at_any_moment", none_at_any_moment),
        trial("leftovers::survivors_are_refused", survivors_are_refused),
        trial("leftovers::closed_doors_are_named", closed_doors_are_named),
    ]
}

fn command_is_unchanged() {
    let fixture = Fixture::new();
    let script = "id -u; id -g; pwd; ulimit -Sn; cat /proc/self/comm";
    let mut plain = fixture.command("bash");
    plain.args(["-c", script]);
    let plain = String::from_utf8(output(plain).stdout).expect("text");
    assert_eq!(fixture.shell(script), plain.trim_end());
    let capabilities = fixture.shell("grep CapEff /proc/self/status");
    assert_eq!(capabilities, "CapEff:\t0000000000000000");
}

fn exit_codes_and_signals() {
    let fixture = Fixture::new();
    for (script, expected) in [("exit 7", 7), ("kill -TERM $$", 143), ("true", 0)] {
        let status = output(fixture.inside(&["bash", "-c", script])).status;
        assert_eq!(status.code(), Some(expected), "{script}");
    }
    fixture.wait_for_nothing();
}

fn nested_in_itself() {
    let (fixture, port) = (Fixture::new(), server::start());
    let run = format!("{} run --", fixture.program());
    let script = format!("{run} {run} {run} curl -sS http://web.shop:{port}/");
    assert_eq!(fixture.shell(&script), PAGE);
}

fn none_at_the_end() {
    let (fixture, mounts) = (Fixture::new(), mounts());
    fixture.shell("getent hosts web.shop");
    fixture.wait_for_nothing();
    assert_eq!(self::mounts(), mounts);
}

fn mounts() -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("a table");
    let of_etc = |line: &&str| line.contains("resolv.conf") || line.contains("nsswitch.conf");
    table.lines().filter(of_etc).count()
}

fn kill(process: u32, signal: Signal) {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process"), signal).expect("a signal");
}

fn none_after_killed_engine() {
    let fixture = Fixture::new();
    let mut running = fixture.start(&[], &["bash", "-c", "echo up; sleep 600"]);
    running.line_with("up");
    kill(running.engine.id(), Signal::KILL);
    let status = running.engine.wait().expect("a status");
    assert_eq!(status.signal(), Some(9));
    // The command gets SIGTERM; a shell's own child is its shell's business, and holds the namespace as long as it lives.
    wait_for("helper and command are gone", || {
        fixture.processes().iter().all(|pid| name(*pid) == "sleep")
    });
    for pid in fixture.processes() {
        kill(pid, Signal::KILL);
    }
    fixture.wait_for_nothing();
}

fn name(process: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

fn killed_helper_is_told() {
    let (fixture, port) = (Fixture::new(), server::start());
    let script = format!("echo up; read -r line; curl -sS http://web.shop:{port}/; exit 3");
    let mut command = fixture.command(fixture.program());
    command.args(["run", "--", "bash", "-c", &script]);
    command.stdin(std::process::Stdio::piped());
    let mut running = super::fixture::Running::start(command);
    running.line_with("up");
    kill(running.helper, Signal::KILL);
    running.line_with("HelperLost");
    // What needs no new socket inside goes on.
    drop(running.engine.stdin.take());
    running.line_with(PAGE);
    assert_eq!(running.engine.wait().expect("a status").code(), Some(3));
    fixture.wait_for_nothing();
}

fn none_after_killed_command() {
    let fixture = Fixture::new();
    let mut running = fixture.start(&[], &["bash", "-c", "echo $$; exec sleep 600"]);
    let line = running.line_with("");
    kill(line.parse().expect("a number"), Signal::KILL);
    assert_eq!(running.engine.wait().expect("a status").code(), Some(137));
    fixture.wait_for_nothing();
}

/// The engine is killed at moments spread over the whole setup, the start of the command included.
fn none_at_any_moment() {
    let fixture = Fixture::new();
    for moment in 0..40 {
        let mut engine = fixture
            .inside(&["sleep", "600"])
            .spawn()
            .expect("an engine");
        thread::sleep(Duration::from_millis(moment));
        engine.kill().expect("a running engine");
        engine.wait().expect("a status");
        wait_for("nothing is left", || fixture.processes().is_empty());
    }
    fixture.wait_for_nothing();
}

/// A process that outlives the engine gets a refusal for each connection.
fn survivors_are_refused() {
    let (fixture, port) = (Fixture::new(), server::start());
    let script = format!(
        "trap '' TERM; echo up
         until ! curl -sS http://10.96.0.5:{port}/ >out 2>err; do :; done; cp err result.part; mv result.part result"
    );
    let mut running = fixture.start(&[], &["bash", "-c", &script]);
    running.line_with("up");
    kill(running.engine.id(), Signal::KILL);
    running.engine.wait().expect("a status");
    let result = fixture.dir().join("result");
    wait_for("the survivor has tried", || result.exists());
    let text = fs::read_to_string(&result).expect("a text");
    let is_known = ["refused", "Couldn't connect", "reset"];
    assert!(is_known.iter().any(|word| text.contains(word)), "{text}");
    for file in ["result", "out", "err"] {
        fs::remove_file(fixture.dir().join(file)).expect("a file");
    }
    fixture.wait_for_nothing();
}

fn closed_doors_are_named() {
    let fixture = Fixture::new();
    let program = fixture.program();
    for (limit, cause) in [
        (
            "user",
            "unshare: No space left on device (os error 28); user.max_user_namespaces allows no more of them; hint: sudo sysctl -w user.max_user_namespaces=15000",
        ),
        (
            "net",
            "unshare: No space left on device (os error 28); user.max_net_namespaces allows no more of them; hint: sudo sysctl -w user.max_net_namespaces=15000",
        ),
    ] {
        let script =
            format!("echo 0 >/proc/sys/user/max_{limit}_namespaces; exec {program} run -- true");
        let mut command = fixture.command("unshare");
        command.args(["--user", "--map-root-user", "bash", "-c", &script]);
        let output = output(command);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(cause), "{text}");
    }
}

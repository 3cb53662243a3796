//! What this binary is by its first argument.

mod client;
mod fixture;
mod host;
mod leftovers;
mod names;
mod programs;
mod run;
mod server;
mod speed;
mod truth;
mod tunnel;

use std::ffi::OsStr;
use std::process::ExitCode;

use intercept_outbound::namespace::helper;
use libtest_mimic::Arguments;

/// Becomes the tests, or what they run.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let first = arguments.first().map(|first| first.as_os_str());
    if helper::is_requested(first) {
        return match helper::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    match first.and_then(OsStr::to_str) {
        Some(run::JOIN) => run::join(&arguments[1..]),
        Some("run") => run::run(&arguments[1..]),
        Some("enter") => run::enter(&arguments[1..]),
        Some("client") => client::run(&arguments[1..]),
        _ => test(),
    }
}

fn test() -> ExitCode {
    let arguments = Arguments::from_args();
    let _copy = fixture::copy_program();
    let trials = [
        names::trials(),
        programs::trials(),
        truth::trials(),
        tunnel::trials(),
        host::trials(),
        leftovers::trials(),
        speed::trials(),
    ];
    let trials = trials.into_iter().flatten().collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

//! The `injector` command: reads the command line, runs the command, prints the error, sets the exit code. Nothing else prints errors.

use std::process::ExitCode;

use clap::error::ErrorKind;
use injector::args::Cli;
use injector::commands;
use injector::error::{CliError, Result};
use injector::outbound;
use injector::session::exec_child;

fn main() -> ExitCode {
    // Both need a process of one thread.
    if let Some(code) = outbound::run_helper() {
        return code;
    }
    if let Some(asked) = exec_child::asked(std::env::args_os().skip(1)) {
        return finished(exec_child::run(&asked));
    }
    finished(match Cli::read() {
        Ok(cli) => commands::run(&cli),
        Err(asked)
            if matches!(
                asked.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            let _ = asked.print();
            return ExitCode::SUCCESS;
        }
        Err(wrong) => Err(CliError::from(wrong)),
    })
}

fn finished(outcome: Result<u8>) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("{failure}");
            failure.code()
        }
    }
}

//! The `injector` command: reads the command line, runs the command, prints the error, sets the exit code. Nothing else prints errors.

use std::process::ExitCode;

use clap::error::ErrorKind;
use injector::cli::Cli;
use injector::commands;
use injector::hint::Failure;

fn main() -> ExitCode {
    let outcome = match Cli::read() {
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
        Err(wrong) => Err(Failure::from(wrong)),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("{failure}");
            failure.code()
        }
    }
}

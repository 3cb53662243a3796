//! Builds `filter.wasm` and its OCI image.
//!
//! The only place that prints errors and chooses exit codes: 0 done, 1 failed, 2 usage (clap's own).

mod cli;
mod commands;
mod failure;
mod image;
mod module;
mod output;
mod source;
mod toolchain;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Build(args) => commands::build::run(&args),
        Command::Image(args) => commands::image::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {:#}\n\nhint: {}", failure.error, failure.hint);
            ExitCode::FAILURE
        }
    }
}

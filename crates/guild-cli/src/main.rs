//! The `guild` command: the only crate that prints and exits.
#![expect(clippy::print_stderr, reason = "messages go to standard error")]

mod agent;
mod args;
mod chart;
mod command;
mod digest;
mod exit_code;
mod faults;
mod flow;
mod graph;
mod progress;
mod reaper;
mod render;
mod summary;
mod tail;
mod workload;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Arguments;
use crate::exit_code::{CommandError, Exit};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("GUILD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match command::execute(arguments.command) {
        Ok(exit) => exit.into(),
        // Whoever reads the output has seen enough (`guild events | head`).
        Err(CommandError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
            Exit::Done.into()
        }
        Err(error) => {
            eprintln!("guild: {error}");
            error.exit().into()
        }
    }
}

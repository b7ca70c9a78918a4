//! The `guild` command: the only crate that prints and exits.
#![expect(clippy::print_stderr, reason = "messages go to standard error")]

mod agent;
mod args;
mod chart;
mod command;
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
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Arguments;
use crate::exit_code::{CommandError, Exit};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start_log().and_then(|()| command::execute(arguments.command)) {
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

/// Writes what `GUILD_LOG` asks for to standard error: a level, or `target=level` pairs; errors
/// when it says nothing.
fn start_log() -> Result<(), CommandError> {
    let asked = std::env::var_os("GUILD_LOG").unwrap_or_default();
    let filter = if asked.is_empty() {
        Targets::new().with_default(Level::ERROR)
    } else {
        let asked = asked.to_string_lossy();
        asked.parse().map_err(|error| {
            CommandError::BadInput(format!(
                "GUILD_LOG: {asked:?} is no log filter ({error}); give a level (error, warn, info, \
                 debug, trace) or pairs such as guild_runtime=debug"
            ))
        })?
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(())
}

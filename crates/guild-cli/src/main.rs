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

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Arguments;
use crate::exit_code::{CommandError, Exit};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match arguments.command.injects_faults_in_virtual_time() {
        // What the plan breaks is no news, and the verdict says whether it was mended.
        true => LevelFilter::OFF,
        false => LevelFilter::ERROR,
    };
    match start_log(level).and_then(|()| command::execute(arguments.command)) {
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

/// Writes what `GUILD_LOG` asks for to standard error: a level, or `target=level` pairs; when it
/// says nothing, what is of this level or above.
fn start_log(level: LevelFilter) -> Result<(), CommandError> {
    let asked = std::env::var_os("GUILD_LOG").unwrap_or_default();
    let filter = if asked.is_empty() {
        Targets::new().with_default(level)
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
    // A terminal has its own way to say that it wants no colours (NO_COLOR).
    let lines = if std::io::stderr().is_terminal() { lines } else { lines.with_ansi(false) };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(())
}

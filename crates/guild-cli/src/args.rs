//! The arguments of `guild`.

mod memory;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::memory::{EngineName, MemoryCommand, RollbackArguments};

/// Runs flows on supervised agents, through crashes, to a committed result.
#[derive(Debug, Parser)]
#[command(name = "guild", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 some task failed, 2 bad input (nothing was started), \
                          3 an invariant is violated or a fault of a plan never struck, 4 the store cannot be used, 130 interrupted (the run can be resumed)";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a flow, or resume it where it stopped
    Run(RunArguments),
    /// Run a workflow in virtual time: hours in seconds, the same for the same seed
    Simulate(SimulateArguments),
    /// Make a page of an event log: who worked when, what waited, what went wrong
    Report {
        /// The event log, one JSON object per line
        events: PathBuf,
        /// The page to write
        #[arg(long, value_name = "FILE.html")]
        out: PathBuf,
    },
    /// Play a fault plan: a guild in virtual time, faults, and a verdict on every promise
    Chaos(ChaosArguments),
    /// Check an event log: which of the invariants I1 to I17 it keeps
    Verify {
        /// The event log, as --events writes it (.gz too); - is standard input
        events: PathBuf,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Check a flow file and change nothing
    Validate {
        /// The flow file
        flow: PathBuf,
        /// Give a variable of the flow another value
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Draw the tasks of a flow
    Graph {
        /// The flow file
        flow: PathBuf,
        /// Give a variable of the flow another value
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
        /// The language of the drawing
        #[arg(long, value_enum, default_value_t)]
        format: GraphFormat,
    },
    /// Show the runs of a store
    Status {
        #[command(flatten)]
        store: StoreArguments,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print the event log of a store, one JSON object per line
    Events {
        #[command(flatten)]
        store: StoreArguments,
        /// The first event to print
        #[arg(long, value_name = "SEQ", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        since: u64,
        /// Go on when new events come; a store in use is read when its process has ended
        #[arg(long)]
        follow: bool,
    },
    /// Show what went wrong in a store, what was done about it, and what fails most
    Incidents(IncidentsArguments),
    /// Show the tasks that were given up because they took their agents down
    Letters(LettersArguments),
    /// Read the shared memory of a store, its history, and return to earlier versions
    #[command(subcommand)]
    Memory(MemoryCommand),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Kill the process groups of a guild that was killed itself
    #[command(name = "__reaper", hide = true)]
    Reaper {
        /// What marks the processes of that guild in their environment
        mark: String,
    },
}

impl Command {
    /// Tells whether the failures of this command are those that it injects, with nothing real
    /// behind them.
    pub(crate) fn injects_faults_in_virtual_time(&self) -> bool {
        match self {
            Self::Chaos(arguments) => !arguments.real,
            Self::Simulate(arguments) => arguments.chaos.is_some(),
            _ => false,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The flow file
    pub(crate) flow: PathBuf,
    /// Give a variable of the flow another value
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
    /// Agents of each role, instead of what the flow says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) agents: Option<u32>,
    /// Keep the run in this directory, so that it can be resumed; without it, in RAM
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Name of the run; the same name in the same store is the same run [default: the flow's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    /// Seed of all random draws (delays, chaos)
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// Inject faults: the probability of each per attempt, such as crash=0.05,hang=0.01,slow=0.1, or
    /// a fault plan
    #[arg(long, value_name = "SPEC|FILE")]
    pub(crate) chaos: Option<String>,
    /// Of a fault plan, only this part
    #[arg(long, value_name = "CASE", hide = true, requires = "chaos")]
    pub(crate) only: Option<String>,
    /// Write the event log to this file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Try a dead letter of the store again, with the agents of this flow: its task alone, as a run of
    /// its own
    #[arg(long, value_name = "RUN/TASK", requires = "store", conflicts_with = "run")]
    pub(crate) retry: Option<String>,
    /// Write what every commit read and wrote to this file, for `guild verify`
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArguments {
    /// A flow file, or a workflow in WfFormat (JSON, schema 1.4 to 1.6; .gz too)
    pub(crate) workflow: PathBuf,
    /// Give a variable of the flow another value
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
    /// Agents of each role [default: what the flow says; 16 for a workflow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) agents: Option<u32>,
    /// Seed of all random draws (durations, delays, chaos)
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// Which ready task goes first
    #[arg(long, value_enum, default_value_t)]
    pub(crate) policy: Policy,
    /// Inject faults: the probability of each per attempt, such as crash=0.05,hang=0.01,slow=0.1, or
    /// a fault plan
    #[arg(long, value_name = "SPEC|FILE")]
    pub(crate) chaos: Option<String>,
    /// Write the event log to this file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Write a page that shows the run: agents over time, the critical path, incidents, the sweep
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Simulate once for each of these values: agents=4,16,64 or policy=fifo,random; all
    /// combinations, on all cores
    #[arg(long, value_name = "KEY=VALUES")]
    pub(crate) sweep: Vec<String>,
    /// Simulate each combination with this many seeds, from --seed on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) seeds: Option<u64>,
    /// Write the rows of the sweep to this file instead of below the table
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Simulations of the sweep at a time [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(crate) jobs: Option<u16>,
    /// Check the invariants, of the planner after every step and of the log; exit 3 when one is
    /// violated
    #[arg(long)]
    pub(crate) validate: bool,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ChaosArguments {
    /// The fault plan
    pub(crate) plan: PathBuf,
    /// The seed, or the first of several [default: what the plan says]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Play this many seeds on all cores, up to the first violation, which is made small
    #[arg(long, value_name = "N", conflicts_with_all = ["only", "events", "real"],
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) seeds: Option<u64>,
    /// Play only a part of the plan, as the line that repeats a violation names it
    #[arg(long, value_name = "CASE")]
    pub(crate) only: Option<String>,
    /// Play it with a real process and a real store: guild run, struck from inside, killed with
    /// SIGKILL and started again
    #[arg(long)]
    pub(crate) real: bool,
    /// Write the event log to this file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Write the result to this file: plan, seed, faults, incidents, verdicts, as one JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) result: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Which ready task goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// The one with the longest path behind it
    #[default]
    CriticalPath,
    /// The one that has been ready longest
    Fifo,
    /// Any, drawn by the seed
    Random,
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CriticalPath => "critical-path",
            Self::Fifo => "fifo",
            Self::Random => "random",
        })
    }
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct IncidentsArguments {
    #[command(subcommand)]
    pub(crate) command: Option<IncidentCommand>,
    /// The directory of the store
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) store: Option<PathBuf>,
    /// Only incidents of agents of this role
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Option<String>,
    /// Only incidents of this agent, such as tool-3
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Only incidents of this task, such as count[3], or of all of its kind: count[*]
    #[arg(long, value_name = "NAME")]
    pub(crate) task: Option<String>,
    /// Only incidents with this cause, such as timeout or out_of_memory
    #[arg(long, value_name = "NAME")]
    pub(crate) cause: Option<String>,
    /// Only incidents that are so far
    #[arg(long, value_enum)]
    pub(crate) state: Option<State>,
    /// Only incidents of the last time before the newest event, such as 10m
    #[arg(long, value_name = "DURATION")]
    pub(crate) since: Option<String>,
    /// Count incidents of one pattern together
    #[arg(long)]
    pub(crate) groups: bool,
    /// Tell which agents, roles, tasks and causes fail most, and how long it takes to recover
    #[arg(long, conflicts_with = "groups")]
    pub(crate) summary: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IncidentCommand {
    /// Show all that is known of one incident
    Show {
        /// Its number
        incident: u64,
        #[command(flatten)]
        store: StoreArguments,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Note that a person has seen an incident; the store must not be in use
    Ack {
        /// Its number
        incident: u64,
        /// What there is to say about it
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
        #[command(flatten)]
        store: StoreArguments,
    },
}

/// How far an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// What it took down does not work yet
    Open,
    /// Everything works again, and nobody has looked at it
    Recovered,
    /// A person has seen it
    Acknowledged,
}

impl From<State> for guild::IncidentState {
    fn from(state: State) -> Self {
        match state {
            State::Open => Self::Open,
            State::Recovered => Self::Recovered,
            State::Acknowledged => Self::Acknowledged,
        }
    }
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct LettersArguments {
    #[command(subcommand)]
    pub(crate) command: Option<LetterCommand>,
    /// The directory of the store
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) store: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LetterCommand {
    /// Show the reports of all crashes of a dead letter
    Show {
        /// Its run and task, as the list names it
        #[arg(value_name = "RUN/TASK")]
        letter: String,
        #[command(flatten)]
        store: StoreArguments,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Throw a dead letter away; the store must not be in use (to try one again: guild run --retry)
    Discard {
        /// Its run and task, as the list names it
        #[arg(value_name = "RUN/TASK")]
        letter: String,
        /// Why, for whoever reads the log
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
        #[command(flatten)]
        store: StoreArguments,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StoreArguments {
    /// The directory of the store
    #[arg(long, value_name = "DIR")]
    pub(crate) store: PathBuf,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// The language of a drawing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Mermaid, as Markdown pages show it
    #[default]
    Mermaid,
    /// Graphviz
    Dot,
}

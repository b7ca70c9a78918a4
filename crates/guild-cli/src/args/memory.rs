//! The arguments of `guild memory`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Format, StoreArguments};

#[derive(Debug, Subcommand)]
pub(crate) enum MemoryCommand {
    /// Print the value of a key
    Get {
        #[command(flatten)]
        store: StoreArguments,
        /// The key
        key: String,
        /// As it was at this version, instead of now
        #[arg(long, value_name = "VERSION")]
        at: Option<u64>,
        /// How to print: the value alone, or an object that also tells its version and who wrote it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print all keys that begin with a prefix, with their values
    Scan {
        #[command(flatten)]
        store: StoreArguments,
        /// The prefix; all keys without it
        #[arg(default_value = "")]
        prefix: String,
        /// At most this many keys
        #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
        limit: usize,
        /// As it was at this version, instead of now
        #[arg(long, value_name = "VERSION")]
        at: Option<u64>,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// List what became of a key, newest first: versions, who wrote it, values
    History {
        #[command(flatten)]
        store: StoreArguments,
        /// The key
        key: String,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Compare two versions key by key
    Diff {
        #[command(flatten)]
        store: StoreArguments,
        /// The first version
        from: u64,
        /// The second version [default: the newest]
        to: Option<u64>,
        /// Only keys that begin with this
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Give keys the values of an earlier version, as a new commit; nothing is forgotten
    Rollback(RollbackArguments),
    /// Print every commit that changes a key, in order; waits while a guild uses the store
    ///
    /// A guild that runs locks its store, so what it commits is printed when it has ended. Beside a
    /// running guild, `MemoryHandle::watch` tells commits as they come.
    Watch {
        #[command(flatten)]
        store: StoreArguments,
        /// Only keys that begin with this
        #[arg(default_value = "")]
        prefix: String,
        /// Begin after this version [default: the newest]
        #[arg(long, value_name = "VERSION")]
        after: Option<u64>,
        /// End when everything was printed that is there now
        #[arg(long)]
        once: bool,
        /// How to print: lines of text, or one JSON object per line
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show how much is there, by prefix, and how far the history goes back
    Stats {
        #[command(flatten)]
        store: StoreArguments,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write all rows of a store to one file that needs no engine to be read
    Checkpoint {
        #[command(flatten)]
        store: StoreArguments,
        /// Write to this file [default: the next one in the store's `checkpoints`, which keeps 3]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Put a checkpoint in the place of a store; what is there is kept aside
    Restore {
        #[command(flatten)]
        store: StoreArguments,
        /// The checkpoint
        checkpoint: PathBuf,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Copy a store to a new directory, kept by this engine
    Migrate {
        #[command(flatten)]
        store: StoreArguments,
        /// The new directory; it must be absent or empty
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// What keeps its rows
        #[arg(long, value_enum, default_value = "sled")]
        engine: EngineName,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Forget the history before a version; values stay as they are
    Compact {
        #[command(flatten)]
        store: StoreArguments,
        /// The oldest version that can be read afterwards [default: the newest]
        #[arg(long, value_name = "VERSION")]
        before: Option<u64>,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = false)]
pub(crate) struct What {
    /// Keys that begin with this
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// All keys
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArguments {
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// The version to return to
    pub(crate) version: u64,
    #[command(flatten)]
    pub(crate) what: What,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// What keeps the rows of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineName {
    /// What every new store gets
    Sled,
    /// Where guild was built with `--features redb`
    Redb,
}

//! Finds real inputs beside the project, and reads the formats that only tests need.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a test that checks nothing says so aloud")]

pub(crate) mod psplib;
pub(crate) mod stg;

use std::path::{Path, PathBuf};

/// Returns a folder of the inputs beside the project, or says aloud that it is not there.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("GUILD_SHARED_DATA").map_or(root, PathBuf::from).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no {} (set GUILD_SHARED_DATA to the inputs)", folder.display());
    assert!(
        std::env::var_os("GUILD_SHARED_DATA").is_none(),
        "GUILD_SHARED_DATA names no folder that holds `{name}`"
    );
    None
}

/// Returns the files of a folder, by name.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

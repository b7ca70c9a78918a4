//! What would make two runs of one seed differ stays out of the libraries.
//!
//! `clippy.toml` bans clocks, hash maps, unnamed generators and threads by their names. What a name
//! cannot tell is looked for here, in the sources and in the graph of features.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates whose code runs in a simulation.
const SIMULATED: [&str; 4] = ["guild-core", "guild-memory", "guild-runtime", "guild-sim"];

/// Who starts threads, and why no simulation gets there.
const THREADS: [(&str, &str); 11] = [
    ("guild-memory/src/committer.rs", "a staged memory is driven by its actor"),
    ("guild-memory/src/store/behind.rs", "behind sled, which no simulation has"),
    ("guild-memory/src/store/directory.rs", "ends a store on a disk, which no simulation has"),
    ("guild-runtime/src/blocking.rs", "a stage has no pool: work is done at once"),
    ("guild-runtime/src/controller.rs", "joins arbiters, of which a stage has none"),
    ("guild-runtime/src/process.rs", "a real process, which no simulation has"),
    ("guild-runtime/src/start.rs", "a staged guild stands up on the calling thread"),
    ("guild-runtime/src/threads.rs", "a stage has no threads of agents"),
    ("guild-runtime/src/watchdog.rs", "watches the threads of agents, of which a stage has none"),
    ("guild-sim/src/chaos/batch.rs", "whole simulations side by side, each on one thread"),
    ("guild-sim/src/parallel.rs", "whole simulations side by side, each on one thread"),
];

/// Who reads a real clock, and why no simulation hears of it.
const CLOCKS: [(&str, &str); 1] =
    [("guild-sim/src/chaos/mod.rs", "tells how long a simulation took, when it is over")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the sources below a folder with their paths, without the tests in them.
fn sources(folder: PathBuf) -> Vec<(String, String)> {
    let (mut folders, mut sources) = (vec![folder], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let name = path.strip_prefix(root().join("crates")).unwrap();
                let text = std::fs::read_to_string(&path).unwrap();
                sources.push((name.to_string_lossy().into_owned(), code(&text)));
            }
        }
    }
    sources.sort();
    sources
}

/// Returns the code of a source: no comments, and nothing from its tests on, if they are in it.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn simulated() -> Vec<(String, String)> {
    let folder = |name: &&str| root().join("crates").join(name).join("src");
    SIMULATED.iter().map(folder).flat_map(sources).collect()
}

/// Returns where an unordered choice among futures is made.
fn unordered_selects(code: &str) -> usize {
    let after = code.split("select!").skip(1);
    after
        .filter(|rest| !rest.trim_start_matches([' ', '\n', '{', '(']).starts_with("biased;"))
        .count()
}

#[test]
fn every_select_is_biased() {
    assert_eq!(unordered_selects("tokio::select! {\n    biased;\n    _ = a => {} }"), 0);
    assert_eq!(unordered_selects("tokio::select! { _ = a => {} _ = b => {} }"), 1);
    assert_eq!(unordered_selects("futures_util::select! { _ = a => {} }"), 1);

    for (name, code) in simulated() {
        assert_eq!(unordered_selects(&code), 0, "{name}: put `biased;` first in its select!");
    }
}

#[test]
fn threads_are_started_only_where_no_simulation_gets() {
    const STARTS: [&str; 6] = [
        "thread::spawn",
        "thread::Builder",
        "thread::scope",
        "Arbiter::new",
        "SyncArbiter",
        "spawn_blocking",
    ];
    for (name, code) in simulated() {
        let starts = STARTS.iter().find(|start| code.contains(**start));
        let is_known = THREADS.iter().any(|(known, _)| *known == name);
        assert!(starts.is_none() || is_known, "{name} has {}: no simulation may", starts.unwrap());
    }
}

#[test]
fn nothing_is_ordered_or_named_by_its_address() {
    // An address differs from process to process, as soon as it orders or names anything.
    for (name, code) in simulated() {
        for leak in ["as *const", "as_ptr()", "{:p}", "addr_of!", "type_name_of_val"] {
            assert!(!code.contains(leak), "{name} has `{leak}`: use an id");
        }
    }
}

#[test]
fn only_clocks_of_tokio_are_read() {
    for (name, code) in simulated() {
        let reads = code.contains("Instant::now") || code.contains("SystemTime");
        let imports =
            code.contains("use tokio::time::Instant") || code.contains("tokio::time::Instant::now");
        let is_known = CLOCKS.iter().any(|(known, _)| *known == name);
        assert!(!reads || imports || is_known, "{name} reads a clock that no simulation moves");
    }
}

/// Returns the features with which a package's build has tokio, or none where it has no tokio.
fn features_of_tokio(manifest: &Path, package: &str, folder: &Path) -> Option<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{p}|{f}", "--package", package, "--manifest-path"])
        .arg(manifest)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let line = tree.lines().find(|line| line.starts_with("tokio v"))?;
    let features = line.split('|').nth(1).unwrap().trim_end_matches(" (*)");
    Some(features.split(',').map(str::to_owned).collect())
}

#[test]
fn nobody_but_users_of_the_simulator_gets_a_tokio_whose_clock_can_be_paused() {
    let manifest = root().join("Cargo.toml");
    for package in ["guild-core", "guild-memory", "guild-runtime", "guild"] {
        let features = features_of_tokio(&manifest, package, root()).unwrap_or_default();
        assert!(!features.iter().any(|feature| feature == "test-util"), "{package}: {features:?}");
    }
    for package in ["guild-sim", "guild-cli"] {
        let features = features_of_tokio(&manifest, package, root()).unwrap();
        assert!(features.iter().any(|feature| feature == "test-util"), "{package}: {features:?}");
    }
}

#[test]
fn service_that_embeds_guild_gets_no_clock_that_can_be_paused() {
    let folder = tempfile::tempdir().unwrap();
    let guild = serde_json::to_string(root()).unwrap();
    let manifest = format!(
        "[package]\nname = \"service\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         guild = {{ path = {guild} }}\nactix-web = {{ version = \"4\", default-features = false, features = [\"macros\"] }}\n\n\
         [workspace]\n"
    );
    std::fs::create_dir(folder.path().join("src")).unwrap();
    std::fs::write(folder.path().join("src/main.rs"), "fn main() {}\n").unwrap();
    std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    // The versions that are built here already, so that nothing is fetched.
    std::fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();

    let manifest = folder.path().join("Cargo.toml");
    let features = features_of_tokio(&manifest, "service", folder.path()).unwrap();

    assert!(features.iter().any(|feature| feature == "time"), "{features:?}");
    assert!(!features.iter().any(|feature| feature == "test-util"), "{features:?}");
}

//! `guild simulate` on every real workflow that lies beside the project.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a test that checks nothing says so aloud")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Desk, Ended};

/// Agents of a workflow when nobody says it.
const AGENTS: f64 = 16.0;

/// Returns the files in `workflows` of the inputs beside the project, or says aloud that they are
/// not there.
fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let named = std::env::var_os("GUILD_SHARED_DATA").map(PathBuf::from);
    let folder = named.clone().unwrap_or(root).join("workflows");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED: no {} (set GUILD_SHARED_DATA to the inputs)", folder.display());
        assert!(named.is_none(), "GUILD_SHARED_DATA names no folder that holds `workflows`");
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5, "{files:?}");
    files
}

fn simulate(file: &Path) -> Ended {
    let desk = Desk::new();
    Ended::of(desk.guild().arg("simulate").arg(file).args(["--format", "json"]))
}

/// Asserts what is true of every simulation without faults.
fn check(summary: &Value) {
    let number = |key: &str| summary[key].as_f64().unwrap_or_else(|| panic!("{key}: {summary}"));
    let tasks = &summary["tasks"];
    let total = tasks["total"].as_u64().unwrap();
    assert!(total > 0, "{summary}");
    assert_eq!((&tasks["completed"], &summary["attempts"]), (&total.into(), &total.into()));
    for none in [&tasks["failed"], &tasks["skipped"], &tasks["cancelled"]] {
        assert_eq!(*none, 0, "{summary}");
    }
    assert_eq!((number("incidents"), number("restarts"), number("seed")), (0.0, 0.0, 0.0));
    assert_eq!(number("agents"), AGENTS);
    let (path, work, makespan) =
        (number("critical_path_s"), number("work_s"), number("makespan_s"));
    // Every task is rounded to a microsecond.
    let slack = 1e-6 * total as f64;
    let least = path.max(work / AGENTS);
    let most = work / AGENTS + (1.0 - 1.0 / AGENTS) * path;
    assert!((least - slack..=most + slack).contains(&makespan), "{least} to {most}: {summary}");
    assert!(path > 0.0 && path <= work + slack, "{summary}");
    assert!(number("messages_per_task") > 0.0 && number("events") > 3.0 * total as f64);
    assert_eq!(summary["events_hash"].as_str().unwrap().len(), 16, "{summary}");
    assert!(summary.get("result").is_none(), "{summary}");
}

#[test]
fn every_shared_workflow_is_simulated() {
    for file in files() {
        let ended = simulate(&file);

        if file.to_string_lossy().ends_with("-schema.json") {
            ended.refused(2, &[&file.display().to_string()]);
            continue;
        }
        let name = file.display();
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{name}: {}", ended.stdout);
        check(&ended.completed());
    }
}

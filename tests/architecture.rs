//! The arrows between the crates point one way, and each crate keeps its secret.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each crate with the crates of this workspace and the secrets that it may depend on.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("guild-core", &[]),
    ("guild-memory", &["guild-core", "sled"]),
    ("guild-runtime", &["guild-core", "guild-memory", "actix", "actix-rt", "tokio"]),
    (
        "guild-sim",
        &["guild-core", "guild-memory", "guild-runtime", "actix-rt", "tokio", "rand", "rand_distr"],
    ),
    ("guild", &["guild-core", "guild-memory", "guild-runtime"]),
    (
        "guild-cli",
        &[
            "guild",
            "guild-core",
            "guild-memory",
            "guild-runtime",
            "guild-sim",
            "tokio",
            "clap",
            "indicatif",
        ],
    ),
];
const SECRETS: [&str; 9] =
    ["sled", "actix", "actix-rt", "tokio", "clap", "indicatif", "rand", "rand_distr", "actix-web"];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    packages
        .iter()
        .map(|package| {
            let normal = |dependency: &&Value| dependency["kind"].is_null();
            let dependencies = package["dependencies"].as_array().unwrap();
            (name(package), dependencies.iter().filter(normal).map(name).collect())
        })
        .collect()
}

#[test]
fn arrows_between_crates_point_one_way_and_secrets_stay_where_they_are() {
    let dependencies = dependencies();
    let crates: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    let known: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(known, crates, "every crate of the workspace has its row in this test");

    for (name, allowed) in ALLOWED {
        for dependency in &dependencies[name] {
            let guarded = crates.contains(dependency.as_str()) || SECRETS.contains(&&**dependency);
            assert!(
                !guarded || allowed.contains(&&**dependency),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

/// Tells the crate `sled` from the module of that name.
fn names_sled(source: &str) -> bool {
    source.replace("self::sled::", "").replace("store::sled::", "").contains("sled::")
}

#[test]
fn only_one_file_names_sled() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/guild-memory/src");
    let mut folders = vec![root];
    let mut named = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if names_sled(&std::fs::read_to_string(&path).unwrap()) {
                named.push(path.file_name().unwrap().to_owned());
            }
        }
    }
    assert_eq!(named, ["sled.rs"]);
}

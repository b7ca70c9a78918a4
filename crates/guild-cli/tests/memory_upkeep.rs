//! `guild memory checkpoint`, `restore` and `migrate`: the way there and back, and what stops them.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;
use support::{Desk, Ended, wait_until};

const FLOW: &str = r#"
[roles.tool]
kind = "exec"
[tasks.one]
command = ["echo", "1"]
parse = "json"
memory.put = { "board/a" = "{{ output }}" }
[tasks.two]
command = ["echo", "2"]
parse = "json"
after = ["one"]
memory.put = { "board/a" = "{{ output }}" }
"#;

/// Returns a desk with a store, and a checkpoint of it in the file `checkpoint`.
fn with_checkpoint() -> Desk {
    let desk = Desk::with_completed_run(FLOW);
    desk.said(&["memory", "checkpoint", "--to", "checkpoint"]);
    desk
}

fn restore(desk: &Desk, file: &str) -> Ended {
    desk.ask(&["memory", "restore", file])
}

fn migrate(desk: &Desk, to: &str, more: &[&str]) -> Ended {
    desk.ask(&[&["memory", "migrate", "--to", to], more].concat())
}

/// Returns the content of every file in a directory, but not what is said of who has it open.
fn files(place: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(place).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let below = files(&path).into_iter();
            all.extend(below.map(|(file, content)| (format!("{name}/{file}"), content)));
        } else if name != "guild.lock" {
            all.insert(name, fs::read(&path).unwrap());
        }
    }
    all
}

/// Changes a file.
fn doctor(desk: &Desk, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(desk.path("checkpoint")).unwrap();
    change(&mut bytes);
    fs::write(desk.path(name), bytes).unwrap();
}

#[test]
fn a_checkpoint_brings_a_store_back_and_what_was_there_is_kept() {
    let desk = Desk::with_completed_run(FLOW);
    let written = desk.said_json(&["memory", "checkpoint", "--to", "checkpoint"]);
    assert_eq!(written["checkpoint"], "checkpoint");
    assert_eq!(written["bytes"], fs::metadata(desk.path("checkpoint")).unwrap().len());
    let rows = written["rows"].as_u64().unwrap();
    assert!(rows > 5, "{written}");
    desk.said(&["memory", "rollback", "1", "--all"]);
    assert_eq!(desk.said(&["memory", "get", "board/a"]), "1\n");

    let restored = desk.said_json(&["memory", "restore", "checkpoint"]);

    let expected = json!({"store": "store", "checkpoint": "checkpoint", "rows": rows,
                          "kept": "store/replaced-1"});
    assert_eq!(restored, expected);
    assert!(desk.path("store/replaced-1/db").exists());
    assert_eq!(desk.said(&["memory", "get", "board/a"]), "2\n");
    desk.run(&["--store", "store"]).completed();
    let text = desk.said(&["memory", "restore", "checkpoint"]);
    let told = format!("store: restored {rows} rows from checkpoint; what was there is kept in ");
    assert!(text.starts_with(&told), "{text}");
}

#[test]
fn a_checkpoint_makes_a_store_where_there_is_none() {
    let desk = with_checkpoint();
    fs::rename(desk.path("store"), desk.path("elsewhere")).unwrap();

    let restored = desk.said_json(&["memory", "restore", "checkpoint"]);

    assert_eq!(restored["kept"], json!(null));
    assert_eq!(desk.said(&["memory", "get", "board/a"]), "2\n");
    assert_eq!(desk.said(&["events"]).lines().count(), {
        fs::rename(desk.path("store"), desk.path("restored")).unwrap();
        fs::rename(desk.path("elsewhere"), desk.path("store")).unwrap();
        desk.said(&["events"]).lines().count()
    });
}

#[test]
fn a_store_keeps_its_newest_three_checkpoints() {
    let desk = Desk::with_completed_run(FLOW);
    for number in 1..=5 {
        let text = desk.said(&["memory", "checkpoint"]);
        let path = format!("store/checkpoints/{number:08}.guild-checkpoint: ");
        assert!(text.starts_with(&path), "{text}");
    }
    let kept = desk.said_json(&["memory", "stats"])["checkpoints"].clone();
    let name = |number: u32| format!("store/checkpoints/{number:08}.guild-checkpoint");
    assert_eq!(kept, json!([name(3), name(4), name(5)]));
    assert_eq!(restore(&desk, &name(4)).code, Some(0));
    // The format that stats tell of is the one in the head of a checkpoint.
    let head = fs::read(desk.path(&name(4))).unwrap();
    let format = u32::from_le_bytes(head[12..16].try_into().unwrap());
    assert_eq!(desk.said_json(&["memory", "stats"])["format"], format);
    assert!(desk.said(&["memory", "stats"]).contains(&format!("in format {format}; ")));
}

#[test]
fn a_checkpoint_that_cannot_be_used_changes_nothing() {
    let desk = with_checkpoint();
    doctor(&desk, "flipped", |bytes| bytes[100] ^= 1);
    doctor(&desk, "cut", |bytes| bytes.truncate(bytes.len() - 3));
    doctor(&desk, "longer", |bytes| bytes.push(0));
    doctor(&desk, "newer", |bytes| bytes[8] = 99);
    doctor(&desk, "newer-rows", |bytes| bytes[12] = 99);
    fs::write(desk.path("letter"), "Dear reader,\nthis is no checkpoint.\n").unwrap();
    fs::write(desk.path("empty"), "").unwrap();
    let before = files(&desk.path("store"));

    let damaged = "use another checkpoint";
    let foreign = "name a file that `guild memory checkpoint` wrote";
    for (file, parts) in [
        ("flipped", ["flipped is damaged at byte 16: a checksum does not match", damaged]),
        ("cut", ["cut is damaged at byte ", damaged]),
        ("longer", ["something follows the footer", damaged]),
        ("newer", ["newer has format version 99, this program knows 1", "the program that wrote"]),
        ("newer-rows", ["newer-rows has format version 99", "the program that wrote"]),
        ("letter", ["letter is not a guild checkpoint", foreign]),
        ("empty", ["empty is not a guild checkpoint", foreign]),
        (".", [". is not a guild checkpoint", foreign]),
        ("absent", ["no checkpoint at absent", "`guild memory stats`"]),
    ] {
        let refused = restore(&desk, file);
        refused.refused(2, &parts);
        assert_eq!(refused.stdout, "", "{file}");
        assert!(files(&desk.path("store")) == before, "{file}: the store has changed");
    }
    fs::remove_dir_all(desk.path("store")).unwrap();
    restore(&desk, "flipped").refused(2, &["damaged"]);
    assert!(!desk.path("store").exists());
}

#[test]
fn a_store_in_use_is_neither_saved_nor_replaced_nor_copied() {
    let desk = with_checkpoint();
    desk.flow("name = 'other'\n[roles.tool]\nkind = \"exec\"\n[tasks.a]\nshell = 'touch begun; while [ ! -e go ]; do sleep 0.01; done'\n");
    let guild = desk.start(&["--store", "store"]);
    wait_until("the task runs", || desk.path("begun").exists());
    let holder = format!("in use by process {}", guild.id());

    let told = ["store store is ", holder.as_str(), "stop that process"];
    desk.ask(&["memory", "checkpoint"]).refused(4, &told);
    desk.ask(&["memory", "checkpoint", "--to", "second"]).refused(4, &told);
    restore(&desk, "checkpoint").refused(4, &told);
    migrate(&desk, "copy", &[]).refused(4, &told);
    assert!(!desk.path("second").exists() && !desk.path("copy").exists());
    assert!(!desk.path("store/checkpoints").exists());

    fs::write(desk.path("go"), "").unwrap();
    Ended::from(guild.wait_with_output().unwrap()).completed();
    assert_eq!(desk.said(&["memory", "get", "board/a"]), "2\n");
}

#[test]
fn a_checkpoint_goes_where_it_may_and_replaces_a_file_as_a_whole() {
    let desk = Desk::with_completed_run(FLOW);
    fs::write(desk.path("checkpoint"), "an older one").unwrap();
    desk.said(&["memory", "checkpoint", "--to", "checkpoint"]);
    assert_eq!(restore(&desk, "checkpoint").code, Some(0));
    let to = |file: &str| desk.ask(&["memory", "checkpoint", "--to", file]);
    to("store").refused(2, &["--to: cannot write store: it is a directory"]);
    to("no/such/file").refused(2, &["--to: cannot write no/such/file", "does not exist"]);
    fs::remove_dir_all(desk.path("store")).unwrap();
    to("second").refused(4, &["no guild store at store"]);
    assert!(!desk.path("second").exists() && !desk.path("store").exists());
}

#[test]
fn a_store_is_copied_to_a_directory_of_its_own() {
    let desk = Desk::with_completed_run(FLOW);
    let commands = [&["memory", "scan"][..], &["status"], &["events"]];
    let ask = |command: &[&str], store: &str| {
        Ended::of(desk.guild().args(command).args(["--store", store])).stdout
    };
    let before = commands.map(|command| ask(command, "store"));
    assert!(before.iter().all(|said| !said.is_empty()));
    let engines: &[&str] = if cfg!(feature = "redb") { &["sled", "redb"] } else { &["sled"] };
    for engine in engines {
        let copied = migrate(&desk, engine, &["--engine", engine, "--format", "json"]);
        assert_eq!(copied.code, Some(0), "{}", copied.stderr);
        let rows = copied.json()["rows"].as_u64().unwrap();
        let told = json!({"from": "store", "to": engine, "engine": engine, "rows": rows});
        assert_eq!(copied.json(), told);
        assert!(rows > 5);
        assert_eq!(commands.map(|command| ask(command, engine)), before, "{engine}");
    }
    assert_eq!(commands.map(|command| ask(command, "store")), before, "the old one stays");
    // An empty directory will do.
    fs::create_dir(desk.path("prepared")).unwrap();
    let text = migrate(&desk, "prepared", &[]).stdout;
    assert!(text.starts_with("prepared: ") && text.ends_with("; store is unchanged\n"), "{text}");
}

#[test]
fn a_copy_is_not_put_where_something_is() {
    let desk = Desk::with_completed_run(FLOW);
    fs::create_dir(desk.path("full")).unwrap();
    fs::write(desk.path("full/letter.txt"), "x").unwrap();
    for to in ["full", "flow.toml", "store"] {
        let told = format!("--to: {to} exists and is not an empty directory");
        migrate(&desk, to, &[]).refused(2, &[&told, "name another one"]);
    }
    assert_eq!(fs::read_dir(desk.path("full")).unwrap().count(), 1);
    assert_eq!(desk.said(&["memory", "get", "board/a"]), "2\n");
    if !cfg!(feature = "redb") {
        let refused = migrate(&desk, "copy", &["--engine", "redb"]);
        refused.refused(2, &["--engine", "without redb", "--features redb"]);
    }
    fs::remove_dir_all(desk.path("store")).unwrap();
    migrate(&desk, "copy", &[]).refused(4, &["no guild store at store"]);
    assert!(!desk.path("copy").exists());
}

//! The main job of the README: `examples/flows/census.toml` against an independent count.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::{Desk, Ended, events, guild};

const FLOW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flows/census.toml");

/// Writes a tree with everything that makes counting hard.
fn tree(root: &Path) {
    let write = |name: &[u8], content: &[u8]| {
        let path = root.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let binary: Vec<u8> =
        (0..40_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    write(b"plain.txt", b"The quick brown fox jumps over the lazy dog. The end\n");
    write(b"empty", b"");
    write(b"only spaces", b" \t\n\x0b\x0c\r \n");
    write(b"no line end", b"one two\nthree");
    write(b"new\nline", b"the the the");
    write(b"-dash", b"dash dash\n");
    write(b"100% %41 {{ item }}", b"percent the\n");
    write(b"quote'\"$(echo x)`id`;*", b"quoted words here\n");
    write(b"not\xff\xfeutf8/\x80", b"in a strange place\n");
    write(
        "gr\u{fc}n/w\u{f6}rter".as_bytes(),
        "gr\u{fc}n w\u{f6}rter\u{a0}hier \u{2003} ja\n".as_bytes(),
    );
    write(b"binary", &binary);
    write(b"nul", b"a\0b c\0\0 d\n");
    write(b"long line", "word ".repeat(50_000).as_bytes());
    write(b"a/b/c/d/deep", b"deep the\n");
    write(b".hidden", b"hidden counts\n");
    write(b".git/config", b"must not be counted\n");
    write(b"sub/.git/config", b"must not be counted\n");
    write(b"cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n");
    write(b"cache/inside", b"must not be counted\n");
    write(b"sub/.github/file", b"counts\n");
    std::os::unix::fs::symlink("plain.txt", root.join("link")).unwrap();
    for n in 0..60 {
        write(format!("many/{n}.txt").as_bytes(), format!("file number {n} of many\n").as_bytes());
    }
}

/// Counts the same in another way: a walk in Rust, `wc -w` for the words of each file.
fn count(root: &Path) -> Value {
    let mut files = Vec::new();
    walk(root, &mut files);
    let (mut words, mut bytes) = (0_u64, 0);
    let mut common: BTreeMap<String, u64> = BTreeMap::new();
    for file in &files {
        let content = fs::read(file).unwrap();
        bytes += content.len();
        let mut wc = Command::new("wc");
        wc.arg("-w").stdin(File::open(file).unwrap()).stderr(Stdio::inherit());
        let counted: u64 =
            String::from_utf8(wc.output().unwrap().stdout).unwrap().trim().parse().unwrap();
        if content.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
            let plain = content.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            assert_eq!(counted, plain.count() as u64, "{file:?}");
        }
        words += counted;
        for word in
            content.split(|byte| !byte.is_ascii_alphabetic()).filter(|word| !word.is_empty())
        {
            let word = String::from_utf8(word.to_ascii_lowercase()).unwrap();
            *common.entry(word).or_default() += 1;
        }
    }
    let mut common: Vec<_> = common.into_iter().collect();
    common.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
    let common = common.into_iter().take(20);
    let common: Vec<_> =
        common.map(|(word, count)| json!({ "word": word, "count": count })).collect();
    json!({ "words": words, "files": files.len(), "bytes": bytes, "commonest": common })
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    if directory.join("CACHEDIR.TAG").is_file() {
        return;
    }
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && entry.file_name() != ".git" {
            walk(&entry.path(), files);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
}

#[test]
fn census_equals_an_independent_count_with_and_without_crashes() {
    let desk = Desk::new();
    let root = desk.path("tree");
    tree(&root);
    let counted = count(&root);
    let census = |more: &[&str]| {
        let mut command = guild();
        command.current_dir(&root).args(["run", FLOW, "--format", "json"]).args(more);
        Ended::of(&mut command).completed()
    };

    let calm = census(&[]);
    let events_file = desk.path("events.jsonl");
    let stormy =
        census(&["--chaos", "crash=0.1", "--seed", "3", "--events", events_file.to_str().unwrap()]);

    assert_eq!(calm["result"], counted);
    assert_eq!(stormy["result"], counted);
    assert_eq!(calm["incidents"], 0);
    assert!(stormy["incidents"].as_u64() > Some(0), "{stormy}");
    // Expansion, list, top and result besides one task per file.
    assert_eq!(calm["tasks"]["total"].as_u64(), Some(counted["files"].as_u64().unwrap() + 4));
    assert_eq!(calm["agents"], 100);
    let log = events(&events_file);
    assert_eq!(stormy["events"], log.len());
    let assigned = log.iter().filter(|event| event["kind"] == "task_assigned").count();
    assert_eq!(stormy["attempts"], assigned);
    let crashed = log.iter().filter(|event| event["kind"] == "agent_crashed").count();
    assert!(crashed > 0);
}

#[test]
fn summary_for_people_says_how_many_crashed_and_that_nothing_was_lost() {
    let desk = Desk::new();
    tree(&desk.path("tree"));
    let mut command = desk.guild();
    command.args(["run", FLOW, "--set", "dir=tree", "--chaos", "crash=0.1,slow=0.05"]);

    let run = Ended::of(&mut command);

    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for part in ["agents crashed", "nothing was lost", "census", "completed", "words", "commonest"]
    {
        assert!(run.stdout.contains(part), "`{part}` is not in:\n{}", run.stdout);
    }
}

#[test]
fn empty_directory_has_no_words() {
    let desk = Desk::new();
    fs::create_dir(desk.path("-empty")).unwrap();
    let mut command = desk.guild();
    command.args(["run", FLOW, "--set", "dir=-empty", "--format", "json"]);

    let json = Ended::of(&mut command).completed();

    assert_eq!(json["result"], json!({ "words": 0, "files": 0, "bytes": 0, "commonest": [] }));
}

//! The example agents, and what the module for Python does.

use std::path::PathBuf;
use std::process::Command;

use guild::process::ProcessSpec;
use guild::{Drain, Guild, Incident, Reason, Task};
use serde_json::{Value, json};

use crate::common::Echo;
use crate::{fails, guild_of, run, task};

/// Has two agents count the words of three files, one of which does not exist.
fn counts_words(spec: ProcessSpec) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("a"), "one two three\nfour\n").unwrap();
    std::fs::write(path("b"), "five\n\n six").unwrap();
    let guild = Guild::builder()
        .role("good", 1, || Echo)
        .process_role("bad", 2, spec)
        .validate(true)
        .start()
        .unwrap();
    let count = |name: &str| Task::new(name, "bad").input(&json!({"file": path(name)}));

    let report = run(&guild, "words", ["a", "b", "c"].map(count).into());
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    assert_eq!(report.output::<Value>("a").unwrap()["words"], 4);
    assert_eq!(report.output::<Value>("b").unwrap()["words"], 2);
    assert_eq!(report.tally().failed, 1, "a file that is missing is not tried again");
    assert_eq!(guild.memory().snapshot().value::<i64>("words").unwrap(), Some(6));
    let [incident] = <[Incident; 1]>::try_from(guild.incidents()).unwrap();
    assert!(incident.report.message.to_lowercase().contains("no such file"), "{incident:?}");
    assert_eq!(incident.report.attempt.unwrap().number, 1);
}

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/agents").join(name)
}

#[expect(clippy::print_stderr, reason = "a test that checks nothing says so aloud")]
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: python3 is not installed, the agents in Python are not tested");
    }
    found
}

#[test]
fn example_agent_in_python_counts_words() {
    if has_python() {
        counts_words(ProcessSpec::new("python3").arg(example("wordcount.py")));
    }
}

#[test]
fn example_agent_in_rust_counts_words() {
    // A test on its own does not build the examples.
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", "wordcount_agent"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/wordcount_agent");
    if !program.is_file() {
        assert!(build.status().unwrap().success());
    }
    counts_words(ProcessSpec::new(program));
}

#[test]
fn agent_in_python_reads_writes_and_spawns_within_one_transaction() {
    if !has_python() {
        return;
    }
    let program = "
import guild_agent
def perform(task):
    if task.name != 'bad':
        return task.input * 2
    task.put('list/b', [1])
    task.put('list/a', task.get('absent', 'default'))
    task.add('count', 2)
    task.put('gone', 1)
    task.delete('gone')
    task.merge('seen', 'set_add', task.name)
    task.merge('best', 'max', 7)
    task.add('stock', 3)
    task.add('stock', -2, floor=0)
    try:
        task.ask_add('stock', -2, floor=0)
    except guild_agent.Refused as refused:
        task.put('refused', str(refused))
    task.spawn('first', 'bad', input=20)
    task.spawn('second', 'bad', input=21, after=['first'], attempts=2, timeout_ms=60000)
    print('this does not get between the messages')
    return [task.get('count'), task.scan('list/'), task.get('gone'), task.attempt]
guild_agent.serve(perform)
";
    let mut spec = ProcessSpec::new("python3").arg("-c").arg(program);
    spec.program.env.push(("PYTHONPATH".into(), example("").into()));
    let guild = guild_of(spec).start().unwrap();

    let report = run(&guild, "all", vec![task()]);
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    let expected = json!([2, {"list/a": "default", "list/b": [1]}, null, 1]);
    assert_eq!(report.output::<Value>("bad").unwrap(), expected);
    assert_eq!(report.tally().completed, 8);
    let spawned = report.spawned_payloads("bad").unwrap().into_iter();
    let spawned: Vec<i32> = spawned.map(|output| output.unwrap().decode().unwrap()).collect();
    assert_eq!(spawned, [40, 42]);
    let memory = guild.memory().snapshot();
    assert_eq!(memory.value::<i64>("count").unwrap(), Some(2));
    assert_eq!(memory.value::<i64>("gone").unwrap(), None);
    assert_eq!(memory.value::<Value>("seen").unwrap(), Some(json!(["bad"])));
    assert_eq!(memory.value::<i64>("best").unwrap(), Some(7));
    assert_eq!(memory.value::<i64>("stock").unwrap(), Some(1));
    assert!(memory.value::<String>("refused").unwrap().unwrap().contains("stock"));
}

#[test]
fn agent_in_python_that_runs_out_of_memory_is_told_as_that() {
    if !has_python() {
        return;
    }
    let program = "
import guild_agent
guild_agent.serve(lambda task: len(bytearray(1 << 30)))
";
    let mut spec = ProcessSpec::new("python3").arg("-c").arg(program);
    spec.program.env.push(("PYTHONPATH".into(), example("").into()));
    spec.program.resources.memory_bytes_max = Some(512 << 20);

    let story = fails(spec, Reason::OutOfMemory, "ended with status 1");

    assert!(story.crash.report.causes[0].contains("MemoryError"));
}

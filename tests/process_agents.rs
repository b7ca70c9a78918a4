//! What is promised of agents that are processes: whatever one does wrong stays with it, has an
//! incident that says why, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/until.rs"]
mod until;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Acts, Echo, count, events};
use guild::process::{ProcessAgent, ProcessObserver, ProcessSpec, Resources};
use guild::{
    Drain, Guild, GuildBuilder, Incident, IncidentState, Outcome, Reason, RestartPolicy,
    RetryPolicy, RunReport, Task, TaskContext,
};
use serde_json::{Value, json};
use until::until;

/// Begins every script: greets, takes a task, and keeps its token.
const TAKE: &str = r#"
read -r hello
echo '{"type":"ready","protocol":1}'
take() { read -r assign || exit 0; token=$(echo "$assign" | sed 's/.*"token":"\([0-9]*\)".*/\1/'); }
result() { echo "{\"type\":\"result\",\"token\":\"$token\",\"output\":$1}"; }
take
"#;

fn script(text: &str) -> ProcessSpec {
    ProcessSpec::new("sh").arg("-c").arg(format!("{TAKE}\n{text}"))
}

/// Marks the processes of one test in their environment.
fn marked(mut spec: ProcessSpec) -> (ProcessSpec, String) {
    static TESTS: AtomicU32 = AtomicU32::new(0);
    let number = TESTS.fetch_add(1, Ordering::Relaxed);
    let mark = format!("{}-{number}", std::process::id());
    spec.program.env.push(("GUILD_TEST_MARK".into(), mark.clone().into()));
    (spec, format!("GUILD_TEST_MARK={mark}"))
}

/// Returns the processes that carry a mark and have not ended.
fn living(mark: &str) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let carries = |path: &PathBuf| {
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    processes.map(|entry| entry.path()).filter(carries).collect()
}

/// A role `bad` with one agent, beside a role `good`.
fn guild_of(spec: ProcessSpec) -> GuildBuilder {
    Guild::builder()
        .role("good", 2, || Echo)
        .process_role("bad", 1, spec)
        .restart(RestartPolicy { intensity: 1_000, ..RestartPolicy::default() })
        .validate(true)
}

/// Runs the tasks beside five of the role `good`, which have to complete whatever the others do.
fn run(guild: &Guild, name: &str, tasks: Vec<Task>) -> Arc<RunReport> {
    let mut graph = guild.graph(name);
    for number in 0..5 {
        graph.add(Task::new(format!("good-{number}"), "good").input(&number));
    }
    for task in tasks {
        graph.add(task);
    }
    let graph = graph.build().unwrap();
    let report =
        guild::block_on(async { guild.submit(graph).await.unwrap().wait().await.unwrap() });
    (0..5).for_each(|n| assert_eq!(report.output::<i32>(&format!("good-{n}")).unwrap(), n));
    report
}

fn task() -> Task {
    Task::new("bad", "bad").input(&json!({"n": 1})).retry(RetryPolicy::once())
}

/// What came of one task of a process that does something wrong.
struct Story {
    report: Arc<RunReport>,
    crash: Incident,
    log: Vec<Value>,
}

/// Has the process perform one task; there must be one crash, recovered, and no process left.
fn story_of(spec: ProcessSpec, task: Task) -> Story {
    let (spec, mark) = marked(spec);
    let guild = guild_of(spec).start().unwrap();
    let report = run(&guild, "story", vec![task]);
    let crashes = || -> Vec<Incident> {
        let is_crash = |found: &Incident| found.report.kind.name() == "agent_crashed";
        guild.incidents().into_iter().filter(is_crash).collect()
    };
    until("the agent has recovered", || {
        crashes().first().is_some_and(|crash| crash.state() == IncidentState::Recovered)
    });
    until("nothing of the process runs", || living(&mark).is_empty());
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();
    let [crash] = <[Incident; 1]>::try_from(crashes()).unwrap();
    Story { report, crash, log: events(&guild) }
}

/// Asserts that a script makes its only task fail for this reason, and what the incident says. A
/// process of which nobody takes notice is told apart by the timeout.
fn fails(spec: ProcessSpec, reason: Reason, says: &str) -> Story {
    let story = story_of(spec, task().timeout(Duration::from_secs(20)));
    assert_eq!(story.report.outcome(), Outcome::Failed);
    assert_eq!(story.crash.report.reason, reason, "{:?}", story.crash);
    let message = &story.crash.report.message;
    assert!(message.contains(says), "`{says}` is not in: {message}");
    let attempt = story.crash.report.attempt.unwrap();
    assert_eq!(attempt.number, 1);
    assert!(attempt.token.is_some());
    let opened = story.log.iter().find(|event| event["kind"] == "incident_opened").unwrap();
    assert_eq!(opened["reason"], reason.name());
    assert_eq!((&opened["role"], &opened["task"]), (&json!("bad"), &json!("bad")));
    story
}

#[test]
fn segfault_is_told_with_its_signal() {
    fails(script("kill -SEGV $$"), Reason::Segfault, "killed by signal 11 (SIGSEGV");
}

#[test]
fn last_words_are_behind_the_failure() {
    let story = fails(script("echo disk is full >&2; exit 3"), Reason::Exit, "status 3");

    assert_eq!(&*story.crash.report.causes[0], "its last words: disk is full");
}

#[test]
fn process_beyond_its_memory_is_told_from_one_that_exits() {
    let mut spec = script("exec dd if=/dev/zero of=/dev/null bs=2G count=1");
    spec.program.resources.memory_bytes_max = Some(512 << 20);

    fails(spec, Reason::OutOfMemory, "ended with status 1");
}

#[test]
fn endless_loop_ends_with_its_processor_time() {
    let mut spec = script("while :; do :; done");
    spec.program.resources.cpu_time_max = Some(Duration::from_secs(1));

    fails(spec, Reason::CpuTime, "SIGXCPU");
}

#[test]
fn endless_loop_ends_with_the_timeout_of_its_task() {
    let mut spec = script("while :; do :; done");
    spec.grace = Duration::from_millis(500);

    let story = story_of(spec, task().timeout(Duration::from_millis(300)));

    assert_eq!(story.crash.report.reason, Reason::Timeout);
    assert!(story.crash.report.causes.is_empty(), "it obeys SIGTERM");
}

#[test]
fn garbage_is_quoted() {
    let says = r#"no message: expected value at line 1 column 1: "hello world""#;
    fails(script("echo 'hello world'; sleep 1000"), Reason::Garbage, says);
}

#[test]
fn message_of_an_unknown_type_and_one_with_an_unknown_field_are_garbage() {
    let unknown = script(r#"echo "{\"type\":\"shout\",\"token\":\"$token\"}"; sleep 1000"#);
    fails(unknown, Reason::Garbage, "there is no message of type `shout`");

    let field = script(r#"echo "{\"type\":\"error\",\"retriable\":true}"; sleep 1000"#);
    fails(field, Reason::Garbage, "unknown field `retriable`");
}

#[test]
fn line_of_100_megabytes_is_read_no_further_than_allowed() {
    // Its end never comes, so nobody can wait for it.
    let mut spec = script("head -c 100000000 /dev/zero | tr '\\0' x; sleep 1000");
    spec.line_bytes_max = 1 << 20;

    fails(spec, Reason::LineTooLong, "more than 1048576 bytes; raise line_max");
}

#[test]
fn child_that_forks_and_exits_takes_its_children_along() {
    let text = "sleep 1000 & sh -c 'sleep 1000 & sleep 1000' & exit 0";
    fails(script(text), Reason::Exit, "status 0 in the middle of a task");
}

#[test]
fn child_whose_children_have_another_environment_takes_them_along() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let text = format!("env -i sleep 1000 & echo $! > '{}'; exit 3", file.display());
    fails(script(&text), Reason::Exit, "status 3");

    // Nothing but their group tells whose they are.
    let pid = std::fs::read_to_string(file).unwrap();
    let command = PathBuf::from(format!("/proc/{}/cmdline", pid.trim()));
    until("it has ended", || std::fs::read(&command).unwrap_or_default().is_empty());
}

#[test]
fn child_that_leaves_a_session_of_its_own_behind_leaves_no_orphan() {
    let text = "setsid sh -c 'setsid sleep 1000 & sleep 1000' & sleep 0.1; exit 3";
    fails(script(text), Reason::Exit, "status 3");
}

#[test]
fn child_that_ignores_sigterm_is_killed_and_that_is_told() {
    let mut spec = script("trap '' TERM; while :; do sleep 1000; done");
    spec.grace = Duration::from_millis(50);

    let story = story_of(spec, task().timeout(Duration::from_millis(300)));

    assert_eq!(story.crash.report.reason, Reason::Timeout);
    let behind = &story.crash.report.causes[0];
    assert!(behind.contains("did not end within 50ms of SIGTERM, and was killed"), "{behind}");
}

#[test]
fn child_that_exits_well_in_the_middle_of_a_task_has_failed() {
    fails(script("exit 0"), Reason::Exit, "status 0 in the middle of a task");
}

#[test]
fn answer_with_a_stale_token_is_refused() {
    let says = "`result` with the token `7`, which is not that of its task";
    fails(script("token=7; result 1; sleep 1000"), Reason::StaleToken, says);
}

#[test]
fn second_answer_is_refused_and_the_first_one_counts() {
    let story = story_of(script("result 1; result 2; sleep 1000"), task());

    assert_eq!(story.report.output::<i32>("bad").unwrap(), 1);
    assert_eq!(story.crash.report.reason, Reason::StaleToken);
    assert!(story.crash.report.message.contains("it has no task"));
    assert_eq!(story.crash.report.attempt, None);
}

#[test]
fn child_that_closes_its_output_and_goes_on_is_killed() {
    fails(script("exec >&-; sleep 1000"), Reason::OutputClosed, "closed its standard output");
}

#[test]
fn child_that_closes_its_input_and_goes_on_is_killed() {
    let text = r#"exec <&-; echo '{"type":"ready","protocol":1}'; sleep 1000"#;
    let spec = ProcessSpec::new("sh").arg("-c").arg(text);

    fails(spec, Reason::OutputClosed, "closed its standard input and went on");
}

#[test]
fn child_that_speaks_before_it_greets_or_greets_twice_is_killed() {
    let early = r#"read -r hello; echo '{"type":"heartbeat","token":"1"}'; sleep 1000"#;
    let early = ProcessSpec::new("sh").arg("-c").arg(early);
    fails(early, Reason::Protocol, "sent `heartbeat` before it had greeted");

    let twice = script(r#"echo '{"type":"ready","protocol":1}'; sleep 1000"#);
    fails(twice, Reason::Protocol, "sent `ready` a second time");
}

#[test]
fn child_that_never_greets_is_killed() {
    let mut spec = ProcessSpec::new("sh").arg("-c").arg("sleep 1000");
    spec.handshake = Duration::from_millis(100);

    fails(spec, Reason::NoHandshake, "did not greet within 100ms");
}

#[test]
fn child_that_dies_over_its_greeting_says_why() {
    let spec = ProcessSpec::new("sh").arg("-c").arg("echo no module >&2; exit 1");

    let story = fails(spec, Reason::Exit, "status 1 before it had greeted");

    assert_eq!(&*story.crash.report.causes[0], "its last words: no module");
}

#[test]
fn child_that_dies_between_two_tasks_costs_no_attempt() {
    let story = story_of(script("result 1; kill -9 $$"), task());

    assert_eq!(story.report.outcome(), Outcome::Completed);
    assert_eq!(story.crash.report.reason, Reason::Signal);
    assert_eq!(story.crash.report.attempt, None);
    assert_eq!(count(&story.log, "task_failed"), 0);
}

#[test]
fn child_that_cannot_begin_fails_its_task_at_once() {
    let version = ProcessSpec::new("sh").arg("-c");
    let version = version.arg(r#"read -r x; echo '{"type":"ready","protocol":9}'; sleep 1000"#);
    let cases = [
        (ProcessSpec::new("guild-no-such-program"), Reason::NotStarted, "command not found"),
        (version, Reason::Protocol, "speaks version 9 of the protocol"),
    ];
    for (spec, reason, says) in cases {
        let guild = guild_of(spec).start().unwrap();
        let task = task().retry(RetryPolicy::immediately(5)).timeout(Duration::from_secs(20));
        let report = run(&guild, "hopeless", vec![task]);
        guild::block_on(guild.shutdown(Drain::Now)).unwrap();

        assert_eq!(report.tally().failed, 1);
        let [incident] = <[Incident; 1]>::try_from(guild.incidents()).unwrap();
        assert_eq!(incident.report.reason, reason);
        assert!(incident.report.message.contains(says), "{}", incident.report.message);
        assert_eq!(incident.report.attempt.unwrap().number, 1);
        assert_eq!(incident.state(), IncidentState::Open, "a person has to act");
    }
}

#[test]
fn process_that_recycles_itself_between_tasks_is_no_incident() {
    let guild = guild_of(script("result $$; exit 0")).start().unwrap();
    let mut numbers = Vec::new();
    for run_number in 1..=3 {
        let report = run(&guild, &format!("run-{run_number}"), vec![task()]);
        numbers.push(report.output::<u32>("bad").unwrap());
        until("the next life begins", || count(&events(&guild), "agent_restarted") == run_number);
    }
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 3, "each life has a process of its own");
    assert_eq!(guild.incidents().len(), 0);
}

#[test]
fn process_that_recycles_itself_while_the_next_task_comes_costs_no_attempt() {
    let guild = guild_of(script("result $$; sleep 0.05; exit 0")).start().unwrap();
    let task = |n| Task::new(format!("t{n}"), "bad").retry(RetryPolicy::once());
    let report = run(&guild, "recycled", (0..5).map(task).collect());
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    assert_eq!(report.tally().completed, 10);
    let numbers = (0..5).map(|n| report.output::<u32>(&format!("t{n}")).unwrap());
    assert_eq!(numbers.collect::<std::collections::BTreeSet<_>>().len(), 5);
    assert_eq!(guild.incidents().len(), 0);
}

#[test]
fn one_process_performs_all_tasks_of_a_life_and_an_error_does_not_end_it() {
    let text = r#"
        while :; do
            case "$assign" in
                *'"n":2'*) echo "{\"type\":\"error\",\"token\":\"$token\",\"message\":\"no 2\",\"retryable\":false}" ;;
                *) result $$ ;;
            esac
            take
        done"#;
    let guild = guild_of(script(text)).start().unwrap();
    let tasks = (0..5).map(|n| Task::new(format!("t{n}"), "bad").input(&json!({"n": n})));
    let report = run(&guild, "life", tasks.collect());
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    let first = report.output::<u32>("t0").unwrap();
    for n in [1, 3, 4] {
        assert_eq!(report.output::<u32>(&format!("t{n}")).unwrap(), first);
    }
    assert_eq!(report.tally().failed, 1);
    let [incident] = <[Incident; 1]>::try_from(guild.incidents()).unwrap();
    assert_eq!(&*incident.report.message, "no 2");
}

#[test]
fn heartbeats_of_a_process_keep_its_lease() {
    let text = r#"
        for beat in 1 2 3 4 5 6 7 8 9 10 11 12; do
            echo "{\"type\":\"heartbeat\",\"token\":\"$token\"}"
            sleep 0.1
        done
        result 1; take"#;
    let guild = guild_of(script(text)).start().unwrap();
    let report = run(&guild, "beats", vec![task().heartbeat(Duration::from_millis(900))]);
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    assert_eq!(report.outcome(), Outcome::Completed);
}

#[test]
fn heartbeats_for_another_lease_keep_none() {
    let text = r#"while :; do echo '{"type":"heartbeat","token":"7"}'; sleep 0.1; done"#;

    let story = story_of(script(text), task().heartbeat(Duration::from_millis(500)));

    assert_eq!(story.crash.report.reason, Reason::Heartbeat);
}

#[test]
fn process_whose_task_is_taken_away_is_told_which_before_its_input_ends() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("heard");
    let text = format!("while read -r line; do echo \"$line\" >> '{}'; done", file.display());
    let mut spec = script(&text);
    spec.grace = Duration::from_secs(3);

    let story = story_of(spec, task().timeout(Duration::from_millis(300)));

    let heard = std::fs::read_to_string(file).unwrap();
    let told: Vec<Value> = heard.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let token = story.crash.report.attempt.unwrap().token.unwrap();
    assert_eq!(told, [json!({"type": "cancel", "token": token.0.to_string()})]);
}

#[test]
fn limits_are_those_that_the_process_sees() {
    let mut spec = script(r#"result "[$(ulimit -n),$(ulimit -v),$(ulimit -t)]"; take"#);
    spec.program.resources = Resources {
        memory_bytes_max: Some(300 << 20),
        cpu_time_max: Some(Duration::from_secs(7)),
        open_files_max: Some(33),
    };
    let guild = guild_of(spec).start().unwrap();
    let report = run(&guild, "limits", vec![task()]);
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    let [files, memory_kib, cpu_s] = report.output::<[u64; 3]>("bad").unwrap();
    assert_eq!((files, memory_kib), (33, 300 << 10));
    assert!((7..=8).contains(&cpu_s), "{cpu_s}");
}

#[test]
fn processor_time_is_that_of_each_task_however_long_the_process_lives() {
    // Half a second in each of three tasks, by the ticks of the shell itself.
    let text = r#"
        spent=0
        while :; do
            spent=$((spent + 50)) ticks=0
            while [ "$ticks" -lt "$spent" ]; do
                read -r stat < /proc/self/stat
                set -- $stat
                ticks=$((${14} + ${15}))
            done
            result $$
            take
        done"#;
    let mut spec = script(text);
    spec.program.resources.cpu_time_max = Some(Duration::from_secs(1));
    let guild = guild_of(spec).start().unwrap();
    let tasks = (0..3).map(|n| Task::new(format!("t{n}"), "bad").retry(RetryPolicy::once()));
    let report = run(&guild, "burning", tasks.collect());
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    let of = |n: u32| report.output::<u32>(&format!("t{n}")).unwrap();
    assert_eq!((of(1), of(2)), (of(0), of(0)), "one process has done all three");
}

#[test]
fn a_refused_write_fails_the_task_unless_the_process_asked_for_an_answer() {
    let write = |id: &str| {
        format!(
            r#"echo "{{\"type\":\"put\",\"token\":\"$token\",\"key\":\"k\",\"value\":\"text\"}}"
            echo "{{\"type\":\"add\",\"token\":\"$token\",{id}\"key\":\"k\",\"amount\":1}}""#
        )
    };
    let silent = script(&format!("{}; result 1; take", write("")));
    let asks = script(&format!(
        "{}\nread -r answer; result \"$(echo \"$answer\" | grep -c refused)\"; take",
        write(r#"\"id\":4,"#)
    ));

    let outcomes = [silent, asks].map(|spec| {
        let guild = guild_of(spec).start().unwrap();
        let report = run(&guild, "writes", vec![task()]);
        guild::block_on(guild.shutdown(Drain::Now)).unwrap();
        (report.output::<u32>("bad").ok(), guild.memory().snapshot().value::<String>("k").unwrap())
    });

    assert_eq!(outcomes[0], (None, None), "nothing of a failed task is committed");
    assert_eq!(outcomes[1], (Some(1), Some("text".to_owned())));
}

#[test]
fn shutdown_lets_idle_processes_end_by_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bye");
    // The end of its input is the end of the loop.
    let text = format!("result 1; while read -r line; do :; done; echo bye > '{}'", file.display());
    let (mut spec, mark) = marked(script(&text));
    spec.grace = Duration::from_secs(3);
    let guild = guild_of(spec).start().unwrap();
    run(&guild, "work", vec![task()]);

    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    assert_eq!(std::fs::read_to_string(file).unwrap(), "bye\n");
    assert_eq!(living(&mark), Vec::<PathBuf>::new());
}

#[derive(Default)]
struct Groups(Mutex<Vec<i32>>);

impl ProcessObserver for Groups {
    fn started(&self, group: i32) {
        self.0.lock().unwrap().push(group);
    }
    fn ended(&self, group: i32) {
        self.0.lock().unwrap().retain(|known| *known != group);
    }
}

#[test]
fn observer_knows_every_group_until_nothing_of_it_is_left() {
    let groups = Arc::new(Groups::default());
    let seen = Arc::clone(&groups);
    let spec = Arc::new(script("result $$; take"));
    let guild = Guild::builder()
        .role("good", 1, || Acts(async |input, _: &mut TaskContext| Ok(input)))
        .role_with("bad", 1, move |life| {
            ProcessAgent::new(Arc::clone(&spec), life).observed_by(seen.clone())
        })
        .start()
        .unwrap();

    let report = run(&guild, "watched", vec![task()]);
    let group = report.output::<i32>("bad").unwrap();
    assert_eq!(*groups.0.lock().unwrap(), [group]);
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();

    assert_eq!(*groups.0.lock().unwrap(), Vec::<i32>::new());
}

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

//! Processes that do something wrong: each way has its reason and says why, and nothing is left of them.

use std::path::PathBuf;
use std::time::Duration;

use guild::process::ProcessSpec;
use guild::{Drain, Incident, IncidentState, Outcome, Reason, RetryPolicy};

use crate::common::count;
use crate::until::until;
use crate::{fails, guild_of, run, script, story_of, task};

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

//! What a process that does nothing wrong may rely on: its life, its lease, its limits, its writes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guild::process::{ProcessAgent, ProcessObserver, Resources};
use guild::{Drain, Guild, Incident, Outcome, Reason, RetryPolicy, Task, TaskContext};
use serde_json::{Value, json};

use crate::common::{Acts, count, events};
use crate::until::until;
use crate::{guild_of, living, marked, run, script, story_of, task};

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

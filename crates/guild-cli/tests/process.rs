//! Roles of kind `process` in flows, and limits on processes of both kinds.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use support::{Desk, Ended, events, is_alive, send, wait_until};

/// An agent in shell: answers with its own number, the text of its input, and its environment.
const AGENT: &str = r#"
read -r hello
echo '{"type":"ready","protocol":1}'
while read -r assign; do
    token=$(echo "$assign" | sed 's/.*"token":"\([0-9]*\)".*/\1/')
    input=$(echo "$assign" | sed 's/.*"input":\(.*\),"idempotency_key".*/\1/')
    echo "{\"type\":\"add\",\"token\":\"$token\",\"key\":\"seen\",\"amount\":1}"
    echo "{\"type\":\"result\",\"token\":\"$token\",\"output\":{\"pid\":$$,\"input\":$input,\"word\":\"$WORD\"}}"
done
"#;

const FLOW: &str = r#"
[vars]
word = "hello"
[roles.tool]
kind = "exec"
[roles.agent]
kind = "process"
command = ["sh", "agent.sh"]
env = { WORD = "{{ vars.word }}" }
[tasks.list]
role = "tool"
command = ["printf", "a\\nb\\nc"]
parse = "lines"
[tasks.each]
role = "agent"
for_each = "{{ tasks.list.output }}"
input = { name = "{{ item }}", n = "{{ index }}", fixed = [1, 2] }
heartbeat = "10s"
memory.put = { "each/{{ item }}" = "{{ output.input.n }}" }
[tasks.value]
role = "agent"
input = "{{ tasks.list.output }}"
[tasks.all]
role = "agent"
after = ["list"]
[result]
each = "{{ tasks.each.outputs }}"
value = "{{ tasks.value.output.input }}"
all = "{{ tasks.all.output.input }}"
seen = "{{ memory.seen }}"
c = "{{ memory['each/c'] }}"
"#;

fn desk(flow: &str) -> Desk {
    let desk = Desk::new();
    std::fs::write(desk.path("agent.sh"), AGENT).unwrap();
    desk.flow(flow);
    desk
}

#[test]
fn one_process_performs_all_tasks_of_its_agent_with_typed_inputs_and_outputs() {
    let result = desk(FLOW).run(&["--set", "word=hi"]).completed()["result"].clone();

    let each = result["each"].as_array().unwrap();
    assert_eq!(each.len(), 3);
    assert!(each.iter().all(|output| output["pid"] == each[0]["pid"]), "{result}");
    assert_eq!(each[1]["input"], json!({"name": "b", "n": 1, "fixed": [1, 2]}));
    assert_eq!(each[0]["word"], "hi");
    assert_eq!(result["value"], json!(["a", "b", "c"]));
    assert_eq!(result["all"], json!({"tasks": {"list": {"output": ["a", "b", "c"]}}}));
    assert_eq!((&result["seen"], &result["c"]), (&json!(5), &json!(2)));
}

#[test]
fn wrong_keys_for_a_kind_are_named_and_nothing_starts() {
    let cases = [
        ("[roles.a]\nkind = \"process\"\n[tasks.t]\n", "roles.a: has no `command`"),
        (
            "[roles.a]\nkind = \"exec\"\ncommand = [\"x\"]\n[tasks.t]\nshell = \"true\"\n",
            "roles.a.command: needs kind = \"process\"",
        ),
        (
            "[roles.a]\nkind = \"process\"\ncommand = [\"x\"]\nstdout_max = \"1 MiB\"\n[tasks.t]\n",
            "roles.a.stdout_max: belongs to kind = \"exec\"",
        ),
        (
            "[roles.a]\nkind = \"render\"\nmemory_max = \"1 GiB\"\n[tasks.t]\ntext = \"x\"\n",
            "roles.a.memory_max: needs kind",
        ),
        (
            "[roles.a]\nkind = \"process\"\ncommand = [\"x\"]\ngrace = \"1h\"\n[tasks.t]\n",
            "roles.a.grace: `1h` is longer than 1.5s",
        ),
        (
            "[roles.a]\nkind = \"process\"\ncommand = [\"x\", \"{{ task }}\"]\n[tasks.t]\n",
            "roles.a.command[1]: unknown variable `task`",
        ),
        (
            "[roles.a]\nkind = \"process\"\ncommand = [\"x\"]\n[tasks.t]\nshell = \"true\"\n",
            "tasks.t.shell: is not for a role of kind \"process\"",
        ),
        (
            "[roles.a]\nkind = \"process\"\ncommand = [\"x\"]\n[tasks.t]\nparse = \"json\"\n",
            "tasks.t.parse: is not for a role of kind \"process\"",
        ),
        (
            "[roles.a]\nkind = \"exec\"\n[tasks.t]\nshell = \"true\"\ninput = 1\n",
            "tasks.t.input: needs a role of kind \"process\"",
        ),
        (
            "[roles.a]\nkind = \"exec\"\n[tasks.t]\nshell = \"true\"\nheartbeat = \"1s\"\n",
            "tasks.t.heartbeat: needs a role of kind \"process\"",
        ),
        ("[roles.a]\nkind = \"proces\"\n[tasks.t]\n", "did you mean `process`?"),
        (
            "[roles.a]\nkind = \"exec\"\nmemory_max = \"1 KiB\"\n[tasks.t]\nshell = \"true\"\n",
            "roles.a.memory_max: `1 KiB` is not within 1 MiB",
        ),
    ];
    for (flow, says) in cases {
        desk(flow).run(&["--store", "store"]).refused(2, &[says]);
    }
}

#[test]
fn limits_hold_for_both_kinds() {
    let flow = r#"
[roles.exec]
kind = "exec"
memory_max = "300 MiB"
files_max = 40
[roles.greedy]
kind = "exec"
memory_max = "256 MiB"
cpu_max = "1s"
[tasks.sees]
role = "exec"
shell = "echo $(ulimit -v) $(ulimit -n)"
memory.put = { limits = "{{ output }}" }
[tasks.memory]
role = "greedy"
shell = "exec dd if=/dev/zero of=/dev/null bs=2G count=1"
retry = { attempts = 1 }
[tasks.cpu]
role = "greedy"
shell = "while :; do :; done"
retry = { attempts = 1 }
"#;
    let desk = desk(flow);

    let run = desk.run(&["--events", "events.jsonl", "--store", "store"]);

    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let log = events(&desk.path("events.jsonl"));
    let reason = |task: &str| {
        let opened = log.iter().find(|e| e["kind"] == "incident_opened" && e["task"] == task);
        opened.unwrap()["reason"].clone()
    };
    assert_eq!((reason("memory"), reason("cpu")), (json!("out_of_memory"), json!("cpu_time")));
    let limits = Ended::of(desk.guild().args(["memory", "get", "limits", "--store", "store"]));
    assert_eq!(limits.stdout, "\"307200 40\"\n");
}

#[test]
fn kill_of_guild_leaves_no_agent_behind() {
    let flow = "[roles.agent]\nkind = \"process\"\ncommand = [\"sh\", \"stays.sh\"]\n[tasks.t]\n";
    let desk = desk(flow);
    // It reads its input no further, so that only a signal can end it.
    let stays = "read -r x; echo '{\"type\":\"ready\",\"protocol\":1}'; trap '' TERM\n\
                 echo $$ > pid; while :; do sleep 1000; done";
    std::fs::write(desk.path("stays.sh"), stays).unwrap();
    let mut guild = desk.start(&["--store", "store"]);
    wait_until("the agent works", || desk.read("pid").ends_with('\n'));
    let pid = desk.read("pid").trim().parse::<i32>().unwrap();

    send(&guild, Signal::KILL);
    guild.wait().unwrap();

    wait_until("the agent is gone", || !is_alive(pid));
}

#[test]
fn example_flow_counts_words_with_agents_in_python() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: python3 is not installed, the example in Python is not tested");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut guild = support::guild();
    guild.current_dir(&root).args(["run", "examples/flows/agents.toml", "--format", "json"]);

    let result = Ended::of(&mut guild).completed()["result"].clone();

    let files = result["files"].as_array().unwrap();
    assert!(!files.is_empty());
    let sum: u64 = files.iter().map(|file| file["words"].as_u64().unwrap()).sum();
    assert_eq!(result["words"], sum);
    let path = root.join(files[0]["file"].as_str().unwrap());
    let words = std::fs::read_to_string(path).unwrap().split_whitespace().count();
    assert_eq!(files[0]["words"], words);
}

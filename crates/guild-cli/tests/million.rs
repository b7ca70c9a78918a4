//! A map of very many tasks, in reasonable time and memory.

mod support;

use support::Desk;

const TASKS: u64 = 1_000_000;

#[test]
fn map_of_a_million_tasks_runs_and_adds_up() {
    let desk = Desk::new();
    desk.flow(&format!(
        r#"
        [roles.text]
        kind = "render"
        agents = 1000
        [tasks.each]
        for_each = "{{{{ range({TASKS}) }}}}"
        text = "{{{{ item }}}}"
        parse = "json"
        memory.add = {{ sum = "{{{{ output }}}}" }}
        [result]
        sum = "{{{{ memory.sum }}}}"
        "#
    ));

    let json = desk.run(&[]).completed();

    assert_eq!(json["tasks"]["completed"], TASKS + 2);
    assert_eq!(json["result"]["sum"], TASKS * (TASKS - 1) / 2);
}

#[test]
fn map_that_turns_out_to_be_over_the_limit_fails_and_starts_nothing() {
    let desk = Desk::new();
    desk.flow(
        r#"
        [roles.text]
        kind = "render"
        [tasks.count]
        text = "2000001"
        parse = "json"
        [tasks.each]
        for_each = "{{ range(tasks.count.output) }}"
        text = "x"
        "#,
    );

    let run = desk.run(&[]);

    run.refused(1, &["tasks.each.for_each", "2000001 items", "at most 2000000 tasks"]);
    assert_eq!(run.json()["tasks"]["total"], 2);
}

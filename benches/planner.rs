//! What planning a task costs: ready, assign, hand in, complete; no actors, no memory.
//!
//! `cargo bench --bench planner`

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use guild_core::draw::Seed;
use guild_core::graph::{Bindings, Catalog, Graph, GraphBuilder, Task};
use guild_core::id::{AgentId, BootEpoch, CommitVersion, Incarnation, RoleId, RunId};
use guild_core::limits::Limits;
use guild_core::planner::{
    AttemptResult, Command, Decisions, Input, Planner, PlannerConfig, ReadyOrder,
};
use guild_core::time::Timestamp;

const RUN: RunId = RunId(0);

fn fan(tasks: u32) -> (Arc<Graph>, Bindings) {
    let catalog = Catalog {
        roles: vec![("noop".into(), RoleId(0))],
        quotas: Vec::new(),
        limits: Limits::default(),
    };
    let mut graph = GraphBuilder::for_catalog("fan", catalog.clone());
    for number in 0..tasks {
        graph.add(Task::numbered(number, "noop"));
    }
    let graph = graph.build().unwrap();
    let bindings = graph.bind(&catalog).unwrap();
    (Arc::new(graph), bindings)
}

fn with_agents(agents: u32) -> Planner {
    let mut planner = Planner::new(PlannerConfig {
        order: ReadyOrder::default(),
        commits_at_once: false,
        agents: vec![agents],
        quotas: Vec::new(),
        limits: Limits::default(),
        seed: Seed(0),
        epoch: BootEpoch(1),
        validate: false,
    });
    let mut out = Decisions::default();
    for index in 0..agents {
        let agent = AgentId { role: RoleId(0), index };
        let incarnation = Incarnation::first(BootEpoch(1));
        planner.step(Timestamp(0), Input::AgentReady { agent, incarnation }, &mut out);
    }
    planner
}

fn run_to_the_end(planner: &mut Planner, graph: Arc<Graph>, bindings: Bindings) {
    let mut out = Decisions::default();
    let mut now = Timestamp(0);
    planner.step(now, Input::Submit { run: RUN, graph, bindings }, &mut out);
    let mut commands = Vec::new();
    while !out.commands.is_empty() {
        out.events.clear();
        std::mem::swap(&mut commands, &mut out.commands);
        now = Timestamp(now.0 + 1);
        for command in commands.drain(..) {
            let input = match command {
                Command::Assign { task, agent, incarnation, token, .. } => {
                    let result = AttemptResult::Done;
                    Input::Finished { agent, incarnation, task, token, result }
                }
                Command::Commit { task, token, .. } => {
                    Input::Committed { task, token, version: CommitVersion(1), spawned: None }
                }
                Command::Revoke { .. }
                | Command::Discard { .. }
                | Command::Forgive { .. }
                | Command::EndRun { .. } => continue,
            };
            planner.step(now, input, &mut out);
        }
    }
    assert!(planner.is_ended(RUN));
}

fn planning(criterion: &mut Criterion) {
    let measures = std::env::args().any(|argument| argument == "--bench");
    let cases: &[(u32, u32)] = if measures {
        &[(100_000, 10), (100_000, 1_000), (100_000, 100_000), (1_000_000, 1_000)]
    } else {
        &[(100, 10)]
    };
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10);
    for (tasks, agents) in cases.iter().copied() {
        let (graph, bindings) = fan(tasks);
        group.throughput(Throughput::Elements(u64::from(tasks)));
        group.bench_function(format!("{tasks} tasks, {agents} agents"), |bencher| {
            bencher.iter_batched_ref(
                || with_agents(agents),
                |planner| run_to_the_end(planner, Arc::clone(&graph), bindings.clone()),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, planning);
criterion_main!(benches);

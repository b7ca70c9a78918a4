//! What a task costs from submission to its end, beside the bare actix loop that does nothing else.
//!
//! `cargo bench --bench end_to_end`. Without `--bench` (in `cargo test`) everything runs once, small.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use criterion::{Criterion, criterion_group, criterion_main};
use guild::{Agent, Drain, Guild, Storage, Task, TaskContext, TaskError};

struct Noop;

impl Agent for Noop {
    type Input = ();
    type Output = ();

    async fn perform(&mut self, (): (), _: &mut TaskContext) -> Result<(), TaskError> {
        Ok(())
    }
}

/// Sizes for a measurement, or for a look whether everything works.
#[derive(Clone, Copy)]
struct Sizes {
    tasks: u32,
    durable: u32,
    agents: &'static [u32],
}

fn sizes() -> Sizes {
    if std::env::args().any(|argument| argument == "--bench") {
        Sizes { tasks: 200_000, durable: 50_000, agents: &[10, 100, 1_000, 10_000, 100_000] }
    } else {
        Sizes { tasks: 100, durable: 100, agents: &[10] }
    }
}

/// A running guild, and how many runs it has had.
struct Bench {
    guild: Guild,
    runs: u32,
}

impl Bench {
    fn start(agents: u32, threads: usize, storage: Storage) -> Self {
        let guild = Guild::builder()
            .role("noop", agents, || Noop)
            .agent_threads(threads)
            .store(storage)
            .start()
            .unwrap();
        Self { guild, runs: 0 }
    }

    /// Runs this many tasks; returns the time from the submission to the report.
    fn run(&mut self, tasks: u32) -> Duration {
        self.runs += 1;
        let mut graph = self.guild.graph(format!("run-{}", self.runs));
        for number in 0..tasks {
            graph.add(Task::numbered(number, "noop"));
        }
        let graph = graph.build().unwrap();
        let start = Instant::now();
        let report = guild::block_on(async {
            self.guild.submit(graph).await.unwrap().wait().await.unwrap()
        });
        let elapsed = start.elapsed();
        assert_eq!(report.tally().completed, tasks);
        elapsed
    }

    fn stop(self) {
        guild::block_on(self.guild.shutdown(Drain::Now)).unwrap();
    }
}

/// The denominator: a controller and its agents that pass bare messages, one arbiter, no plan, no
/// lease, no memory, no log.
mod bare {
    use super::{Actor, Addr, AsyncContext, Context, Duration, Handler, Instant, Message};

    struct Work(Addr<Controller>, usize);
    struct Done(usize);
    struct Worker;
    struct Controller {
        workers: Vec<Addr<Worker>>,
        left_to_send: u32,
        left_to_finish: u32,
        finished: Option<tokio::sync::oneshot::Sender<()>>,
    }

    impl Message for Work {
        type Result = ();
    }
    impl Message for Done {
        type Result = ();
    }
    impl Actor for Worker {
        type Context = Context<Self>;
    }
    impl Actor for Controller {
        type Context = Context<Self>;

        fn started(&mut self, context: &mut Context<Self>) {
            context.set_mailbox_capacity(0);
            for worker in 0..self.workers.len() {
                self.send(worker, context.address());
            }
        }
    }
    impl Controller {
        fn send(&mut self, worker: usize, own: Addr<Self>) {
            if self.left_to_send > 0 {
                self.left_to_send -= 1;
                self.workers[worker].try_send(Work(own, worker)).unwrap();
            }
        }
    }
    impl Handler<Work> for Worker {
        type Result = ();

        fn handle(&mut self, Work(controller, own): Work, _: &mut Context<Self>) {
            controller.try_send(Done(own)).unwrap();
        }
    }
    impl Handler<Done> for Controller {
        type Result = ();

        fn handle(&mut self, Done(worker): Done, context: &mut Context<Self>) {
            self.left_to_finish -= 1;
            if self.left_to_finish == 0 {
                self.finished.take().unwrap().send(()).unwrap();
            }
            self.send(worker, context.address());
        }
    }

    pub(super) fn run(agents: u32, tasks: u32) -> Duration {
        actix::System::new().block_on(async move {
            let workers = (0..agents).map(|_| Worker.start()).collect();
            let (finished, done) = tokio::sync::oneshot::channel();
            let start = Instant::now();
            Controller {
                workers,
                left_to_send: tasks,
                left_to_finish: tasks,
                finished: Some(finished),
            }
            .start();
            done.await.unwrap();
            start.elapsed()
        })
    }
}

fn per_task(elapsed: Duration, tasks: u32) -> f64 {
    elapsed.as_nanos() as f64 / f64::from(tasks)
}

fn median(mut measured: Vec<f64>) -> f64 {
    measured.sort_by(f64::total_cmp);
    measured[measured.len() / 2]
}

fn orchestration(criterion: &mut Criterion) {
    let Sizes { tasks, agents, .. } = sizes();
    println!(
        "\n| agents | ns per task | bare actix loop | ratio | messages per task |\n|---|---|---|---|---|"
    );
    for agents in agents.iter().copied() {
        let mut bench = Bench::start(agents, 0, Storage::Ram);
        // Memory that was never touched costs more than the work in it.
        bench.run(tasks);
        let before = bench.guild.stats().messages;
        let pairs: Vec<(f64, f64)> = (0..5)
            .map(|_| (per_task(bench.run(tasks), tasks), per_task(bare::run(agents, tasks), tasks)))
            .collect();
        let messages = (bench.guild.stats().messages - before) as f64 / (5.0 * f64::from(tasks));
        let own = median(pairs.iter().map(|pair| pair.0).collect());
        let bare = median(pairs.iter().map(|pair| pair.1).collect());
        let ratio = median(pairs.iter().map(|pair| pair.0 / pair.1).collect());
        println!("| {agents} | {own:.0} | {bare:.0} | {ratio:.1} | {messages:.1} |");
        bench.stop();
    }
    let mut group = criterion.benchmark_group("no-op tasks in RAM");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.throughput(criterion::Throughput::Elements(1));
    for threads in [0, 1] {
        let mut bench = Bench::start(agents[agents.len() / 2], threads, Storage::Ram);
        group.bench_function(
            format!("{} agents, {threads} agent threads", agents[agents.len() / 2]),
            |b| {
                b.iter_custom(|rounds| {
                    let elapsed: Duration = (0..rounds.min(3)).map(|_| bench.run(tasks / 10)).sum();
                    elapsed
                        .div_f64(rounds.min(3) as f64 * f64::from(tasks / 10))
                        .mul_f64(rounds as f64)
                });
            },
        );
        bench.stop();
    }
    group.finish();
}

fn durable(_: &mut Criterion) {
    let Sizes { durable: tasks, .. } = sizes();
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/target");
    let folder = tempfile::tempdir_in(target).unwrap();
    let mut bench = Bench::start(1_000, 1, Storage::Directory(folder.path().join("store")));
    bench.run(tasks / 10);
    let measured = (0..3).map(|_| 1e9 / per_task(bench.run(tasks), tasks)).collect();
    bench.stop();

    let mut file = File::create(folder.path().join("bare")).unwrap();
    file.write_all(&[0; 4_096]).unwrap();
    file.sync_all().unwrap();
    let rounds = tasks.min(2_000);
    let start = Instant::now();
    for _ in 0..rounds {
        file.write_all_at(&[1; 100], 0).unwrap();
        file.sync_data().unwrap();
    }
    let bare = f64::from(rounds) / start.elapsed().as_secs_f64();
    println!(
        "\ndurable completions a second (level Disk, 1,000 agents): {:.0}; bare write + fdatasync, one by one: {bare:.0}",
        median(measured)
    );
}

criterion_group!(benches, orchestration, durable);
criterion_main!(benches);

//! What supervision costs and how fast it is: from a crash to the next life and to the task elsewhere,
//! restarts a second, the guard, an idle agent, and healthy roles beside a storm.
//!
//! `cargo bench --bench supervision`. Without `--bench` (in `cargo test`) everything runs once, small.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod cpu;
mod status;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Poller, Poll};
use std::time::{Duration, Instant};

use actix::dev::ContextFut;
use actix::{Actor, Context, Handler, Message};
use criterion::{Criterion, criterion_group, criterion_main};
use guild::{
    Agent, Drain, Event, Guild, Limits, RestartPolicy, RetryPolicy, Task, TaskContext, TaskError,
};

/// Panics in as many first attempts as its input says.
struct Crashes;

impl Agent for Crashes {
    type Input = u32;
    type Output = ();

    async fn perform(&mut self, times: u32, task: &mut TaskContext) -> Result<(), TaskError> {
        assert!(task.attempt() > times, "it goes wrong as often as it is told");
        Ok(())
    }
}

/// Crashes until it is told that the storm is over.
struct Stormy(Arc<AtomicBool>);

impl Agent for Stormy {
    type Input = ();
    type Output = ();

    async fn perform(&mut self, (): (), _: &mut TaskContext) -> Result<(), TaskError> {
        assert!(self.0.load(Ordering::Relaxed), "the storm goes on");
        Ok(())
    }
}

struct Healthy;

impl Agent for Healthy {
    type Input = ();
    type Output = ();

    async fn perform(&mut self, (): (), _: &mut TaskContext) -> Result<(), TaskError> {
        Ok(())
    }
}

/// Sizes for a measurement, or for a look whether everything works.
struct Sizes {
    crashes: u32,
    tasks: u32,
    agents: u32,
    messages: u32,
    /// How long a storm is watched alone.
    storm: Duration,
}

fn sizes() -> Sizes {
    if std::env::args().any(|argument| argument == "--bench") {
        let storm = Duration::from_secs(3);
        Sizes { crashes: 20_000, tasks: 200_000, agents: 100_000, messages: 5_000_000, storm }
    } else {
        let storm = Duration::from_millis(20);
        Sizes { crashes: 20, tasks: 50, agents: 10, messages: 100, storm }
    }
}

fn tireless() -> RestartPolicy {
    RestartPolicy { intensity: u32::MAX, ..RestartPolicy::default() }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.kills_max = u32::MAX;
    limits.events_in_memory_max = 8 << 20;
    limits
}

fn percentiles(mut measured: Vec<u64>) -> String {
    measured.sort_unstable();
    let at = |share: usize| measured.get((measured.len().max(1) - 1) * share / 100).copied();
    format!("p50 {} us, p99 {} us", at(50).unwrap_or(0), at(99).unwrap_or(0))
}

/// One crash at a time on the control thread, so that nothing but the crash is waited for; then as
/// many as there can be.
fn crashes(_: &mut Criterion) {
    let crashes = sizes().crashes;
    let guild = Guild::builder()
        .role("crashes", 100, || Crashes)
        .agent_threads(0)
        .restart(tireless())
        .limits(limits())
        .start()
        .unwrap();
    let (mut to_life, mut to_other) = (Vec::new(), Vec::new());
    let sustained = guild::block_on(async {
        for number in 0..crashes / 10 {
            let mut graph = guild.graph(format!("crash-{number}"));
            graph.add(Task::new("only", "crashes").input(&1).retry(RetryPolicy::immediately(2)));
            guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        }
        let (mut crashed, mut failed) = (None, None);
        for record in guild.events(1).available().unwrap() {
            match record.event {
                Event::AgentCrashed { .. } => crashed = Some(record.at),
                Event::TaskFailed { .. } => failed = Some(record.at),
                Event::AgentRestarted { .. } => {
                    to_life.extend(crashed.take().map(|at| record.at.0 - at.0));
                }
                Event::TaskAssigned { .. } => {
                    to_other.extend(failed.take().map(|at| record.at.0 - at.0));
                }
                _ => {}
            }
        }
        let before = guild.stats().restarts;
        let mut graph = guild.graph("storm");
        for number in 0..crashes / 10 {
            let task = Task::numbered(number, "crashes").input(&10);
            graph.add(task.retry(RetryPolicy::immediately(11)));
        }
        let graph = graph.build().unwrap();
        let start = Instant::now();
        guild.submit(graph).await.unwrap().wait().await.unwrap();
        let sustained = (guild.stats().restarts - before) as f64 / start.elapsed().as_secs_f64();
        guild.shutdown(Drain::Now).await.unwrap();
        sustained
    });
    println!("\nfrom a crash to the next life: {}", percentiles(to_life));
    println!("from a crash to the task running elsewhere: {}", percentiles(to_other));
    println!("restarts a second, sustained, each with its incident: {sustained:.0}");
}

/// What a guild did in a while, and the processor time that it took for that.
#[derive(Clone, Copy)]
struct Seen {
    tasks: f64,
    crashes: f64,
    seconds: f64,
    cpu: f64,
}

impl Seen {
    /// Returns what happens while `work` is under way, in which so many healthy tasks are done.
    async fn during(guild: &Guild, tasks: u32, work: impl Future<Output = ()>) -> Self {
        let (crashes, cpu, start) = (guild.stats().crashes, cpu::taken(), Instant::now());
        work.await;
        Self {
            tasks: f64::from(tasks),
            crashes: (guild.stats().crashes - crashes) as f64,
            seconds: start.elapsed().as_secs_f64(),
            cpu: (cpu::taken() - cpu).as_secs_f64(),
        }
    }

    fn tasks_per_s(self) -> f64 {
        self.tasks / self.seconds
    }
}

/// A role that works beside one whose agents crash as fast as they can: no backoff, no quarantine, and
/// the task that kills them is tried again at once.
fn isolation(_: &mut Criterion) {
    let Sizes { tasks, storm, .. } = sizes();
    let calm = Arc::new(AtomicBool::new(false));
    let stormy = Arc::clone(&calm);
    let mut limits = limits();
    limits.events_in_memory_max = 1 << 16;
    let guild = Guild::builder()
        .role("healthy", 100, || Healthy)
        .role("stormy", 10, move || Stormy(Arc::clone(&stormy)))
        .bulkhead("stormy", 1)
        .agent_threads(1)
        .restart(tireless())
        .limits(limits)
        .start()
        .unwrap();
    let healthy = async |name: &str| {
        let mut graph = guild.graph(name);
        for number in 0..tasks {
            graph.add(Task::numbered(number, "healthy"));
        }
        let run = guild.submit(graph.build().unwrap()).await.unwrap();
        let work = async { drop(run.wait().await.unwrap()) };
        Seen::during(&guild, tasks, work).await
    };
    guild::block_on(async {
        healthy("warm up").await;
        let alone = healthy("alone").await;
        let mut graph = guild.graph("storm");
        for number in 0..10 {
            let retry = RetryPolicy { attempts_max: u32::MAX, ..RetryPolicy::immediately(1) };
            graph.add(Task::numbered(number, "stormy").retry(retry));
        }
        let run = guild.submit(graph.build().unwrap()).await.unwrap();
        let storm = Seen::during(&guild, 0, until(storm)).await;
        let beside = healthy("beside").await;
        calm.store(true, Ordering::Relaxed);
        run.wait().await.unwrap();
        guild.shutdown(Drain::Now).await.unwrap();
        tell_isolation(alone, storm, beside);
    });
}

/// Waits without a runtime: the storm needs none of this thread's time.
async fn until(lasts: Duration) {
    std::thread::sleep(lasts);
}

/// Takes what the storm burns off the processor time, as it burns alone, and compares what is left for
/// each healthy task.
fn tell_isolation(alone: Seen, storm: Seen, beside: Seen) {
    let of_crash = storm.cpu / storm.crashes.max(1.0);
    let of_task = |seen: Seen| (seen.cpu - seen.crashes * of_crash) / seen.tasks.max(1.0);
    let share = |of: f64, whole: f64| 100.0 * of / whole;
    println!(
        "\na storm alone: {:.0} crashes a second, {:.1} us of processor time each",
        storm.crashes / storm.seconds,
        of_crash * 1e6
    );
    println!(
        "healthy tasks a second: alone {:.0}, beside {:.0} crashes a second {:.0} ({:.1} %); the storm \
         burns {:.1} % of the processor time",
        alone.tasks_per_s(),
        beside.crashes / beside.seconds,
        beside.tasks_per_s(),
        share(beside.tasks_per_s(), alone.tasks_per_s()),
        share(beside.crashes * of_crash, beside.cpu),
    );
    println!(
        "healthy tasks per second of the processor time that the storm leaves: {:.1} % of what they are \
         alone",
        share(of_task(alone), of_task(beside))
    );
}

struct Bare(u32);
struct Ping;

impl Message for Ping {
    type Result = ();
}

impl Actor for Bare {
    type Context = Context<Self>;
}

impl Handler<Ping> for Bare {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Context<Self>) {
        self.0 = self.0.wrapping_add(1);
    }
}

/// Polls an actor as the guard does: under a catch.
struct Caught(ContextFut<Bare, Context<Bare>>);

impl Future for Caught {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<()> {
        catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.0).poll(cx))).unwrap()
    }
}

/// Bare messages to actors, one poll each, with and without a catch around every poll.
fn guard(_: &mut Criterion) {
    let messages = sizes().messages;
    let measure = |guarded: bool| {
        actix_rt::System::new().block_on(async {
            let spawn = |_| {
                let cell = Context::new().into_future(Bare(0));
                let address = cell.address();
                match guarded {
                    true => actix_rt::spawn(Caught(cell)),
                    false => actix_rt::spawn(cell),
                };
                address
            };
            let actors: Vec<_> = (0..100).map(spawn).collect();
            let start = Instant::now();
            for _ in 0..messages / 100 {
                actors.iter().for_each(|actor| actor.try_send(Ping).unwrap());
                tokio::task::yield_now().await;
            }
            start.elapsed().as_nanos() as f64 / f64::from(messages)
        })
    };
    measure(false);
    let mut pairs: Vec<(f64, f64)> = (0..5).map(|_| (measure(false), measure(true))).collect();
    pairs.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let (without, with) = pairs[2];
    println!("\na poll of an actor without the catch: {without:.1} ns, with it: {with:.1} ns");
}

fn idle_agents(_: &mut Criterion) {
    let agents = sizes().agents;
    let before = status::kib("VmRSS");
    let start = Instant::now();
    let guild = Guild::builder().role("idle", agents, || Healthy).agent_threads(1).start().unwrap();
    let mut events = guild.events(1);
    guild::block_on(async {
        for _ in 0..agents {
            events.next().await.unwrap().unwrap();
        }
    });
    let started = f64::from(agents) / start.elapsed().as_secs_f64();
    let bytes = status::kib("VmRSS").saturating_sub(before) * 1_024 / u64::from(agents);
    println!("\nidle agents: {started:.0} started a second, {bytes} bytes of resident memory each");
    let start = Instant::now();
    guild::block_on(guild.shutdown(Drain::Now)).unwrap();
    println!("all of them stopped in {:.0?}", start.elapsed());
}

criterion_group!(benches, idle_agents, crashes, isolation, guard);
criterion_main!(benches);

//! What supervision costs and how fast it is: from a crash to the next life and to the task elsewhere,
//! restarts a second, the guard, an idle agent, and healthy roles beside a storm.
//!
//! `cargo bench --bench supervision`. Without `--bench` (in `cargo test`) everything runs once, small.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod caught;
mod cpu;
mod status;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use guild::{
    Agent, Drain, Guild, Limits, RestartPolicy, RetryPolicy, Task, TaskContext, TaskError,
};

/// Reads the clock when an agent panics, when its next life begins, and when its task begins again on
/// another one. The log cannot tell: all that happens in one turn of an actor has one time.
#[derive(Default)]
struct Stopwatch(Mutex<Times>);

#[derive(Default)]
struct Times {
    /// When the last panic was, until its next life and its next attempt have begun.
    life_from: Option<Instant>,
    attempt_from: Option<Instant>,
    to_life: Vec<u64>,
    to_attempt: Vec<u64>,
}

impl Stopwatch {
    fn with<R>(&self, note: impl FnOnce(&mut Times) -> R) -> R {
        note(&mut self.0.lock().unwrap())
    }

    fn panics(&self) {
        self.with(|times| {
            let now = Some(Instant::now());
            (times.life_from, times.attempt_from) = (now, now);
        });
    }

    fn lives(&self) {
        self.with(|times| {
            let took = times.life_from.take().map(|from| from.elapsed().as_nanos() as u64);
            times.to_life.extend(took);
        });
    }

    fn performs(&self) {
        self.with(|times| {
            let took = times.attempt_from.take().map(|from| from.elapsed().as_nanos() as u64);
            times.to_attempt.extend(took);
        });
    }
}

/// Panics in as many first attempts as its input says; with a stopwatch, measures what follows.
struct Crashes(Option<Arc<Stopwatch>>);

impl Agent for Crashes {
    type Input = u32;
    type Output = ();

    async fn perform(&mut self, times: u32, task: &mut TaskContext) -> Result<(), TaskError> {
        let goes_wrong = task.attempt() <= times;
        match &self.0 {
            Some(watch) if goes_wrong => watch.panics(),
            Some(watch) => watch.performs(),
            None => {}
        }
        assert!(!goes_wrong, "it goes wrong as often as it is told");
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
    limits
}

/// Tells percentiles of nanoseconds.
fn percentiles(mut measured: Vec<u64>) -> String {
    measured.sort_unstable();
    let last = measured.len() - 1;
    let at = |percent: usize| measured[last * percent / 100] as f64 / 1e3;
    format!("p50 {:.1} us, p99 {:.1} us, of {} crashes", at(50), at(99), measured.len())
}

/// A guild on one thread whose agents are restarted at once, however often they crash.
fn crashing(watch: Option<Arc<Stopwatch>>) -> Guild {
    let make = move || {
        if let Some(watch) = &watch {
            watch.lives();
        }
        Crashes(watch.clone())
    };
    Guild::builder()
        .role("crashes", 100, make)
        .agent_threads(0)
        .restart(tireless())
        .limits(limits())
        .start()
        .unwrap()
}

/// Measures panics that are caught where they begin and told to nobody: what no runtime goes below.
fn bare_panics(count: u32) -> Vec<u64> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let panics = |_| {
        let start = Instant::now();
        drop(std::panic::catch_unwind(|| -> u32 { panic!("it goes wrong as it is told") }));
        start.elapsed().as_nanos() as u64
    };
    let measured = (0..count).map(panics).collect();
    std::panic::set_hook(hook);
    measured
}

/// One crash at a time, so that nothing but the crash is waited for: each task waits for the one before,
/// and crashes once.
fn one_by_one(crashes: u32) {
    let watch = Arc::new(Stopwatch::default());
    let guild = crashing(Some(Arc::clone(&watch)));
    guild::block_on(async {
        let mut graph = guild.graph("one by one");
        let mut before = None;
        for number in 0..crashes {
            let mut task = Task::numbered(number, "crashes").input(&1);
            if let Some(before) = before {
                task = task.after(before);
            }
            before = Some(graph.add(task.retry(RetryPolicy::immediately(2))));
        }
        guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        guild.shutdown(Drain::Now).await.unwrap();
    });
    let times = watch.with(std::mem::take);
    println!("\na panic that is caught at once: {}", percentiles(bare_panics(crashes)));
    println!("from a panic to the next life: {}", percentiles(times.to_life));
    println!("from a panic to the task begun elsewhere: {}", percentiles(times.to_attempt));
}

/// Crashes one by one, then as many as there can be.
fn crashes(_: &mut Criterion) {
    let crashes = sizes().crashes;
    one_by_one(crashes / 10);
    let guild = crashing(None);
    let sustained = guild::block_on(async {
        let mut graph = guild.graph("storm");
        for number in 0..crashes / 10 {
            let task = Task::numbered(number, "crashes").input(&10);
            graph.add(task.retry(RetryPolicy::immediately(11)));
        }
        let graph = graph.build().unwrap();
        let start = Instant::now();
        guild.submit(graph).await.unwrap().wait().await.unwrap();
        let sustained = guild.stats().restarts as f64 / start.elapsed().as_secs_f64();
        guild.shutdown(Drain::Now).await.unwrap();
        sustained
    });
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

fn nobody_cares() {}

/// Bare messages to actors, one poll each, with and without a catch around every poll.
fn guard(_: &mut Criterion) {
    let messages = sizes().messages;
    let measure = |guarded: bool| {
        actix_rt::System::new().block_on(async {
            let spawn = if guarded { caught::caught } else { caught::bare };
            let actors: Vec<_> = (0..100).map(|_| spawn(nobody_cares)).collect();
            let start = Instant::now();
            for _ in 0..messages / 100 {
                actors.iter().for_each(|actor| actor.try_send(caught::Ping).unwrap());
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

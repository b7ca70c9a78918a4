//! Follows a running guild until its run ends or a person interrupts it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use guild::{Drain, EventRecord, Events, Guild, Lagged, Run, RunError, RunReport, ShutdownReport};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit_code::{CommandError, Exit};
use crate::progress::{Bar, PERIOD};
use crate::tail::Tail;

/// Longest time that work under way may take after the first interrupt; the second ends it.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 3600);

/// How the wait ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The run has ended.
    Ended(Arc<RunReport>),
    /// A person wanted it to stop, and work under way is done.
    Interrupted,
    /// The guild failed.
    Failed(String),
}

/// Finds out how many tasks run.
type Census = Pin<Box<dyn Future<Output = usize>>>;
type Shutdown = Pin<Box<dyn Future<Output = Option<ShutdownReport>>>>;

/// Reads events and signals, shows the progress.
pub(crate) struct Follower<'a> {
    guild: &'a Guild,
    run: &'a Run,
    events: Events,
    tail: Tail,
    bar: Bar,
    interrupt: Signal,
    terminate: Signal,
    /// Whether a person has interrupted it once.
    is_interrupted: bool,
    /// Whether the guild is being shut down for that.
    draining: bool,
}

impl<'a> Follower<'a> {
    pub(crate) fn new(guild: &'a Guild, run: &'a Run, tail: Tail) -> io::Result<Self> {
        Ok(Self {
            guild,
            run,
            events: guild.events(1),
            tail,
            bar: Bar::new(),
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            is_interrupted: false,
            draining: false,
        })
    }

    /// Waits for the end of the run. The first interrupt lets work under way finish; the second
    /// ends the process at once, and the reaper what it started.
    pub(crate) async fn until_end(&mut self, hint: &str) -> Result<End, CommandError> {
        let run = self.run.clone();
        let mut end = Box::pin(async move { run.wait().await });
        let mut census: Census = Box::pin(std::future::pending());
        let mut shutdown: Shutdown = Box::pin(std::future::pending());
        let mut tick = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                report = &mut end => return Ok(self.ended(report)),
                // The run ends as shut down, which the first branch sees.
                _ = &mut shutdown => shutdown = Box::pin(std::future::pending()),
                Some(event) = self.events.next() => self.take(event)?,
                _ = tick.tick() => self.bar.show(&self.run.progress()),
                // The loop goes on meanwhile: a second interrupt waits for nobody.
                running = &mut census => {
                    census = Box::pin(std::future::pending());
                    shutdown = self.drain(running, hint);
                }
                _ = self.interrupt.recv() => census = self.interrupted()?,
                _ = self.terminate.recv() => census = self.interrupted()?,
            }
        }
    }

    fn ended(&self, report: Result<Arc<RunReport>, RunError>) -> End {
        self.bar.clear();
        match report {
            Ok(report) => End::Ended(report),
            Err(RunError::ShutDown) if self.draining => End::Interrupted,
            Err(error) => End::Failed(error.to_string()),
        }
    }

    /// Asks what is under way, at the first interrupt. The progress of the run does not say so: with a slow
    /// disk it is behind what agents do.
    fn interrupted(&mut self) -> Result<Census, CommandError> {
        if self.is_interrupted {
            self.bar.say("guild: ended at once");
            self.tail.flush()?;
            std::process::exit(Exit::Interrupted.code().into());
        }
        self.is_interrupted = true;
        let guild = self.guild.clone();
        // Nothing runs in a guild that has ended.
        Ok(Box::pin(async move { guild.under_way().await.map_or(0, |now| now.attempts) }))
    }

    /// Lets what is under way finish.
    fn drain(&mut self, running: usize, hint: &str) -> Shutdown {
        self.draining = true;
        self.bar.say(&format!(
            "guild: interrupted; {running} running tasks may finish (a second interrupt ends them), \
             {hint}"
        ));
        let guild = self.guild.clone();
        Box::pin(async move { guild.shutdown(Drain::Until(DRAIN_MAX)).await.ok() })
    }

    /// Takes an event and all others that are there; then readers of the file see them.
    fn take(&mut self, event: Result<EventRecord, Lagged>) -> Result<(), CommandError> {
        let more = match event {
            Ok(record) => {
                self.tail.take(&record, |record| self.guild.event_line(record))?;
                self.events.available()
            }
            Err(lagged) => Err(lagged),
        };
        match more {
            Ok(records) => {
                let line = |record: &EventRecord| self.guild.event_line(record);
                records.iter().try_for_each(|record| self.tail.take(record, line))?;
            }
            Err(Lagged { .. }) => self.tail.has_gap = true,
        }
        self.tail.flush()
    }

    /// Tells whether the guild was shut down by an interrupt.
    pub(crate) fn has_shut_down(&self) -> bool {
        self.draining
    }

    /// Reads the events that are left, to the end of the log.
    pub(crate) async fn finish(mut self) -> Result<Tail, CommandError> {
        while let Some(event) = self.events.next().await {
            self.take(event)?;
        }
        Ok(self.tail)
    }
}

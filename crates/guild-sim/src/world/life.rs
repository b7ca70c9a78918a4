//! Runs one life of the process: a guild on a runtime whose clock is paused.

use std::future::Future;

use actix_rt::{System, SystemRunner};
use guild_core::time::Timestamp;
use guild_runtime::{Guild, Staging, StartError};

use super::builder::{Medium, Resolution, WorldBuilder};
use super::disk::Disk;
use super::log::Log;

/// One life of the process.
pub(super) struct Life {
    pub(super) guild: Guild,
    system: SystemRunner,
    started: tokio::time::Instant,
    offset: Timestamp,
}

impl Life {
    /// Starts a guild at a time of the world, on what the disk holds.
    pub(super) fn begin(
        parts: &WorldBuilder,
        log: &Log,
        disk: Option<&Disk>,
        offset: Timestamp,
    ) -> Result<Self, StartError> {
        let system = System::with_tokio_rt(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime without I/O needs nothing that could fail")
        });
        let staging = Staging {
            store: disk.map(Disk::open),
            stretch: parts.resolution.stretch(),
            sync_time: parts.sync_time(),
            not_before: offset,
            shuffle_ties: parts.perturbation.is_some_and(|drawn| drawn.shuffle_ties),
        };
        let mut builder = Guild::builder()
            .seed(parts.seed)
            .order(parts.order)
            .limits(parts.limits.clone())
            .restart(parts.restart.clone())
            // The log keeps them only where it was asked to; the world judges them always.
            .record_histories(true)
            .validate(parts.validate);
        for role in &parts.roles {
            builder = (role.add)(builder);
        }
        for (role, spec) in &parts.supervised {
            builder = builder.supervise(role, spec.clone());
        }
        for (name, members, spec) in &parts.groups {
            builder = builder.group(name, members, spec.clone());
        }
        if let Some(spec) = &parts.root {
            builder = builder.root(spec.clone());
        }
        for (name, spec) in &parts.quotas {
            builder = builder.quota(name.clone(), spec.clone());
        }
        if let Some(faults) = parts.faults_and_jitter() {
            builder = builder.faults(faults);
        }
        if let Medium::Disk { durability, .. } = parts.medium {
            builder = builder.durability(durability);
        }
        let log = log.clone();
        builder = builder.observe(move |record, names| log.add(record, names));
        let (guild, started) =
            system.block_on(async { (builder.stage(staging), tokio::time::Instant::now()) });
        Ok(Self { guild: guild?, started, offset, system })
    }

    /// Runs a future in the time of the world.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.system.block_on(future)
    }

    /// Returns the virtual time.
    pub(super) fn now(&self, resolution: Resolution) -> Timestamp {
        let _entered = self.system.runtime().tokio_runtime().enter();
        let passed = (tokio::time::Instant::now() - self.started) / resolution.stretch();
        self.offset.after(passed)
    }
}

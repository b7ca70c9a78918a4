//! Guild under virtual time: the production code on one thread with a paused clock, seeded faults,
//! and a verdict by machine.
//!
//! Architecture invariant: nothing of Guild is re-implemented in here. A simulation runs the very
//! actors of `guild-runtime`; the checkers read the event log and nothing else.

pub mod chaos;
pub mod checker;
mod parallel;
pub mod plan;
pub mod population;
pub mod report;
mod simulate;
pub mod workload;
pub mod world;

pub use parallel::{on_all_cores, side_by_side};
pub use simulate::{SimulateError, Simulated, Simulation};
pub use world::{World, WorldBuilder, WorldError};

//! The pure heart of Guild: every decision, and nothing that could make one unrepeatable.
//!
//! Architecture invariant: this crate has no async, no clock, no random source, no I/O, no actix
//! and no sled. Time and random draws are arguments, so every rule is tested without actors and
//! the same input always gives the same decisions.

mod backoff;
pub mod digest;
pub mod draw;
pub mod event;
pub mod graph;
pub mod history;
pub mod id;
pub mod incident;
pub mod letter;
pub mod limits;
pub mod payload;
pub mod planner;
pub mod quota;
pub mod restart;
pub mod retry;
pub mod supervision;
pub mod time;

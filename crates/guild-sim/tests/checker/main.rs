//! The checkers: clean logs of real worlds are clean, and each invariant is seen violated in a log
//! that was doctored.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broken;
mod clean;
mod ends;
mod leases;
mod support;
mod whole;
mod work;

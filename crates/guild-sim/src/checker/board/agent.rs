//! An agent as the log tells of it.

use std::sync::Arc;

/// Numbers agents in the order of their first start.
pub(in crate::checker) type AgentNo = usize;

/// An agent.
#[derive(Debug)]
pub(in crate::checker) struct Agent {
    pub(in crate::checker) name: Arc<str>,
    /// The place of its role among all roles.
    pub(in crate::checker) role: usize,
    pub(in crate::checker) incarnation: u64,
    pub(in crate::checker) is_up: bool,
    /// Whether it may be down, or going down, although the log has not said so.
    pub(in crate::checker) is_doubtful: bool,
    /// Leases that it holds in its present life; results that are being committed count.
    pub(in crate::checker) leases: u32,
}

impl Agent {
    pub(super) fn new(name: Arc<str>, role: usize) -> Self {
        Self { name, role, incarnation: 0, is_up: false, is_doubtful: false, leases: 0 }
    }

    /// Begins a life.
    pub(super) fn begin(&mut self, incarnation: u64) {
        self.incarnation = incarnation;
        self.is_up = true;
        self.is_doubtful = false;
    }

    /// Ends a life.
    pub(super) fn end(&mut self, incarnation: u64) {
        if self.incarnation == incarnation {
            self.is_up = false;
        }
    }

    /// Ends with its process.
    pub(super) fn lose(&mut self) {
        self.is_up = false;
        self.leases = 0;
    }

    /// Returns whether it surely has nothing to do.
    pub(in crate::checker) fn is_idle(&self) -> bool {
        self.is_up && !self.is_doubtful && self.leases == 0
    }
}

//! Names the kinds of event in the log, once for the writer and the reader of lines.

pub(super) const GUILD_STARTED: &str = "guild_started";
pub(super) const PHASE_STARTED: &str = "phase_started";
pub(super) const RUN_SUBMITTED: &str = "run_submitted";
pub(super) const RUN_JOINED: &str = "run_joined";
pub(super) const RUN_CANCELLED: &str = "run_cancelled";
pub(super) const RUN_ENDED: &str = "run_ended";
pub(super) const AGENT_STARTED: &str = "agent_started";
pub(super) const AGENT_CRASHED: &str = "agent_crashed";
pub(super) const AGENT_RESTARTED: &str = "agent_restarted";
pub(super) const AGENT_QUARANTINED: &str = "agent_quarantined";
pub(super) const AGENT_RELEASED: &str = "agent_released";
pub(super) const AGENT_STOPPED: &str = "agent_stopped";
pub(super) const ROLE_LOST: &str = "role_lost";
pub(super) const TASK_ADDED: &str = "task_added";
pub(super) const TASK_READY: &str = "task_ready";
pub(super) const TASK_ASSIGNED: &str = "task_assigned";
pub(super) const TASK_RETURNED: &str = "task_returned";
pub(super) const TASK_COMPLETED: &str = "task_completed";
pub(super) const TASK_FAILED: &str = "task_failed";
pub(super) const TASK_ENDED: &str = "task_ended";
pub(super) const STALE_RESULT: &str = "stale_result";
pub(super) const FAULT_INJECTED: &str = "fault_injected";
pub(super) const INCIDENT_OPENED: &str = "incident_opened";
pub(super) const MEMORY_COMMITTED: &str = "memory_committed";
pub(super) const QUOTA_CHANGED: &str = "quota_changed";

//! Describes what is simulated: tasks, their durations, roles and quotas.

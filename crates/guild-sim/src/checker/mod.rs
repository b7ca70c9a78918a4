//! Checks the promises of Guild from the event log alone.

//! Says which faults strike where and when: a fault plan is a TOML file of pure data.

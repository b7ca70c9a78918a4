//! Reads the roles of a flow file: who performs tasks, and within which bounds.

use std::time::Duration;

use guild::process::Resources;

use crate::flow::file::Reading;
use crate::flow::reader::{Located, Raw, Section};
use crate::flow::template::Template;
use crate::flow::work::command_line;
use crate::flow::{ProcessRole, Role, RoleKind, duration, quantity, supervision};

/// Most bytes of output, or of a line of it, that a role may allow.
const OUTPUT_MAX: usize = 1 << 30;

/// Most bytes of memory that a bound may name.
const MEMORY_MAX: usize = 1 << 50;

/// Longest time that a process may take to end by itself.
const GRACE_MAX: Duration = Duration::from_millis(1_500);

/// Reads all of `[roles]`.
pub(crate) fn read(
    reading: &Reading<'_>,
    section: Option<Section<'_, '_>>,
) -> Vec<(Located<String>, Role)> {
    let Some(section) = section else {
        return Vec::new();
    };
    let read = |(name, raw): (Located<String>, Raw<'_, '_>)| {
        let table = section.as_section(&raw)?;
        let role = role(reading, &name, &table);
        table.finish();
        Some((name, role?))
    };
    section.entries().into_iter().filter_map(read).collect()
}

fn role(reading: &Reading<'_>, name: &Located<String>, table: &Section<'_, '_>) -> Option<Role> {
    let kind = kind(reading, name, table);
    let agents_max = i64::from(reading.limits.agents_per_role_max);
    let agents = table.integer("agents", 1..=agents_max).map_or(1, |agents| agents.value);
    let env = environment(reading, table);
    let cwd = table.text("cwd").and_then(|text| reading.template(&text));
    let duration = duration::duration(table);
    let supervision = supervision::supervision(reading, table);
    let (stdout_max, stderr_max) = (size(table, "stdout_max"), size(table, "stderr_max"));
    let resources = resources(table);
    let process = process(reading, name, table, kind);
    if !(reading.name(name, true) && reading.is_free(name)) {
        return None;
    }
    let kind = kind?;
    match kind {
        RoleKind::Exec => refuse(reading, table, PROCESS_KEYS, "needs kind = \"process\""),
        RoleKind::Process => {
            let why =
                "belongs to kind = \"exec\"; the messages of a process are bounded by line_max";
            refuse(reading, table, &["stdout_max", "stderr_max"], why);
        }
        RoleKind::Render => {
            let why =
                "needs kind = \"exec\" or \"process\": a template is rendered by guild itself";
            refuse(reading, table, PROCESS_KEYS, why);
            refuse(reading, table, RESOURCE_KEYS, why);
        }
    }
    if kind == RoleKind::Process && process.is_none() {
        return None;
    }
    Some(Role {
        name: name.value.clone(),
        kind,
        agents: u32::try_from(agents).unwrap_or(u32::MAX),
        env,
        cwd,
        duration,
        supervision,
        stdout_max: stdout_max.unwrap_or(16 << 20),
        stderr_max: stderr_max.unwrap_or(1 << 20),
        resources,
        process,
    })
}

const PROCESS_KEYS: &[&str] = &["command", "line_max", "handshake", "grace"];
const RESOURCE_KEYS: &[&str] = &["memory_max", "cpu_max", "files_max"];

/// Reports keys that make no sense here.
pub(super) fn refuse(
    reading: &Reading<'_>,
    table: &Section<'_, '_>,
    keys: &[&'static str],
    why: &str,
) {
    for raw in keys.iter().filter_map(|key| table.raw(key)) {
        reading.wrong(&raw, why);
    }
}

fn kind(
    reading: &Reading<'_>,
    name: &Located<String>,
    table: &Section<'_, '_>,
) -> Option<RoleKind> {
    const KINDS: [(&str, RoleKind); 3] =
        [("exec", RoleKind::Exec), ("process", RoleKind::Process), ("render", RoleKind::Render)];
    let Some(kind) = table.text("kind") else {
        if table.raw("kind").is_none() {
            let remedy = "has no `kind`; write kind = \"exec\" (a process for each attempt), \
                          \"process\" (one for each agent) or \"render\" (a template)";
            reading.wrong(name, remedy);
        }
        return None;
    };
    reading.choice(&kind, &KINDS, |word| format!("unknown kind `{word}`")).copied()
}

fn size(table: &Section<'_, '_>, key: &'static str) -> Option<usize> {
    let read = |text: &str| match quantity::bytes(text)? {
        bytes if (1..=OUTPUT_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("`{text}` is not within 1 B to 1 GiB")),
    };
    table.quantity(key, read).map(|bytes| bytes.value)
}

fn resources(table: &Section<'_, '_>) -> Resources {
    let memory = |text: &str| match quantity::bytes(text)? {
        bytes if (1 << 20..=MEMORY_MAX).contains(&bytes) => Ok(bytes as u64),
        _ => Err(format!("`{text}` is not within 1 MiB to 1,048,576 GiB")),
    };
    let files = table.integer("files_max", 4..=1_000_000_000);
    Resources {
        memory_bytes_max: table.quantity("memory_max", memory).map(|bytes| bytes.value),
        cpu_time_max: table.duration_above_zero("cpu_max"),
        open_files_max: files.and_then(|files| u64::try_from(files.value).ok()),
    }
}

fn process(
    reading: &Reading<'_>,
    name: &Located<String>,
    table: &Section<'_, '_>,
    kind: Option<RoleKind>,
) -> Option<ProcessRole> {
    let command = table.raw("command");
    let (line_max, handshake) = (size(table, "line_max"), table.duration_above_zero("handshake"));
    let grace = table.quantity("grace", |text| match quantity::duration(text)? {
        grace if grace <= GRACE_MAX => Ok(grace),
        _ => Err(format!("`{text}` is longer than {GRACE_MAX:?}")),
    });
    if kind? != RoleKind::Process {
        return None;
    }
    let Some(command) = command else {
        let remedy = "has no `command`; a role of kind \"process\" needs the program of its agents";
        reading.wrong(name, remedy);
        return None;
    };
    Some(ProcessRole {
        command: command_line(reading, table, &command)?,
        line_max: line_max.unwrap_or(16 << 20),
        handshake: handshake.unwrap_or(Duration::from_secs(10)),
        grace: grace.map_or(Duration::from_millis(500), |grace| grace.value),
    })
}

/// Reads the `env` of a role or task.
pub(crate) fn environment(
    reading: &Reading<'_>,
    table: &Section<'_, '_>,
) -> Vec<(String, Template)> {
    let fits = |(name, template): (Located<String>, Template)| {
        if name.value.is_empty() || name.value.contains(['=', '\0']) {
            reading.wrong(&name, "is no name of an environment variable");
            return None;
        }
        Some((name.value, template))
    };
    reading.templates(table.section("env")).into_iter().filter_map(fits).collect()
}

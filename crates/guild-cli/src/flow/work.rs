//! Reads what a task does: a command, a script, or a text to render.

use crate::flow::file::Reading;
use crate::flow::reader::{Located, Raw, Section};
use crate::flow::template::is_template;
use crate::flow::{Arg, Input, RoleKind, Work};

/// Reads the work of a task for a role of this kind; none: the role is not known.
pub(crate) fn work(
    reading: &Reading<'_>,
    name: &Located<String>,
    table: &Section<'_, '_>,
    kind: Option<RoleKind>,
) -> Option<Work> {
    let (command, shell) = (table.raw("command"), table.raw("shell"));
    let (args, stdin, text) = (table.raw("args"), table.raw("stdin"), table.raw("text"));
    let input = table.raw("input");
    let refuse = |raw: &Option<Raw<'_, '_>>, why: &str| {
        if let Some(raw) = raw {
            reading.wrong(raw, why);
        }
    };
    let kind = kind?;
    if kind == RoleKind::Process {
        for raw in [&command, &shell, &args, &stdin, &text] {
            refuse(raw, "is not for a role of kind \"process\": its agents get an `input`");
        }
        let input = match input {
            Some(raw) => Some(process_input(reading, table, &raw)?),
            None => None,
        };
        return Some(Work::Process { input });
    }
    refuse(&input, "needs a role of kind \"process\"");
    if kind == RoleKind::Render {
        for raw in [&command, &shell, &args, &stdin] {
            refuse(raw, "needs a role of kind \"exec\"; a role of kind \"render\" only renders");
        }
        let Some(text) = text else {
            reading.wrong(name, "has no `text`; a role of kind \"render\" renders it");
            return None;
        };
        return reading.value(table, &text).map(Work::Render);
    }
    refuse(&text, "needs a role of kind \"render\"; give a `command` or a `shell`");
    if shell.is_none() {
        refuse(&args, "belongs to `shell`; add them to `command`");
    }
    let stdin = stdin.and_then(|raw| reading.value(table, &raw));
    let command = match (command, shell) {
        (Some(command), None) => command_line(reading, table, &command),
        (None, Some(shell)) => shell_line(reading, table, &shell, args.as_ref()),
        (Some(_), Some(shell)) => {
            reading.wrong(&shell, "stands beside `command`; keep one of them");
            None
        }
        (None, None) => {
            let remedy = "has nothing to do; give it a `command` (a list) or a `shell` (a script)";
            reading.wrong(name, remedy);
            None
        }
    };
    Some(Work::Exec { command: command?, stdin })
}

/// Reads what a process agent gets: one value, or a table whose values may be templates.
fn process_input(
    reading: &Reading<'_>,
    table: &Section<'_, '_>,
    raw: &Raw<'_, '_>,
) -> Option<Input> {
    if !raw.value.is_table() {
        return reading.value(table, raw).map(Input::Value);
    }
    let fields = reading.templates(table.as_section(raw));
    Some(Input::Object(fields.into_iter().map(|(name, value)| (name.value, value)).collect()))
}

/// Reads the program and its arguments.
pub(crate) fn command_line(
    reading: &Reading<'_>,
    table: &Section<'_, '_>,
    raw: &Raw<'_, '_>,
) -> Option<Vec<Arg>> {
    if raw.value.is_str() {
        let remedy =
            "is a list of arguments, [\"wc\", \"-w\"]; for a shell write `shell = \"...\"`";
        reading.wrong(raw, remedy);
        return None;
    }
    let command = arguments(reading, table, raw)?;
    match command.first() {
        None => reading.wrong(raw, "is empty; its first item is the program"),
        Some(Arg { template, .. }) if template.source().trim().is_empty() => {
            let origin = template.origin();
            let message = "is empty, but it is the program; name one";
            reading.problems.add_at(Some(origin.place), &origin.key, message);
        }
        Some(_) => return Some(command),
    }
    None
}

/// A shell script gets values as `$1`, `$2`, ...: what is spliced into its text would be executed.
fn shell_line(
    reading: &Reading<'_>,
    table: &Section<'_, '_>,
    raw: &Raw<'_, '_>,
    args: Option<&Raw<'_, '_>>,
) -> Option<Vec<Arg>> {
    let script = table.as_text(raw)?;
    if is_template(&script.value) {
        let remedy = "is no template, because values spliced into a script would be executed; \
                      write \"$1\" and args = [\"{{ ... }}\"]";
        reading.wrong(&script, remedy);
        return None;
    }
    let literal = |text: &str| {
        let text = Located { value: text.to_owned(), span: raw.span.clone(), key: raw.key.clone() };
        let template = reading.template(&text)?;
        Some(Arg { template, is_path: false })
    };
    let mut command = ["sh", "-c", &script.value, "sh"]
        .iter()
        .map(|text| literal(text))
        .collect::<Option<Vec<_>>>()?;
    if let Some(args) = args {
        command.extend(arguments(reading, table, args)?);
    }
    Some(command)
}

fn arguments(
    reading: &Reading<'_>,
    table: &Section<'_, '_>,
    raw: &Raw<'_, '_>,
) -> Option<Vec<Arg>> {
    let argument = |raw: &Raw<'_, '_>| {
        if raw.value.is_str() || raw.value.is_integer() {
            return Some(Arg { template: reading.value(table, raw)?, is_path: false });
        }
        let path = table.as_section(raw)?;
        let template = path.text("path").and_then(|text| reading.template(&text));
        if path.raw("path").is_none() {
            reading.wrong(raw, "is neither text nor { path = \"...\" }");
        }
        path.finish();
        Some(Arg { template: template?, is_path: true })
    };
    let items = table.as_list(raw)?;
    items.iter().map(argument).collect()
}

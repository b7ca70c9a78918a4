//! Counts the words of a file: an agent that is a process of its own, in Rust.
//!
//! It does what `wordcount.py` does, and shows the protocol of `docs/process-agents.md` without any
//! help: input `{"file": PATH}`, output `{"file": PATH, "words": N}`, and N is added to the memory
//! key `words`. Standard output carries messages only; everything else goes to standard error.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use serde_json::{Value, json};

/// Lines of the file between two heartbeats.
const HEARTBEAT_LINES: usize = 10_000;

fn main() -> anyhow::Result<()> {
    let mut lines = io::stdin().lines();
    let mut messages = std::iter::from_fn(|| lines.next());
    let Some(hello) = messages.next() else {
        return Ok(());
    };
    let hello: Value = serde_json::from_str(&hello?)?;
    say(&json!({"type": "ready", "protocol": 1}))?;
    anyhow::ensure!(hello["protocol"] == 1, "this guild speaks another protocol: {hello}");
    for message in messages {
        let assign: Value = serde_json::from_str(&message?)?;
        // Nothing but a task or its cancellation can come here, and a task is over by then.
        if assign["type"] == "assign" {
            perform(&assign)?;
        }
    }
    Ok(())
}

fn perform(assign: &Value) -> io::Result<()> {
    let token = &assign["token"];
    match count_words(&assign["input"], token) {
        Ok(words) => {
            say(&json!({"type": "add", "token": token, "key": "words", "amount": words}))?;
            let output = json!({"file": assign["input"]["file"], "words": words});
            say(&json!({"type": "result", "token": token, "output": output}))
        }
        Err(error) => {
            let retryable = error.kind() != io::ErrorKind::NotFound;
            let message = error.to_string();
            say(
                &json!({"type": "error", "token": token, "message": message, "retryable": retryable}),
            )
        }
    }
}

fn count_words(input: &Value, token: &Value) -> io::Result<usize> {
    let path = input["file"].as_str().unwrap_or_default();
    let mut words = 0;
    for (number, line) in BufReader::new(File::open(path)?).lines().enumerate() {
        words += line?.split_whitespace().count();
        if number % HEARTBEAT_LINES == 0 {
            say(&json!({"type": "heartbeat", "token": token}))?;
        }
    }
    Ok(words)
}

/// Writes a message as one line, and lets nothing of it wait in a buffer.
fn say(message: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{message}")?;
    out.flush()
}

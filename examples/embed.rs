//! A guild inside an actix-web service: handlers submit graphs, wait for typed results and stream
//! progress as server-sent events, while agents crash underneath.
//!
//! `cargo run --example embed` starts the service on a free port, calls it as a client would, checks
//! the answers and ends. `cargo run --example embed -- serve` keeps it running on port 8080:
//! `curl -N localhost:8080/words -d 'to be or not to be'`, then `curl -N localhost:8080/events`.

#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, get, post, web};
use anyhow::Context;
use futures_util::StreamExt;
use guild::{
    Agent, Drain, Expr, Guild, RandomFaults, RestartPolicy, RetryPolicy, Seed, Task, TaskContext,
    TaskError,
};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Counter;

impl Agent for Counter {
    type Input = String;
    type Output = usize;

    async fn perform(&mut self, line: String, _: &mut TaskContext) -> Result<usize, TaskError> {
        Ok(line.split_whitespace().count())
    }
}

struct Adder;

impl Agent for Adder {
    type Input = Vec<usize>;
    type Output = usize;

    async fn perform(
        &mut self,
        counts: Vec<usize>,
        _: &mut TaskContext,
    ) -> Result<usize, TaskError> {
        Ok(counts.into_iter().sum())
    }
}

#[derive(Serialize)]
struct Answer {
    words: usize,
    tasks: u32,
    crashes_so_far: u64,
}

/// Counts the words of the body, a task per line; answers when the run has ended.
#[post("/words")]
async fn words(guild: web::Data<Guild>, body: String) -> Result<HttpResponse, actix_web::Error> {
    count(&guild, &body)
        .await
        .map(|answer| HttpResponse::Ok().json(answer))
        .map_err(actix_web::error::ErrorUnprocessableEntity)
}

async fn count(guild: &Guild, text: &str) -> anyhow::Result<Answer> {
    // The name of a run is its idempotency key: the same text is counted once.
    let mut graph = guild.graph(format!("words of {:016x}", fingerprint(text)));
    let mut counts = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let task = Task::new(format!("line-{number}"), "counter")
            .input(line)
            .retry(RetryPolicy::immediately(100));
        counts.push(Expr::Output(graph.add(task).into()));
    }
    let total = Task::new("total", "adder").input_expr(Expr::List(counts));
    graph.add(total.retry(RetryPolicy::immediately(100)));
    let report = guild.submit(graph.build()?).await?.wait().await?;
    Ok(Answer {
        words: report.output("total")?,
        tasks: report.tally().completed,
        crashes_so_far: guild.stats().crashes,
    })
}

/// FNV-1a (Fowler, Noll, Vo): enough to tell the texts of an example apart.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Streams the event log as server-sent events, from the first event on.
#[get("/events")]
async fn events(guild: web::Data<Guild>) -> HttpResponse {
    let lines = Arc::clone(&guild);
    let stream = guild.events(1).map(move |record| {
        Ok::<_, actix_web::Error>(web::Bytes::from(match record {
            Ok(record) => format!("id: {}\ndata: {}\n\n", record.seq, lines.event_line(&record)),
            Err(lagged) => format!("event: lagged\ndata: {lagged}\n\n"),
        }))
    });
    HttpResponse::Ok().content_type("text/event-stream").streaming(stream)
}

fn start_guild() -> anyhow::Result<Guild> {
    let faults = RandomFaults::parse("crash=0.2", Seed(7))?;
    let guild = Guild::builder()
        .role("counter", 100, || Counter)
        .role("adder", 2, || Adder)
        .restart(RestartPolicy { intensity: 10_000, ..RestartPolicy::default() })
        .faults(Arc::new(faults))
        .start()?;
    Ok(guild)
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let serve = std::env::args().nth(1).as_deref() == Some("serve");
    let guild = start_guild()?;
    let listener = TcpListener::bind(("127.0.0.1", if serve { 8080 } else { 0 }))?;
    let address = listener.local_addr()?;
    let data = web::Data::new(guild.clone());
    let server =
        HttpServer::new(move || App::new().app_data(data.clone()).service(words).service(events))
            .workers(1)
            .listen(listener)?
            .run();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    if serve {
        println!("http://{address}/words and http://{address}/events");
        running.await??;
    } else {
        check(&address.to_string(), &guild).await?;
        handle.stop(false).await;
    }
    guild.shutdown(Drain::Until(Duration::from_secs(5))).await?;
    Ok(())
}

/// Calls the service as a client would and asserts what it answers.
async fn check(address: &str, guild: &Guild) -> anyhow::Result<()> {
    let text = "to be or not to be\n".repeat(500);
    let request = format!(
        "POST /words HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    let answer = exchange(address, &request, |_| false).await?;
    println!("{}", answer.lines().last().context("an empty answer")?);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"words\":3000,\"tasks\":501,"), "{answer}");
    assert!(guild.stats().crashes > 50, "chaos has struck");

    let request = format!("GET /events HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let streamed = exchange(address, &request, |text| text.contains("run_ended")).await?;
    assert!(streamed.contains("text/event-stream"));
    assert!(streamed.contains("\"kind\":\"agent_crashed\""));
    println!(
        "streamed {} events, the end of the run among them",
        streamed.matches("data: ").count()
    );
    Ok(())
}

async fn exchange(
    address: &str,
    request: &str,
    enough: impl Fn(&str) -> bool,
) -> anyhow::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let (mut answer, mut buffer) = (String::new(), vec![0; 65_536]);
    loop {
        let count = stream.read(&mut buffer).await?;
        answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
        if count == 0 || enough(&answer) {
            return Ok(answer);
        }
    }
}

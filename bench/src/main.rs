//! `lambda-bench`: measures this service beside its peers, and writes down what it found. `make bench` builds, installs and
//! starts what it needs.
//!
//! A measure that fails is in the results by its name, and the exit code says so; a target that is missed is a result.

mod bench;
mod cloud;
mod http;
mod load;
mod machine;
mod measures;
mod mongo;
mod peers;
mod plot;
mod program;
mod report;
mod service;
mod stats;
mod traces;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use bench::{Bench, Found};
use report::Row;

/// Measures this service beside its peers.
#[derive(Debug, Parser)]
#[command(name = "lambda-bench", version)]
struct Options {
    /// Directory of the release programs.
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    /// Directory of the peers' programs.
    #[arg(long)]
    peers: PathBuf,
    /// Directory of the cloud.
    #[arg(long, default_value = "target/cloud")]
    cloud: PathBuf,
    /// Directory for what was found.
    #[arg(long)]
    results: PathBuf,
    /// Connection string of a MongoDB, without a database.
    #[arg(long, env = "MONGODB_URI")]
    mongodb: Option<String>,
    /// Only these measures.
    only: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            done = run(Options::parse()) => done,
            _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
        }
    };
    match done.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lambda-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every measure could be taken.
async fn run(options: Options) -> Result<bool> {
    let known = |name: &String| measures::NAMES.contains(&name.as_str());
    let unknown = options.only.iter().find(|name| !known(name));
    ensure!(unknown.is_none(), "there is no measure {unknown:?}; there are: {}", measures::NAMES.join(", "));
    let root = std::env::current_dir()?;
    let bench = Bench {
        programs: std::path::absolute(options.programs)?,
        peers: std::path::absolute(options.peers)?,
        cloud: std::path::absolute(options.cloud)?,
        mongodb: options.mongodb,
        cloud_up: tokio::sync::OnceCell::new(),
        root,
    };
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut found = Found::default();
    let mut all_taken = true;
    for name in measures::NAMES.into_iter().filter(|name| wanted(name)) {
        let begun = Instant::now();
        eprintln!("== {name}");
        match measures::run(name, &bench).await {
            Ok(more) => {
                for row in &more.rows {
                    eprintln!("   {}", line(row));
                }
                found = found.and(more);
            }
            Err(error) => {
                eprintln!("   FAILED: {error:#}");
                all_taken = false;
                found.rows.push(Row::failed(name, &format!("{error:#}")));
            }
        }
        eprintln!("   {:.0} s", begun.elapsed().as_secs_f64());
        // After each, so that what was measured outlives what breaks later.
        write(&options.results, &found)?;
    }
    eprintln!("written to {}", options.results.display());
    if options.only.is_empty() {
        eprintln!("== traces");
        let results = options.results.clone();
        let drawn = tokio::task::spawn_blocking(move || traces::draw_all(&results)).await?;
        let summaries = drawn.map_err(|error| anyhow::anyhow!("{error}"))?;
        let report = options.results.join("latest.md");
        let text = std::fs::read_to_string(&report)? + &traces::markdown(&summaries);
        std::fs::write(&report, text)?;
    }
    Ok(all_taken)
}

/// A row as it is told while measuring.
fn line(row: &Row) -> String {
    let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), report::short);
    let reached = match row.reached {
        Some(true) => "reached",
        Some(false) => "NOT REACHED",
        None => "",
    };
    let (ours, peer, ratio) = (figure(row.ours), figure(row.peer), figure(row.ratio));
    format!(
        "{}: {ours} {} against {peer} ({}): {ratio} ×, {} {reached}",
        row.measure, row.unit, row.peer_name, row.target
    )
}

/// Writes it all down.
fn write(results: &Path, found: &Found) -> Result<()> {
    let machine = machine::Machine::here();
    std::fs::create_dir_all(results)?;
    let file = |name: &str, text: &str| {
        let path = results.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    file("latest.json", &format!("{}\n", serde_json::to_string_pretty(&found.rows)?))?;
    let raw: serde_json::Map<_, _> = found.raw.iter().cloned().collect();
    file("latest.raw.json", &format!("{}\n", json!({"machine": machine, "rounds": raw})))?;
    file("latest.md", &report::markdown(&machine, &found.rows))?;
    file("ratios.svg", &plot::ratios(&found.rows))?;
    for distribution in &found.distributions {
        let words: Vec<_> = distribution
            .title
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        file(&format!("{}.svg", words.join("-")), &plot::distribution(distribution))?;
    }
    Ok(())
}

//! `broker ctl drain`: a node is emptied, and how far that has come.

use std::time::Duration;

use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::calls::{Call, View};
use super::client::Client;
use super::output::Output;
use super::{Error, Outcome};

/// Time between two looks while `--wait` waits.
const INTERVAL: Duration = Duration::from_secs(1);

/// Flags of `broker ctl drain`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DrainFlags {
    /// Accept clients again.
    #[arg(long, conflicts_with_all = ["rate", "wait"])]
    stop: bool,

    /// In a cluster: disconnect so many clients a second on each core, 1 to 100000; 100 by default.
    #[arg(long, value_name = "CLIENTS")]
    rate: Option<u32>,

    /// In a cluster: return when the node is empty.
    #[arg(long)]
    wait: bool,

    /// The command.
    #[command(subcommand)]
    what: Option<DrainCommand>,
}

/// Commands for a drain.
#[derive(Clone, Debug, Subcommand)]
pub enum DrainCommand {
    /// Show how far the drain has come.
    Status,
}

/// The request of the command.
pub fn call(flags: &DrainFlags) -> Call {
    const PATH: &str = "/api/v1/drain";
    match flags {
        DrainFlags { what: Some(DrainCommand::Status), .. } => Call::get(PATH, View::Fields),
        DrainFlags { stop: true, .. } => {
            Call::new(Method::DELETE, PATH, View::Done("accepting clients"))
        }
        DrainFlags { rate: None, .. } => Call::new(Method::POST, PATH, View::Done("draining")),
        DrainFlags { rate: Some(rate), .. } => {
            Call::new(Method::POST, format!("{PATH}?rate={rate}"), View::Done("draining"))
        }
    }
}

/// Whether the command waits for the end of the drain.
pub fn waits(flags: &DrainFlags) -> bool {
    flags.wait
}

/// Waits until nothing is left on the node.
pub fn wait(client: &Client, output: Output) -> Result<Outcome, Error> {
    let mut shown = Value::Null;
    loop {
        let answer = super::top::get(client, "/api/v1/drain")?;
        let is = |field: &str| answer[field].as_bool() == Some(true);
        if !is("draining") {
            return Err(Error::No("the drain was ended before the node was empty".to_owned()));
        }
        if !is("empties") {
            let why =
                "this broker is no node of a cluster, and keeps its clients: leave out --wait";
            return Err(Error::No(why.to_owned()));
        }
        let left = answer.get("clients").cloned().unwrap_or(Value::Null);
        if is("empty") {
            output.print("empty\n")?;
            return Ok(Outcome::Done);
        }
        let now = serde_json::json!([left, answer["sessions"]]);
        if shown != now && output.is_terminal() {
            output.print(&format!("left: {left} clients, {} sessions\n", answer["sessions"]))?;
        }
        shown = now;
        std::thread::sleep(INTERVAL);
    }
}

/// Flags of `broker ctl rebalance`.
#[derive(Clone, Debug, Args)]
pub struct RebalanceFlags {
    /// Disconnect so many clients a second on each core, 1 to 100000; 100 by default.
    #[arg(long, value_name = "CLIENTS")]
    rate: Option<u32>,

    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// The request of the command.
pub fn rebalance(flags: &RebalanceFlags) -> Call {
    let rate = flags.rate.map(|rate| format!("rate={rate}"));
    let dry_run = flags.dry_run.then(|| "dry_run=true".to_owned());
    let query: Vec<String> = rate.into_iter().chain(dry_run).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let path = format!("/api/v1/rebalance{mark}{}", query.join("&"));
    Call::new(Method::POST, path, View::Fields)
}

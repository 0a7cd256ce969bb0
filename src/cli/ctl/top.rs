//! `broker ctl top`: cores with their rates, and the clients with the most of something.

use std::time::{Duration, Instant};

use axum::http::Method;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::calls::CLIENTS;
use super::client::Client;
use super::flags::TopBy;
use super::output::Output;
use super::{Error, Outcome, json as json_of, refusal, table};

/// Time between the two looks at the cores where `top` prints once.
const ONCE: Duration = Duration::from_secs(1);
/// Moves the cursor to the upper left corner.
const HOME: &str = "\x1b[H";
/// Erases what is right of the cursor, and what is below.
const ERASE_LINE: &str = "\x1b[K";
const ERASE_BELOW: &str = "\x1b[J";

/// What counts since the start, of which rates are shown.
const COUNTERS: [(&str, &str); 4] = [
    ("publishes_received", "MESSAGES IN/S"),
    ("publishes_sent", "MESSAGES OUT/S"),
    ("turns", "TURNS/S"),
    ("work_steps", "STEPS/S"),
];

/// Shows the cores and clients: again and again on a terminal, otherwise once.
pub fn run(
    client: &Client,
    output: Output,
    clients: (TopBy, u16),
    interval_s: u64,
    once: bool,
) -> Result<Outcome, Error> {
    let is_screen = !once && !output.is_json && output.is_terminal();
    let interval = if is_screen { Duration::from_secs(interval_s) } else { ONCE };
    let mut before = (Instant::now(), get(client, "/api/v1/cores")?);
    loop {
        std::thread::sleep(interval);
        let now = (Instant::now(), get(client, "/api/v1/cores")?);
        let top = top(client, clients)?;
        if output.is_json {
            output.print(&format!("{}\n", json!({ "cores": now.1["cores"], "top": top })))?;
            return Ok(Outcome::Done);
        }
        let span_s = (now.0 - before.0).as_secs_f64().max(1e-3);
        let text = text(&before.1, &now.1, span_s, &top, clients.0, output.width());
        if !is_screen {
            output.print(&text)?;
            return Ok(Outcome::Done);
        }
        output.print(&screen(&text))?;
        before = now;
    }
}

pub fn get(client: &Client, path: &str) -> Result<Value, Error> {
    let answer = client.ask(&Method::GET, path, None)?;
    match json_of(&answer).filter(|_| answer.status.is_success()) {
        Some(value) => Ok(value),
        None => Err(refusal(&answer)),
    }
}

fn top(client: &Client, (by, n): (TopBy, u16)) -> Result<Value, Error> {
    get(client, &format!("/api/v1/clients/top?by={}&n={n}", name(by)))
}

fn name(by: TopBy) -> String {
    by.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The text in place of the last one.
fn screen(text: &str) -> String {
    let height = terminal_size::terminal_size().map_or(usize::MAX, |(_, height)| height.0.into());
    let lines = text.lines().take(height.saturating_sub(1));
    let lines: String = lines.map(|line| format!("{line}{ERASE_LINE}\n")).collect();
    format!("{HOME}{lines}{ERASE_BELOW}")
}

fn text(
    before: &Value,
    now: &Value,
    span_s: f64,
    top: &Value,
    by: TopBy,
    width: Option<usize>,
) -> String {
    let list = |value: &Value| value["cores"].as_array().cloned().unwrap_or_default();
    let (before, now) = (list(before), list(now));
    let mut head = vec!["CORE".to_owned(), "CONNECTIONS".to_owned(), "CLIENTS".to_owned()];
    head.extend(COUNTERS.map(|(_, title)| title.to_owned()));
    let rows = now.iter().enumerate().map(|(at, core)| {
        let number = |name: &str| core[name].as_u64().unwrap_or(0);
        let rate = |name: &str| {
            let earlier = before.get(at).and_then(|core| core[name].as_u64()).unwrap_or(0);
            format!("{:.0}", number(name).saturating_sub(earlier) as f64 / span_s)
        };
        if core["responsive"] == false {
            let mut row = vec![at.to_string()];
            row.resize(3 + COUNTERS.len(), String::new());
            return row;
        }
        let gauges =
            ["core", "connections", "clients_connected"].map(|name| number(name).to_string());
        gauges.into_iter().chain(COUNTERS.map(|(name, _)| rate(name))).collect()
    });
    let cores = table::of_rows(head, rows.collect(), width);
    let clients = table::of_list(top, CLIENTS, width);
    format!("{cores}\nclients by {}\n{}", name(by), clients.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_between_two_looks_and_the_worst_client_comes_first() {
        let core = |received: u64| {
            json!({"cores": [{
            "core": 0, "responsive": true, "connections": 7, "clients_connected": 6,
            "publishes_received": received, "publishes_sent": 0, "turns": 1, "work_steps": 1,
        }, {"core": 1, "responsive": false}]})
        };
        let top = json!({"clients": [{"client_id": "slow", "queued": 900}, {"client_id": "b", "queued": 3}]});
        let text = text(&core(100), &core(300), 2.0, &top, TopBy::Queued, Some(100));
        let row: Vec<&str> = text.lines().nth(1).expect("a core").split_whitespace().collect();
        assert_eq!(row, ["0", "7", "6", "100", "0", "0", "0"]);
        assert!(text.contains("clients by queued\n"), "{text}");
        assert!(text.find("slow") < text.find("900") && text.contains("900"), "{text}");
    }

    #[test]
    fn names_of_orders_are_those_of_the_interface() {
        assert_eq!([TopBy::BytesIn, TopBy::Outbox].map(name), ["bytes_in", "outbox"]);
    }
}

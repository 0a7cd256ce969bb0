//! The files for Prometheus and Grafana under deploy/: every metric that they name exists, and promtool accepts the
//! alerts and their tests.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const METRICS: &str = include_str!("../docs/metrics.md");
const RULES: &str = include_str!("../deploy/prometheus/ringmq.rules.yml");
const RULE_TESTS: &str = include_str!("../deploy/prometheus/ringmq.rules.test.yml");
const BOARD: &str = include_str!("../deploy/grafana/ringmq.json");

/// Metrics that docs/metrics.md lists, with the series of histograms. A unit test holds the list against the broker.
fn documented() -> BTreeSet<String> {
    let names = METRICS.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut all = BTreeSet::new();
    for name in names.filter(|name| is_metric(name)) {
        all.insert(name.to_owned());
        if name.ends_with("_seconds") {
            all.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
    }
    all
}

fn is_metric(word: &str) -> bool {
    word.starts_with("ringmq_") || word.starts_with("process_")
}

/// The names of metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| is_metric(word)).map(str::to_owned).collect()
}

fn assert_documented(file: &str, names: &BTreeSet<String>) {
    let documented = documented();
    assert!(documented.len() > 80 && names.len() > 5, "{file}: {}", names.len());
    let unknown: Vec<_> = names.difference(&documented).collect();
    assert!(
        unknown.is_empty(),
        "{file} names metrics that docs/metrics.md does not list: {unknown:?}"
    );
}

/// The expressions of a value and of everything in it.
fn expressions(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" || name == "query" => all.push(text.to_owned()),
                    _ => expressions(value, all),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, all)),
        _ => {}
    }
}

#[test]
fn every_metric_of_the_alerts_exists() {
    assert_documented("ringmq.rules.yml", &named(RULES));
    assert_documented("ringmq.rules.test.yml", &named(RULE_TESTS));
}

#[test]
fn every_metric_of_the_board_exists() {
    let board: Value = serde_json::from_str(BOARD).expect("JSON");
    let mut all = Vec::new();
    expressions(&board, &mut all);
    assert!(all.len() > 30, "{}", all.len());
    assert_documented("ringmq.json", &named(&all.join("\n")));
    let panels = board["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
}

#[test]
fn every_alert_is_tested() {
    let alerts = RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: BTreeSet<_> = alerts.collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        let fires = RULE_TESTS.contains(&format!("alertname: {alert}\n"));
        let is_silent = RULE_TESTS.contains(&format!("alertname: {alert}, exp_alerts: []"));
        assert!(fires && is_silent, "ringmq.rules.test.yml does not test {alert}");
    }
}

#[test]
fn promtool_accepts_the_alerts_and_their_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    for arguments in [
        ["check", "rules", "ringmq.rules.yml"],
        ["test", "rules", "ringmq.rules.test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        let Ok(output) = Command::new("promtool").args(arguments).current_dir(&folder).output()
        else {
            eprintln!("promtool is not installed (Debian: prometheus): skipped");
            return;
        };
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

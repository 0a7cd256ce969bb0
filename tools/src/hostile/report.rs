//! The results of attacks, compared with the limits, as a table or for programs.

use serde::Serialize;

use super::trial::{Latencies, Measured, Times};
use crate::{cli::HostileArgs, report::Table};

/// An attack on a broker.
#[derive(Debug, Serialize)]
pub struct Row {
    attack: &'static str,
    broker: String,
    figures: Option<Figures>,
    /// Violated limits, if they apply to this broker.
    missed: Vec<String>,
}

/// In milliseconds unless stated otherwise.
#[derive(Debug, Serialize)]
struct Figures {
    without: Millis,
    beside: Millis,
    connect_without: Millis,
    connect_beside: Millis,
    disconnects: usize,
    refused: usize,
    lost: u64,
    awaited: u64,
    span_s: f64,
    broker_cpu_s: f64,
    /// How long other processes kept the broker from its core.
    broker_waiting_s: f64,
    generator_late: f64,
    resident_mib: f64,
    death: Option<String>,
    heard: String,
    /// A description of forbidden behaviour of the broker.
    fault: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Millis {
    count: usize,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Millis {
    fn of(times: &Times) -> Self {
        Self {
            count: times.count(),
            p50: times.quantile_ms(0.5),
            p99: times.quantile_ms(0.99),
            max: times.max_ms(),
        }
    }
}

impl Row {
    /// A row with results, compared with the limits.
    pub fn new(attack: &'static str, broker: &str, measured: Measured, args: &HostileArgs) -> Self {
        let of = |latencies: &Latencies| {
            (Millis::of(&latencies.traffic), Millis::of(&latencies.connects))
        };
        let (without, connect_without) = of(&measured.without);
        let (beside, connect_beside) = of(&measured.beside);
        let figures = Figures {
            without,
            beside,
            connect_without,
            connect_beside,
            disconnects: measured.disconnects,
            refused: measured.refused,
            lost: measured.lost,
            awaited: measured.awaited,
            span_s: measured.span.as_secs_f64(),
            broker_cpu_s: measured.used.cpu.as_secs_f64(),
            broker_waiting_s: measured.used.waiting.as_secs_f64(),
            generator_late: measured.late.as_secs_f64() * 1e3,
            resident_mib: measured.resident_bytes as f64 / (1 << 20) as f64,
            death: measured.death,
            heard: measured.heard,
            fault: measured.fault,
        };
        let missed = if broker == "mosquitto" { Vec::new() } else { missed(&figures, args) };
        Self { attack, broker: broker.into(), figures: Some(figures), missed }
    }

    /// A row without a result.
    pub fn without(attack: &'static str, broker: &str) -> Self {
        let missed = match broker {
            "mosquitto" => Vec::new(),
            _ => vec!["no result".into()],
        };
        Self { attack, broker: broker.into(), figures: None, missed }
    }

    /// A description of the violated limits.
    pub fn missed(&self) -> Option<String> {
        (!self.missed.is_empty())
            .then(|| format!("{}: {}: {}", self.attack, self.broker, self.missed.join(", ")))
    }

    /// The figures in a line, printed before the table.
    pub fn line(&self) -> String {
        let cells = self.cells();
        cells[2..].join(" | ")
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.attack.to_string(), self.broker.clone()];
        let Some(figures) = &self.figures else {
            cells.resize(COLUMNS.len(), "—".into());
            return cells;
        };
        let pair = |one: f64, other: f64| format!("{} → {}", ms(one), ms(other));
        let (without, beside) = (figures.without, figures.beside);
        cells.extend([
            pair(without.p50, beside.p50),
            pair(without.p99, beside.p99),
            pair(without.max, beside.max),
            pair(figures.connect_without.max, figures.connect_beside.max),
            figures.disconnects.to_string(),
            figures.refused.to_string(),
            format!("{:.2}", figures.broker_cpu_s),
            format!("{:.0}", figures.resident_mib),
            format!("{:.1}", figures.span_s),
            match figures.death {
                Some(_) => format!("{}; ENDED", figures.heard),
                None => figures.heard.clone(),
            },
            match (self.broker.as_str(), self.missed.is_empty()) {
                ("mosquitto", _) => "—".into(),
                (_, true) => "met".into(),
                (_, false) => self.missed.join(", "),
            },
        ]);
        cells
    }
}

const COLUMNS: [&str; 13] = [
    "attack",
    "broker",
    "P50 ms",
    "P99 ms",
    "max ms",
    "connect max ms",
    "disconnected",
    "refused",
    "CPU s",
    "RSS MiB",
    "span s",
    "attackers received",
    "aim",
];

/// All rows, with a legend.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&COLUMNS);
    rows.iter().for_each(|row| table.push(row.cells()));
    format!(
        "{}\nOf innocent clients: without the attack → during it. Messages at QoS 1 (published … \
         received) and pings; connections (TCP connect … CONNACK).\n",
        table.markdown()
    )
}

/// The violated limits.
fn missed(figures: &Figures, args: &HostileArgs) -> Vec<String> {
    let mut missed = Vec::new();
    if figures.death.is_some() {
        missed.push("the broker exited".into());
    }
    missed.extend(figures.fault.clone());
    for (count, what) in [
        (figures.disconnects as u64, "disconnected"),
        (figures.refused as u64, "connections refused"),
        (figures.lost, "messages lost"),
        (figures.awaited, "messages still pending"),
    ] {
        if count > 0 {
            missed.push(format!("{count} {what}"));
        }
    }
    let max = figures.beside.max;
    if max > args.bounds().max_ms {
        missed.push(format!("max {} ms", ms(max)));
    }
    let ratio = figures.beside.p99 / figures.without.p99.max(f64::MIN_POSITIVE);
    if ratio > args.bounds().p99_ratio {
        missed.push(format!("P99 × {ratio:.1}"));
    }
    missed
}

/// Milliseconds with the significant digits.
fn ms(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        cli::{Cli, Command},
        hostile::trial::tests::measured,
    };

    fn args(words: &[&str]) -> HostileArgs {
        let words = ["ringmq-bench", "hostile"].iter().chain(words);
        match Cli::try_parse_from(words).expect("valid arguments").command {
            Command::Hostile(args) => args,
            _ => unreachable!("the command is hostile"),
        }
    }

    fn judged(measured: Measured, words: &[&str]) -> Option<String> {
        Row::new("attack", "ringmq", measured, &args(words)).missed()
    }

    #[test]
    fn the_limits_are_a_maximum_and_a_factor_of_the_percentile() {
        assert_eq!(judged(measured(&[1; 100]), &[]), None);
        let slow = judged(measured(&[&[1; 998][..], &[25; 2]].concat()), &[]);
        assert_eq!(slow.as_deref(), Some("attack: ringmq: max 25.0 ms"));
        let slow = judged(measured(&[3; 100]), &[]).expect("three times as long");
        assert!(slow.contains("P99 × 3.0"), "{slow}");
        assert_eq!(judged(measured(&[3; 100]), &["--p99-ratio-max", "4"]), None);
    }

    #[test]
    fn disconnections_refusals_and_losses_are_violations_regardless_of_latency() {
        let disconnected = Measured { disconnects: 2, ..measured(&[1; 100]) };
        assert!(judged(disconnected, &["--short"]).expect("a miss").contains("2 disconnected"));
        let refused = Measured { refused: 1, ..measured(&[1; 100]) };
        assert!(judged(refused, &[]).expect("a miss").contains("1 connections refused"));
        let ended = Measured { death: Some("abort".into()), ..measured(&[1; 100]) };
        assert!(judged(ended, &["--short"]).expect("a miss").contains("the broker exited"));
    }

    #[test]
    fn the_short_form_only_relaxes_time_limits() {
        assert_eq!(judged(measured(&[500; 100]), &["--short"]), None);
        assert!(judged(measured(&[5_000; 100]), &["--short"]).is_some());
        assert!(judged(measured(&[500; 100]), &["--short", "--max-ms", "20"]).is_some());
    }

    #[test]
    fn limits_do_not_apply_to_mosquitto() {
        let row = Row::new("attack", "mosquitto", measured(&[900; 100]), &args(&[]));
        assert_eq!(row.missed(), None);
        assert_eq!(row.cells().len(), COLUMNS.len());
        assert_eq!(Row::without("attack", "ringmq").cells().len(), COLUMNS.len());
    }
}

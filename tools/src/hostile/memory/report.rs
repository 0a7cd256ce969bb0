//! The results of memory attacks, compared with the bound.

use serde::Serialize;

use super::{ALLOWED_BYTES, BOUND_BYTES, CONSTANT_BYTES, LOG_BYTES_MAX};
use crate::{hostile::trial::Measured, report::Table};

/// A kind of state and a broker.
#[derive(Debug, Serialize)]
pub struct Row {
    kind: &'static str,
    broker: String,
    figures: Option<Figures>,
    /// Violated limits, if they apply to this broker.
    missed: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Figures {
    before_mib: f64,
    most_mib: f64,
    after_mib: f64,
    /// Of innocent clients.
    max_ms: f64,
    disconnects: usize,
    lost: u64,
    awaited: u64,
    refused: usize,
    log_kib: f64,
    death: Option<String>,
    heard: String,
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Row {
    /// A row with results, compared with the limits.
    pub fn new(kind: &'static str, broker: &str, measured: Measured) -> Self {
        let missed = if broker == "mosquitto" { Vec::new() } else { missed(&measured) };
        let figures = Figures {
            before_mib: mib(measured.resident_before),
            most_mib: mib(measured.resident_bytes),
            after_mib: mib(measured.resident_after),
            max_ms: measured.beside.traffic.max_ms(),
            disconnects: measured.disconnects,
            lost: measured.lost,
            awaited: measured.awaited,
            refused: measured.refused,
            log_kib: measured.log_bytes as f64 / 1024.0,
            death: measured.death,
            heard: measured.heard,
        };
        Self { kind, broker: broker.into(), figures: Some(figures), missed }
    }

    /// A row without a result.
    pub fn without(kind: &'static str, broker: &str) -> Self {
        let missed = match broker {
            "mosquitto" => Vec::new(),
            _ => vec!["no result".into()],
        };
        Self { kind, broker: broker.into(), figures: None, missed }
    }

    /// A description of the violated limits.
    pub fn missed(&self) -> Option<String> {
        (!self.missed.is_empty())
            .then(|| format!("{}: {}: {}", self.kind, self.broker, self.missed.join(", ")))
    }

    /// The figures in a line.
    pub fn line(&self) -> String {
        self.cells()[2..].join(" | ")
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.kind.to_string(), self.broker.clone()];
        let Some(figures) = &self.figures else {
            cells.resize(COLUMNS.len(), "—".into());
            return cells;
        };
        cells.extend([
            format!("{:.0}", figures.before_mib),
            format!("{:.0}", figures.most_mib),
            format!("{:.0}", figures.after_mib),
            format!("{:.0}", figures.max_ms),
            figures.disconnects.to_string(),
            figures.lost.to_string(),
            figures.refused.to_string(),
            format!("{:.0}", figures.log_kib),
            match figures.death {
                Some(_) => format!("{}; ENDED", figures.heard),
                None => figures.heard.clone(),
            },
            match (self.broker.as_str(), self.missed.is_empty()) {
                ("mosquitto", _) => "—".into(),
                (_, true) => "held".into(),
                (_, false) => self.missed.join(", "),
            },
        ]);
        cells
    }
}

const COLUMNS: [&str; 12] = [
    "kind of state",
    "broker",
    "MiB before",
    "MiB peak",
    "MiB after",
    "max ms",
    "disconnected",
    "lost",
    "new clients refused",
    "log KiB",
    "attackers received",
    "bound",
];

/// All rows, with a legend.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&COLUMNS);
    rows.iter().for_each(|row| table.push(row.cells()));
    format!(
        "{}\nResident memory: memory_bytes_max is {:.0} MiB, and {:.0} MiB are allowed: 1.25 times as much \
         and {:.0} MiB.\nInnocent clients are let in already: none is disconnected and no message of theirs \
         is lost. Newcomers may be refused (CONNACK 0x89).\n",
        table.markdown(),
        mib(BOUND_BYTES),
        mib(ALLOWED_BYTES),
        mib(CONSTANT_BYTES)
    )
}

fn missed(measured: &Measured) -> Vec<String> {
    let mut missed = Vec::new();
    if measured.death.is_some() {
        missed.push("the broker exited".into());
    }
    if measured.resident_bytes > ALLOWED_BYTES {
        missed.push(format!("{:.0} MiB", mib(measured.resident_bytes)));
    }
    for (count, what) in [
        (measured.disconnects as u64, "disconnected"),
        (measured.lost, "messages lost"),
        (measured.awaited, "messages still pending"),
    ] {
        if count > 0 {
            missed.push(format!("{count} {what}"));
        }
    }
    if measured.log_bytes > LOG_BYTES_MAX {
        missed.push(format!("{:.0} MiB of log", mib(measured.log_bytes)));
    }
    missed.extend(measured.fault.clone());
    missed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::trial::tests::measured;

    fn judged(measured: Measured) -> Option<String> {
        Row::new("kind", "ringmq", measured).missed()
    }

    #[test]
    fn the_memory_limit_is_a_quarter_more_than_the_bound_and_a_constant() {
        assert_eq!(judged(Measured { resident_bytes: 112 << 20, ..measured(&[1]) }), None);
        let more = judged(Measured { resident_bytes: 113 << 20, ..measured(&[1]) });
        assert_eq!(more.as_deref(), Some("kind: ringmq: 113 MiB"));
    }

    #[test]
    fn disconnections_losses_exits_and_large_logs_are_reported() {
        let missed = judged(Measured { disconnects: 1, lost: 2, ..measured(&[1]) });
        assert!(missed.expect("both").contains("1 disconnected, 2 messages lost"));
        assert!(judged(Measured { death: Some(String::new()), ..measured(&[1]) }).is_some());
        assert!(judged(Measured { log_bytes: 2 << 20, ..measured(&[1]) }).is_some());
        assert!(judged(Measured { awaited: 7, ..measured(&[1]) }).is_some());
        assert!(judged(Measured { fault: Some("x".into()), ..measured(&[1]) }).is_some());
        assert_eq!(judged(Measured { refused: 9, ..measured(&[9_000]) }), None);
    }

    #[test]
    fn each_row_has_a_cell_for_each_column() {
        let row = Row::new("kind", "mosquitto", measured(&[1]));
        assert_eq!((row.cells().len(), row.missed()), (COLUMNS.len(), None));
        assert_eq!(Row::without("kind", "ringmq").cells().len(), COLUMNS.len());
        assert!(table(&[row]).contains("64 MiB"));
    }
}

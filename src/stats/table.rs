//! A report as a table that a person reads, with a chart of what each QoS took.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::base::metrics::Metrics;
use crate::stats::{PUBLISH, QUANTILES, Report, Why};

/// With more cores than these a table shows them taken together alone.
const CORES_MAX: usize = 8;

/// Characters of the longest bar.
const BAR: usize = 40;

/// The report as text.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = head(&mut text, report)
        .and_then(|()| latencies(&mut text, report))
        .and_then(|()| counts(&mut text, report))
        .and_then(|()| charts(&mut text, report));
    text
}

fn head(text: &mut String, report: &Report) -> std::fmt::Result {
    let (span_s, uptime_s) = (report.span.as_secs_f64(), report.uptime.as_secs_f64());
    let cores = match report.cores.len() {
        1 => "1 core".to_owned(),
        cores => format!("{cores} cores"),
    };
    match report.why {
        Why::Interval => {
            writeln!(text, "── ringmq, {cores}, last {span_s:.1} s of {uptime_s:.1} s")
        }
        Why::Asked => writeln!(text, "── ringmq, {cores}, {uptime_s:.1} s since start"),
        Why::Exit => writeln!(text, "── ringmq, {cores}, {uptime_s:.1} s, at exit"),
    }
}

fn latencies(text: &mut String, report: &Report) -> std::fmt::Result {
    write!(text, "{:<24}{:>14}", "µs", "count")?;
    for (quantile, _) in QUANTILES {
        write!(text, "{:>10}", format!("{} %", quantile * 100.0))?;
    }
    writeln!(text, "{:>10}", "max")?;
    let several = report.cores.len() > 1 && report.cores.len() <= CORES_MAX;
    let cores = if several { &report.cores[..] } else { &[] };
    for (kind, _, title) in report.all.recording.each() {
        latency(text, title, report.all.recording.of(kind))?;
        for (number, core) in cores.iter().enumerate() {
            let histogram = core.recording.of(kind);
            if !histogram.is_empty() {
                latency(text, &format!("  core {number}"), histogram)?;
            }
        }
    }
    Ok(())
}

fn latency(text: &mut String, title: &str, histogram: &Histogram<u64>) -> std::fmt::Result {
    write!(text, "{title:<24}{:>14}", grouped(histogram.len()))?;
    for value in histogram.value_at_quantiles(QUANTILES.map(|(quantile, _)| quantile)) {
        write!(text, "{:>10}", microseconds(value.min(histogram.max())))?;
    }
    writeln!(text, "{:>10}", microseconds(histogram.max()))
}

fn counts(text: &mut String, report: &Report) -> std::fmt::Result {
    let metrics = &report.all.metrics;
    writeln!(text, "{:<24}{:>14}{:>14}{:>16}{:>14}", "", "in", "in/s", "out", "out/s")?;
    let flows: [(&str, u64, u64); 3] = [
        ("messages (PUBLISH)", metrics.publishes_received, metrics.publishes_sent),
        ("packets", metrics.packets_received, metrics.packets_sent),
        ("bytes", metrics.bytes_received, metrics.bytes_sent),
    ];
    for (title, taken, given) in flows {
        let rate = |count| grouped(report.per_second(count).round() as u64);
        writeln!(
            text,
            "{title:<24}{:>14}{:>14}{:>16}{:>14}",
            grouped(taken),
            rate(taken),
            grouped(given),
            rate(given)
        )?;
    }
    let Metrics { connections_open, clients_connected, connections_accepted, .. } = metrics;
    writeln!(
        text,
        "connections             {connections_open} open, {clients_connected} clients, \
         {connections_accepted} accepted ({:.1}/s), {} refused, {} handed over, {} violations",
        report.per_second(*connections_accepted),
        metrics.connections_refused,
        metrics.connections_handed_over,
        metrics.violations
    )?;
    writeln!(
        text,
        "waiting                 {} messages in queues, {} bytes in all, {} bytes in lanes; \
         publishers paused {} times",
        grouped(metrics.messages_queued),
        grouped(metrics.memory_bytes),
        grouped(metrics.lanes_bytes),
        metrics.publishers_paused
    )?;
    let dropped = match metrics.drops.total() {
        0 => "nothing".to_owned(),
        _ => metrics.drops.summary(),
    };
    writeln!(text, "dropped                 {dropped}")?;
    let busy = report.cores.iter().enumerate();
    let busy = busy.map(|(n, core)| format!("core {n} {:.0} %", report.busy(core) * 100.0));
    writeln!(text, "busy                    {}", busy.collect::<Vec<_>>().join(", "))?;
    turns(text, report)
}

/// What the event loops do: with how many packets a turn, and how long busy cores wait for more input.
fn turns(text: &mut String, report: &Report) -> std::fmt::Result {
    let metrics = &report.all.metrics;
    let each = |count: u64| count as f64 / metrics.turns.max(1) as f64;
    writeln!(
        text,
        "turns                   {}/s with {:.1} packets each; waited for more input before {:.0} %, \
         {:.0} % of the time; {} wake-ups/s of other cores",
        grouped(report.per_second(metrics.turns).round() as u64),
        each(metrics.packets_received),
        each(metrics.turns_moderated) * 100.0,
        report.per_second(metrics.moderated_us) / 1e4 / report.cores.len().max(1) as f64,
        grouped(report.per_second(metrics.wakeups_sent).round() as u64),
    )
}

fn charts(text: &mut String, report: &Report) -> std::fmt::Result {
    for (kind, _, title) in report.all.recording.each().filter(|(kind, ..)| PUBLISH.contains(kind))
    {
        writeln!(text, "{title}, by µs")?;
        chart(text, report.all.recording.of(kind))?;
    }
    Ok(())
}

/// A bar for each doubling, from the first that has something to the last.
fn chart(text: &mut String, histogram: &Histogram<u64>) -> std::fmt::Result {
    let mut bars = [0; u64::BITS as usize + 1];
    for step in histogram.iter_recorded() {
        let us = step.value_iterated_to() / 1_000;
        bars[(u64::BITS - us.leading_zeros()) as usize] += step.count_at_value();
    }
    let Some(first) = bars.iter().position(|&count| count > 0) else { return Ok(()) };
    let last = bars.iter().rposition(|&count| count > 0).expect("there is a first");
    let most = bars.iter().copied().max().expect("there are some");
    for (doubling, &count) in bars.iter().enumerate().take(last + 1).skip(first) {
        let (from, below) = (1_u64 << doubling >> 1, 1_u64 << doubling);
        let share = count as f64 * 100.0 / histogram.len() as f64;
        writeln!(text, "{from:>10} – {below:<10}{} {share:.2} %", bar(count, most))?;
    }
    Ok(())
}

/// A bar to the eighth of a character; what is there at all shows.
fn bar(count: u64, most: u64) -> String {
    const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (count as f64 * (BAR * 8) as f64 / most as f64).round() as usize;
    let eighths = if count > 0 { eighths.max(1) } else { 0 };
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(PARTS[eighths % 8]);
    }
    bar
}

/// Nanoseconds as microseconds with about four digits.
fn microseconds(ns: u64) -> String {
    match ns {
        0..100_000 => format!("{:.2}", ns as f64 / 1e3),
        100_000..10_000_000 => format!("{:.1}", ns as f64 / 1e3),
        _ => grouped(ns / 1_000),
    }
}

/// A number with a comma at each thousand.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

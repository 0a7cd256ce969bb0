//! What is recorded, added up and written, with time in the test's hands.

use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use super::histogram_log::write_percentiles;
use super::*;
use crate::base::clock::{Now, Tick};
use crate::base::metrics::{Drop as DropCause, Metrics};
use crate::base::notifier::Notifier;
use crate::base::waker::Waker;
use crate::control::{Command, Cores, Inbox, Statistics};

/// What one core recorded in a few turns: `publishes` messages of QoS 1 that took `us` each.
fn part(publishes: u64, us: u64) -> Part {
    let mut part = Part::default();
    part.recording.record(Kind::PublishQos1, us * 1_000, publishes);
    part.recording.record(Kind::Turn, 5_000, 1);
    part.metrics.publishes_received = publishes;
    part.metrics.received_by_qos[1] = publishes;
    part.metrics.busy_us = 250_000;
    part
}

fn report(why: Why, cores: Vec<Part>) -> Report {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    Report::new(why, at, (Duration::from_secs(9), Duration::from_secs(2)), cores)
}

/// A core with a recorder, which executes commands when the test says so.
struct Core {
    recorder: Recorder,
    metrics: Metrics,
    inbox: Inbox,
    _poll: mio::Poll,
}

impl Core {
    /// Answers the commands that wait.
    fn answer(&mut self) {
        while let Some(command) = self.inbox.next_command() {
            let Command::Statistics { empty, reply } = command else { panic!("not of statistics") };
            let recording = self.recorder.take(empty);
            reply.send(Statistics { recording, metrics: self.metrics.clone() });
        }
    }
}

fn core() -> (Core, Collector, Cores) {
    let poll = mio::Poll::new().expect("a poll");
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
    let (cores, mut inboxes) = Cores::new([Notifier::new(Waker::Poll(waker))].into());
    let (mut recorders, collector) = collector(1);
    let (recorder, inbox) = (recorders.remove(0), inboxes.remove(0));
    (Core { recorder, metrics: Metrics::default(), inbox, _poll: poll }, collector, cores)
}

/// What a recorder has recorded since the last time.
fn recorded(core: &mut Core, collector: &mut Collector, cores: &Cores) -> Recording {
    let (say, said) = mpsc::channel();
    let take = |_, recording: &Recording| say.send(recording.clone()).unwrap();
    answered(std::slice::from_mut(core), move || collector.collect(cores, PATIENCE, take));
    said.try_iter().fold(Recording::default(), |mut all, one| {
        all.add(&one);
        all
    })
}

#[test]
fn each_message_of_a_turn_takes_as_long_as_the_turn() {
    let (mut core, mut collector, cores) = core();
    core.recorder.note_turn(Tick(1_000), Tick(31_000), [2, 0, 1], [].into_iter());
    core.recorder.note_turn(Tick(50_000), Tick(60_000), [2, 4, 1], [Now(45)].into_iter());
    let recording = recorded(&mut core, &mut collector, &cores);
    let of = |kind| {
        let histogram = recording.of(kind);
        (histogram.len(), histogram.min(), histogram.max())
    };
    assert_eq!(of(Kind::PublishQos0).0, 2);
    assert!(recording.of(Kind::PublishQos0).equivalent(of(Kind::PublishQos0).2, 30_000));
    assert_eq!((of(Kind::PublishQos1).0, of(Kind::PublishQos2).0), (4, 1));
    assert!(recording.of(Kind::PublishQos1).equivalent(of(Kind::PublishQos1).1, 10_000));
    assert_eq!(of(Kind::Turn).0, 2);
    // CONNECT came before the turn that answered it.
    assert_eq!(of(Kind::Connect).0, 1);
    assert!(recording.of(Kind::Connect).equivalent(of(Kind::Connect).2, 15_000));
}

#[test]
fn what_came_from_another_core_is_timed_from_there() {
    let (mut core, mut collector, cores) = core();
    let stamps = Stamps { began: Tick(10_000), sealed: Tick(14_000) };
    core.recorder.note_batch(stamps, Tick(21_000), [5, 0, 0], [8, 0, 1]);
    // A batch that says other things only.
    core.recorder.note_batch(stamps, Tick(22_000), [8, 0, 1], [8, 0, 1]);
    core.recorder.note_turn(Tick(20_000), Tick(25_000), [0; 3], [].into_iter());
    let recording = recorded(&mut core, &mut collector, &cores);
    let is = |kind, ns| recording.of(kind).equivalent(recording.of(kind).max(), ns);
    assert_eq!(recording.of(Kind::Hop).len(), 2);
    assert!(is(Kind::Hop, 8_000));
    assert_eq!(recording.of(Kind::ForwardedQos0).len(), 3);
    assert_eq!(recording.of(Kind::ForwardedQos2).len(), 1);
    assert!(is(Kind::ForwardedQos0, 15_000) && is(Kind::ForwardedQos2, 15_000));
    assert!(recording.of(Kind::PublishQos0).is_empty());
}

#[test]
fn a_time_beyond_the_scale_counts_as_an_hour() {
    let mut recording = Recording::default();
    recording.record(Kind::Turn, u64::MAX, 1);
    assert!(recording.of(Kind::Turn).equivalent(recording.of(Kind::Turn).max(), 3_600_000_000_000));
}

#[test]
fn the_maximum_of_an_interval_is_not_that_of_an_earlier_one() {
    let (mut core, mut collector, cores) = core();
    for (us, max_us) in [(500, 500), (20, 20), (40, 40)] {
        core.recorder.note_turn(Tick(0), Tick(us * 1_000), [0; 3], [].into_iter());
        let recording = recorded(&mut core, &mut collector, &cores);
        let turn = recording.of(Kind::Turn);
        assert!(turn.equivalent(turn.max(), max_us * 1_000), "{} of {us} µs", turn.max());
    }
}

#[test]
fn everything_is_collected_once_and_what_comes_late_next_time() {
    let (mut core, mut collector, cores) = core();
    core.recorder.note_turn(Tick(0), Tick(1_000), [1, 0, 0], [].into_iter());
    // In a turn that is longer than anybody waits.
    collector.collect(&cores, PATIENCE, |_, _| panic!("it has not answered"));
    core.answer();
    core.recorder.note_turn(Tick(0), Tick(1_000), [3, 0, 0], [].into_iter());
    assert_eq!(recorded(&mut core, &mut collector, &cores).of(Kind::PublishQos0).len(), 1);
    assert_eq!(recorded(&mut core, &mut collector, &cores).of(Kind::PublishQos0).len(), 2);
    core.recorder.note_turn(Tick(0), Tick(1_000), [7, 0, 0], [].into_iter());
    core.recorder.finish(Metrics { turns: 4, ..Metrics::default() });
    let mut last = 0;
    collector.collect_last(|core, recording| {
        assert_eq!(core, 0);
        last += recording.of(Kind::PublishQos0).len();
    });
    assert_eq!((last, collector.metrics(0).turns), (4, 4));
}

#[test]
fn a_core_that_has_stopped_is_not_waited_for() {
    let (core, mut collector, cores) = core();
    drop(core);
    let began = std::time::Instant::now();
    collector.collect(&cores, PATIENCE, |_, _| panic!("it has stopped"));
    collector.collect(&cores, PATIENCE, |_, _| panic!("it has stopped"));
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

/// Runs `ask` while the cores answer what they are asked.
fn answered<T: Send>(cores: &mut [Core], ask: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let asking = scope.spawn(ask);
        while !asking.is_finished() {
            cores.iter_mut().for_each(Core::answer);
        }
        asking.join().expect("it returns")
    })
}

#[test]
fn readers_do_not_take_each_others_statistics() {
    let (core, collector, cores) = core();
    let shared = SharedStatistics::new(cores, collector, true);
    let mut core = [core];
    core[0].recorder.note_turn(Tick(0), Tick(1_500), [3, 0, 0], [].into_iter());
    let scraped = answered(&mut core, || shared.snapshot(PATIENCE));
    assert_eq!(scraped.latencies(Kind::PublishQos0).count(), 3);
    core[0].recorder.note_turn(Tick(0), Tick(1_500), [5, 0, 0], [].into_iter());
    let (printed, _) = answered(&mut core, || shared.take_for_reporter(false));
    assert_eq!(printed[0].of(Kind::PublishQos0).len(), 5);
    let (printed, _) = answered(&mut core, || shared.take_for_reporter(false));
    assert_eq!(printed[0].of(Kind::PublishQos0).len(), 0);
    let scraped = answered(&mut core, || shared.snapshot(PATIENCE));
    assert_eq!(scraped.latencies(Kind::PublishQos0).count(), 5);
    assert_eq!(scraped.latencies(Kind::Turn).count(), 2);
}

#[test]
fn the_counters_of_a_core_that_does_not_reply_do_not_fall() {
    let (mut core, collector, cores) = core();
    let shared = SharedStatistics::new(cores, collector, false);
    core.metrics.turns = 7;
    let answered = answered(std::slice::from_mut(&mut core), || shared.snapshot(PATIENCE));
    assert_eq!((answered.missing().len(), answered.all.turns), (0, 7));
    let missing = shared.snapshot(PATIENCE);
    assert_eq!((missing.missing().len(), missing.all.turns), (1, 7));
    assert!(missing.cores[0].is_none());
}

#[test]
fn all_is_the_sum_of_the_cores() {
    let report = report(Why::Asked, vec![part(30, 10), part(12, 4_000), part(0, 1)]);
    let all = report.all.recording.of(Kind::PublishQos1);
    let mut sum = Histogram::<u64>::new(3).expect("digits");
    for core in &report.cores {
        sum.add(core.recording.of(Kind::PublishQos1)).expect("it grows");
    }
    assert_eq!(*all, sum);
    assert_eq!((all.len(), report.all.metrics.received_by_qos), (42, [0, 42, 0]));
    assert_eq!(report.busy(&report.cores[0]), 0.125);
}

#[test]
fn a_line_of_json_has_all_there_is_of_each_core_and_of_all() {
    let mut cores = vec![part(30, 10), part(12, 4_000)];
    cores[1].metrics.drops.add(DropCause::QueueFull, 5);
    let line = json::line(&report(Why::Interval, cores));
    assert_eq!(line.matches('\n').count(), 1);
    let parsed: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&parsed["why"], &parsed["span_s"]), (&"interval".into(), &2.0.into()));
    let latency =
        |of: &serde_json::Value, field: &str| of["latency_ns"]["publish-qos1"][field].clone();
    assert_eq!(latency(&parsed, "count"), 42);
    assert_eq!(latency(&parsed["cores"][0], "count"), 30);
    let [p50, p99] = ["p50", "p99"].map(|name| latency(&parsed, name).as_u64().expect("whole"));
    assert!((9_990..10_010).contains(&p50) && (3_996_000..4_004_000).contains(&p99), "{p50} {p99}");
    assert_eq!(parsed["per_second"]["publishes_received"], 21.0);
    assert_eq!(parsed["dropped"]["queue-full"], 5);
    assert_eq!(parsed["cores"][0]["dropped"]["queue-full"], 0);
    assert!(parsed["gauges"]["memory_bytes"].is_u64());
    assert!(parsed["latency_ns"].get("hop").is_none(), "there was none");
}

#[test]
fn the_table_shows_cores_quantiles_and_a_bar_for_each_doubling() {
    let mut cores = vec![part(60, 10), part(20, 4_000), part(0, 1)];
    cores[0].metrics.drops.add(DropCause::Expired, 3);
    let text = table::text(&report(Why::Interval, cores.clone()));
    let has = |part: &str| assert!(text.contains(part), "{part:?} in\n{text}");
    has("3 cores, last 2.0 s of 9.0 s");
    has("PUBLISH, QoS 1                      80");
    has("  core 1                            20    4001.8");
    has("99.99 %");
    has("expired=3");
    has("core 0 12 %");
    // 10 µs lie in the doubling that begins at 8, three quarters of all.
    has(&format!("         8 – 16        {} 75.00 %", "█".repeat(40)));
    has("      2048 – 4096      █████████████▍ 25.00 %");
    assert!(!text.contains("storage"), "nobody stores anything");
    // More cores than lines are for: taken together alone.
    cores.resize(9, part(1, 1));
    assert!(!table::text(&report(Why::Exit, cores)).contains("  core 1  "));
}

/// A folder that is gone when the test is.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringmq-stats-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl std::ops::Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_interval_log_is_read_by_its_own_reader() {
    let folder = Folder::new("log");
    let path = folder.0.join("x.hlog");
    let all = report(Why::Interval, vec![part(30, 10), part(12, 4_000)]);
    {
        let mut log = HistogramLog::create(&path).expect("created");
        let mut serializer = V2DeflateSerializer::new();
        let mut entries = log.begin(&mut serializer, all.at).expect("begun");
        let span = (Duration::from_secs(7), Duration::from_secs(2));
        entries.add(span, &all.cores, &all.all).expect("added");
    }
    let text = std::fs::read(&path).expect("readable");
    let mut decoded = Vec::new();
    for entry in IntervalLogIterator::new(&text) {
        match entry.expect("well formed") {
            LogEntry::Interval(interval) => {
                assert_eq!(interval.start_timestamp(), Duration::from_secs(7));
                assert_eq!(interval.duration(), Duration::from_secs(2));
                let bytes = base64(interval.encoded_histogram());
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut &bytes[..]).expect("a histogram");
                decoded.push((interval.tag().expect("a tag").as_str().to_owned(), histogram));
            }
            LogEntry::BaseTime(at) => assert_eq!(at, Duration::from_secs(1_000)),
            LogEntry::StartTime(at) => assert_eq!(at, Duration::from_secs(1_000)),
        }
    }
    let of = |tag: &str| &decoded.iter().find(|(of, _)| of == tag).expect("an entry").1;
    assert_eq!(of("publish-qos1"), all.all.recording.of(Kind::PublishQos1));
    assert_eq!(of("core1-publish-qos1"), all.cores[1].recording.of(Kind::PublishQos1));
    assert_eq!(decoded.len(), 6);
}

/// RFC 4648, for what is well formed.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let text = text.trim_end_matches('=').as_bytes();
    let of = |four: &[u8]| {
        let bits = four.iter().fold(0_u32, |bits, &byte| bits << 6 | u32::from(digit(byte)));
        let bits = bits << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    text.chunks(4).flat_map(of).collect()
}

#[test]
fn a_percentile_file_rises_to_the_whole() {
    let folder = Folder::new("hgrm");
    let log = folder.0.join("x.hlog");
    let mut part = part(90, 10);
    part.recording.record(Kind::PublishQos1, 3_000_000, 10);
    write_percentiles(&log, &part).expect("written");
    let text = std::fs::read_to_string(folder.0.join("x.publish-qos1.hgrm")).expect("there");
    assert!(folder.0.join("x.turn.hgrm").exists() && !folder.0.join("x.hop.hgrm").exists());
    let rows: Vec<Vec<f64>> = text
        .lines()
        .skip(2)
        .take_while(|line| !line.starts_with('#'))
        .map(|line| {
            line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
        })
        .collect();
    assert!(rows.is_sorted_by(|a, b| a[..3].iter().zip(&b[..3]).all(|(a, b)| a <= b)), "{text}");
    let (first, last) = (&rows[0], rows.last().expect("rows"));
    assert!((9.99..10.01).contains(&first[0]), "microseconds: {text}");
    assert_eq!((last.len(), last[1], last[2]), (3, 1.0, 100.0), "{text}");
    assert!((2_997.0..3_003.0).contains(&last[0]), "{text}");
    assert!(text.contains("Total count    =          100]"), "{text}");
}

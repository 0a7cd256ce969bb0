//! One attack on one broker, with innocent clients.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    attack::{Attack, AttackOutcome, Setup, Target},
    innocents::{Innocents, Intervals, Kind, Record, Sample},
    peer::Exchange,
};
use crate::{
    affinity,
    cli::HostileArgs,
    clock::now_ns,
    compare::{BrokerKind, RunningBroker, ringmq_binary},
    error::{Error, Result},
    meter::{Meter, Usage},
    real_time::RealTime,
};

/// The oldest pending operation of innocent clients below which the attack counts as processed.
const SETTLED: Duration = Duration::from_millis(100);
/// The limit of the oldest pending operation without an attack.
const CALM: Duration = Duration::from_millis(20);
/// How long it must hold before a baseline starts.
const WARM_UP: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The parameters of a trial.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// The arguments.
    pub args: &'a HostileArgs,
    /// The broker.
    pub broker: &'a str,
    /// The attack.
    pub attack: Attack,
}

/// The results.
#[derive(Debug)]
pub struct Measured {
    /// Latencies of innocent clients without the attack.
    pub without: Latencies,
    /// Latencies during the attack.
    pub beside: Latencies,
    /// Disconnections of innocent clients since the start of the attack.
    pub disconnects: usize,
    /// Refused connections of the reconnecting client.
    pub refused: usize,
    /// Messages that were skipped.
    pub lost: u64,
    /// Messages and pings that were still pending after the final wait.
    pub awaited: u64,
    /// The maximum delay of the generator itself.
    pub late: Duration,
    /// Resources used by the broker since the start of the attack, as long as it ran.
    pub used: Usage,
    /// Resident memory before the attack, in bytes.
    pub resident_before: u64,
    /// The peak since then.
    pub resident_bytes: u64,
    /// Resident memory at the end, with the remaining attackers.
    pub resident_after: u64,
    /// Size of the broker's log, in bytes.
    pub log_bytes: u64,
    /// Duration of the attack, including the broker's backlog.
    pub span: Duration,
    /// The cause of the broker's exit, if it exited.
    pub death: Option<String>,
    /// What attackers received.
    pub heard: String,
    /// A description of forbidden behaviour of the broker.
    pub fault: Option<String>,
}

/// Latencies of messages and pings together, and of connections.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Of messages and pings.
    pub traffic: Times,
    /// Of connections.
    pub connects: Times,
}

/// All values, ascending, without an upper limit.
#[derive(Debug, Default)]
pub struct Times(Vec<u64>);

impl Times {
    /// Creates it from nanoseconds in any order.
    pub fn of(mut ns: Vec<u64>) -> Self {
        ns.sort_unstable();
        Self(ns)
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The quantile in milliseconds; 0 without values.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let place = (quantile * self.0.len() as f64).ceil() as usize;
        self.0.get(place.saturating_sub(1).min(last)).map_or(0.0, |&ns| ns as f64 / 1e6)
    }

    /// The maximum in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.quantile_ms(1.0)
    }
}

impl Latencies {
    fn of<'a>(samples: impl Iterator<Item = &'a Sample>) -> Self {
        let (mut traffic, mut connects) = (Vec::new(), Vec::new());
        for sample in samples {
            match sample.kind {
                Kind::Message | Kind::Ping => traffic.push(sample.took_ns),
                Kind::Connect => connects.push(sample.took_ns),
            }
        }
        Self { traffic: Times::of(traffic), connects: Times::of(connects) }
    }
}

impl Trial<'_> {
    /// Runs the trial, from the start of the broker to its end; `None` if this broker lacks the
    /// attacked feature.
    pub fn run(&self) -> Result<Option<Measured>> {
        let args = self.args;
        let mut target = Target {
            address: "127.0.0.1:1".parse().map_err(Error::Usage)?,
            is_short: args.short,
            patience: Duration::from_secs_f64(args.patience_s),
            span: args.attack_span(),
        };
        let setup = (self.attack.setup)(&target);
        if setup.lacks_mosquitto && self.broker == "mosquitto" {
            return Ok(None);
        }
        let mut broker = start(args, self.broker, &setup)?;
        target.address = broker.address();
        self.measure(&target, &mut broker)
            .map(Some)
            .map_err(|error| broker.explain(self.broker, error))
    }

    fn measure(&self, target: &Target, broker: &mut RunningBroker) -> Result<Measured> {
        let strike = (self.attack.prepare)(target).map_err(|refusal| {
            Error::Broker(format!("the attack could not be prepared: {refusal}"))
        })?;
        let innocents = self.innocents(target)?;
        warm_up(&innocents, target.patience);
        let begun_ns = now_ns();
        thread::sleep(self.args.baseline());
        let mut watch = Watch::begin(broker.meter()?)?;
        let (struck_ns, struck) = (now_ns(), Instant::now());
        let at = *target;
        let attack = thread::spawn(move || strike(&at));
        let (mut over, mut span) = (None, Duration::ZERO);
        loop {
            thread::sleep(LOOK_EVERY);
            watch.look();
            if broker.has_ended()? {
                break;
            }
            let is_settled = innocents.waiting() < SETTLED;
            if over.is_none() || !is_settled {
                span = struck.elapsed();
            }
            if !attack.is_finished() {
                continue;
            }
            let over = *over.get_or_insert_with(Instant::now);
            if (is_settled && over.elapsed() > self.args.aftermath())
                || over.elapsed() > target.patience
            {
                break;
            }
        }
        let death = broker.has_ended()?.then(|| broker.log_end());
        let is_settled = innocents.waiting() < SETTLED;
        let record = innocents.finish()?;
        let ended =
            attack.join().map_err(|_| Error::Broker("the thread of the attack ended".into()))?;
        let mut measured = measured(&record, begun_ns, struck_ns, ended, &watch);
        measured.span = span;
        // A few messages are always in transit.
        measured.awaited = if is_settled { 0 } else { record.awaited };
        measured.log_bytes = broker.log_bytes();
        measured.death = death;
        Ok(measured)
    }

    /// Starts with real-time priority on the core, if requested: the thread inherits it from this
    /// one, as the broker does.
    fn innocents(&self, target: &Target) -> Result<Innocents> {
        let _first = self.args.priority.then(RealTime::begin).transpose()?;
        Innocents::start(target.address, Intervals::default())
    }
}

/// Waits until the work of the preparation is done.
fn warm_up(innocents: &Innocents, patience: Duration) {
    let (begun, mut calm) = (Instant::now(), Instant::now());
    while calm.elapsed() < WARM_UP && begun.elapsed() < patience {
        thread::sleep(LOOK_EVERY);
        if innocents.waiting() > CALM {
            calm = Instant::now();
        }
    }
}

/// The state of the broker.
#[derive(Debug)]
struct Watch {
    meter: Meter,
    before: Usage,
    usage: Usage,
    resident_before: u64,
    resident_bytes: u64,
    resident_after: u64,
}

impl Watch {
    fn begin(meter: Meter) -> Result<Self> {
        let (usage, resident) = (meter.usage()?, meter.resident_bytes()?);
        Ok(Self {
            meter,
            before: usage,
            usage,
            resident_before: resident,
            resident_bytes: resident,
            resident_after: resident,
        })
    }

    /// After the broker's exit, the last values are kept.
    fn look(&mut self) {
        if let Ok(usage) = self.meter.usage()
            && usage.cpu >= self.usage.cpu
        {
            self.usage = usage;
        }
        if let Ok(resident) = self.meter.resident_bytes() {
            self.resident_bytes = self.resident_bytes.max(resident);
            self.resident_after = resident;
        }
    }
}

/// All results that are available here.
fn measured(
    record: &Record,
    begun_ns: u64,
    struck_ns: u64,
    ended: Exchange<AttackOutcome>,
    watch: &Watch,
) -> Measured {
    let since = |sample: &&Sample| sample.began_ns + sample.took_ns > struck_ns;
    let samples = || record.samples.iter().filter(|sample| sample.began_ns >= begun_ns);
    let (heard, fault) = match ended {
        Ok(mut ended) => (std::mem::take(&mut ended.heard), ended.fault.take()),
        Err(refusal) => (refusal.to_string(), None),
    };
    Measured {
        without: Latencies::of(samples().filter(|sample| !since(sample))),
        beside: Latencies::of(samples().filter(since)),
        disconnects: record.disconnects.iter().filter(|&&at| at > struck_ns).count(),
        refused: record.refused.len(),
        lost: record.lost,
        awaited: 0,
        late: Duration::from_nanos(record.late_ns),
        used: watch.usage.since(watch.before),
        resident_before: watch.resident_before,
        resident_bytes: watch.resident_bytes,
        resident_after: watch.resident_after,
        log_bytes: 0,
        span: Duration::ZERO,
        death: None,
        heard,
        fault,
    }
}

/// The broker with this name, configured for an attack.
pub fn start(args: &HostileArgs, name: &str, setup: &Setup) -> Result<RunningBroker> {
    let (command, file) = match name {
        "mosquitto" => (
            "PATH=\"$PATH:/usr/sbin\" exec mosquitto -c {dir}/mosquitto.conf".to_string(),
            ("mosquitto.conf", mosquitto_file(setup)),
        ),
        "ringmq" => {
            let cores = setup.cores.unwrap_or(args.broker_cores.len());
            let binary = ringmq_binary(&args.ringmq_binary)?;
            let data = if setup.has_store { "{dir}/data" } else { "none" };
            let command =
                format!("exec {binary} --config {{dir}}/broker.toml --data {data} --cores {cores}");
            let text = format!("listen = [\"127.0.0.1:{{port}}\"]\n{}", setup.ringmq);
            (command, ("broker.toml", text))
        }
        _ => return Err(Error::Usage(format!("{name} is neither ringmq nor mosquitto"))),
    };
    let command = match setup.address_space_bytes {
        Some(bytes) => format!("ulimit -v {}; {command}", bytes / 1024),
        None => command,
    };
    let command = if args.priority { before_others(&command) } else { command };
    let files = setup.files.iter().cloned().chain([file]).collect();
    let kind = BrokerKind::new(name, command, files);
    let running = kind.start(0, &args.broker_cores)?;
    affinity::pin_to(&args.generator_cores)?;
    Ok(running)
}

/// Runs the command with the highest priority that is not real-time: the kernel stops a real-time
/// process that never sleeps for 50 ms of each second. Where sessions share processors evenly
/// (sched(7), autogroup), the broker gets a session of its own with a high priority.
fn before_others(command: &str) -> String {
    let begin = "exec setsid sh -c 'echo -20 >/proc/self/autogroup; exec nice -n -20 ";
    let command = command.replacen("exec ", begin, 1);
    format!("{command}'")
}

/// The default configuration, with a queue as long as ringmq's.
fn mosquitto_file(setup: &Setup) -> String {
    let store = match setup.has_store {
        true => "persistence true\npersistence_location {dir}/\n",
        false => "persistence false\n",
    };
    format!(
        "listener {{port}} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n\
         set_tcp_nodelay true\nlog_dest stderr\nlog_type error\nlog_type warning\n{store}{}",
        setup.mosquitto
    )
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn latencies(ms: &[u64]) -> Latencies {
        let traffic = Times::of(ms.iter().map(|ms| ms * 1_000_000).collect());
        Latencies { traffic, ..Latencies::default() }
    }

    /// A trial in which messages took a millisecond without the attack, and this long during it.
    pub fn measured(beside_ms: &[u64]) -> Measured {
        Measured {
            without: latencies(&[1; 100]),
            beside: latencies(beside_ms),
            disconnects: 0,
            refused: 0,
            lost: 0,
            awaited: 0,
            late: Duration::ZERO,
            used: Usage::default(),
            resident_before: 0,
            resident_bytes: 0,
            resident_after: 0,
            log_bytes: 0,
            span: Duration::ZERO,
            death: None,
            heard: String::new(),
            fault: None,
        }
    }

    #[test]
    fn a_percentile_is_one_of_the_values_and_the_maximum_is_unlimited() {
        let times = Times::of((1..=100).rev().map(|ms| ms * 1_000_000).collect());
        let told = [0.5, 0.99, 1.0].map(|quantile| times.quantile_ms(quantile));
        assert_eq!(told, [50.0, 99.0, 100.0]);
        assert_eq!(Times::of(vec![200_000_000_000]).max_ms(), 200_000.0);
        assert_eq!(Times::default().max_ms(), 0.0);
    }

    #[test]
    fn operations_that_end_during_an_attack_count_as_part_of_it() {
        let sample = |began_ns, took_ns| Sample { kind: Kind::Message, began_ns, took_ns };
        let record = Record {
            samples: vec![
                sample(5, 1),
                sample(20, 50),
                sample(90, 5_000_000),
                sample(150, 1_000_000),
            ],
            disconnects: vec![50, 200],
            ..Record::default()
        };
        let watch = Watch::begin(Meter::new(std::process::id()).expect("this process exists"));
        let watch = watch.expect("this process exists");
        let measured = super::measured(&record, 10, 100, Ok(AttackOutcome::with("x")), &watch);
        assert_eq!((measured.without.traffic.count(), measured.beside.traffic.count()), (1, 2));
        assert_eq!((measured.disconnects, measured.heard.as_str()), (1, "x"));
    }
}

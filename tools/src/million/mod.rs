//! Holds the maximum number of connections of a machine: one broker, as many processes as necessary
//! for the other ends, and the cost of a connection.

mod holder;

pub use holder::hold;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use self::holder::Held;
use crate::{
    cli::{Format, MillionArgs},
    clock,
    codec::{self, PublishTemplate, Qos, Session, Version},
    compare::{BrokerKind, RunningBroker},
    error::{Error, Result},
    limits::{DESCRIPTORS_SPARE, HOLDERS_CONNECTING_MAX},
    meter::Meter,
    report,
    stamp::Stamp,
};

/// The first source address of the holders.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);
/// Source addresses per holder.
const SOURCES: u32 = 4;
/// Length of the payload.
const PAYLOAD_BYTES: usize = 64;
/// Time for messages in transit to arrive.
const SETTLE: Duration = Duration::from_secs(3);

/// The Topic Filter of a client.
fn topic_of(number: u32) -> String {
    format!("million/{number}")
}

/// The result.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Simultaneous connections, each with a subscription of its own.
    pub connections: u32,
    /// Connections opened per second, by generators on the same machine.
    pub connections_per_second: f64,
    /// The broker's resident memory per connection.
    pub broker_bytes: f64,
    /// The kernel's memory per connection, both ends together, including the generators' epoll
    /// entries.
    pub kernel_bytes_both_ends: f64,
    /// The generators' memory per connection.
    pub generator_bytes: f64,
    /// CPU time of the broker for accept, CONNECT and SUBSCRIBE of a connection, in microseconds.
    pub connect_cpu_us: f64,
    /// Keep Alive, in seconds; a PINGREQ is sent after three quarters of it.
    pub keep_alive_s: u16,
    /// CPU usage of the broker with only PINGREQ traffic, in percent of one core.
    pub idle_cpu_percent: f64,
    /// CPU usage of the machine meanwhile, including generators and kernel, in percent of all
    /// cores: latencies on a busy machine are those of its scheduler.
    pub machine_percent: f64,
    /// Messages to random connections.
    pub published: u64,
    /// Time that the broker's threads waited for a core meanwhile, in percent of one core.
    pub waiting_percent: f64,
    /// Latencies, in microseconds.
    pub latency_p50_us: u64,
    pub latency_p99_us: u64,
    pub latency_max_us: u64,
}

/// A generator process.
struct Holding {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    clients: u32,
}

/// Runs the measurement and prints the result; returns whether all connections were kept and all
/// messages arrived.
pub fn million(args: &MillionArgs) -> Result<bool> {
    let kind =
        BrokerKind::parse_ringmq(&args.broker, &args.ringmq_binary, args.broker_cores.len())?;
    let broker = kind.start(0, &args.broker_cores)?;
    let outcome = measure(args, &broker).map_err(|error| broker.explain(kind.name(), error))?;
    match args.format {
        Format::Table | Format::Markdown => report::print(&text(&outcome))?,
        Format::Json => report::print_json(&outcome)?,
    }
    Ok(true)
}

fn measure(args: &MillionArgs, broker: &RunningBroker) -> Result<Outcome> {
    let meter = broker.meter()?;
    let (resident, kernel, cpu) = (meter.resident_bytes()?, kernel_bytes()?, meter.usage()?.cpu);
    let begun = Instant::now();
    let holdings = connect_all(args, broker)?;
    let took = begun.elapsed();
    thread::sleep(SETTLE);

    let each = 1.0 / f64::from(args.connections);
    let grown = |now: u64, before: u64| (now as f64 - before as f64) * each;
    let broker_bytes = grown(meter.resident_bytes()?, resident);
    let kernel_bytes_both_ends = grown(kernel_bytes()?, kernel);
    let generators =
        holdings.iter().map(|holding| Meter::new(holding.child.id())?.resident_bytes());
    let generator_bytes = generators.sum::<Result<u64>>()? as f64 * each;
    let connect_cpu_us = (meter.usage()?.cpu - cpu).as_secs_f64() * 1e6 * each;

    eprintln!("held; {} s without a message", args.idle_s);
    let (cpu, begun, machine) = (meter.usage()?.cpu, Instant::now(), MachineTime::now()?);
    thread::sleep(Duration::from_secs_f64(args.idle_s));
    let idle = (meter.usage()?.cpu - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    let machine_percent = MachineTime::now()?.busy_percent_since(&machine);

    let (waiting, begun) = (meter.usage()?.waiting, Instant::now());
    let published = publish(args, broker)?;
    let waiting = (meter.usage()?.waiting - waiting).as_secs_f64() / begun.elapsed().as_secs_f64();
    thread::sleep(SETTLE);
    let mut latencies = end_all(holdings, published)?;
    latencies.sort_unstable();
    let percentile = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Ok(Outcome {
        connections: args.connections,
        connections_per_second: f64::from(args.connections) / took.as_secs_f64(),
        broker_bytes,
        kernel_bytes_both_ends,
        generator_bytes,
        connect_cpu_us,
        keep_alive_s: args.keep_alive_s,
        idle_cpu_percent: idle * 100.0,
        machine_percent,
        published,
        waiting_percent: waiting * 100.0,
        latency_p50_us: percentile(0.5),
        latency_p99_us: percentile(0.99),
        latency_max_us: percentile(1.0),
    })
}

/// Starts enough processes for their shares of the connections, a few at a time.
fn connect_all(args: &MillionArgs, broker: &RunningBroker) -> Result<Vec<Holding>> {
    let share = clients_of_a_process();
    let (mut holdings, mut begun, mut held) = (Vec::new(), 0, 0);
    let mut connecting = std::collections::VecDeque::new();
    while held < args.connections {
        while begun < args.connections && connecting.len() < HOLDERS_CONNECTING_MAX {
            let clients = share.min(args.connections - begun);
            let number = begun / share;
            connecting.push_back(spawn(args, broker, number, begun, clients)?);
            begun += clients;
        }
        let mut holding: Holding = connecting.pop_front().expect("some are connecting");
        let mut line = String::new();
        let said = holding.output.read_line(&mut line);
        if said.is_err() || line.trim() != "held" {
            let mut errors = String::new();
            if let Some(stderr) = &mut holding.child.stderr {
                let _ = stderr.read_to_string(&mut errors);
            }
            return Err(Error::Broker(format!(
                "{held} connections were held when: {}\n{}",
                errors.trim(),
                memory_text()
            )));
        }
        held += holding.clients;
        holdings.push(holding);
        let broker_mib = broker.meter()?.resident_bytes()? >> 20;
        eprintln!("{held} of {} connections, broker {broker_mib} MiB", args.connections);
    }
    Ok(holdings)
}

/// As many as a process may have descriptors.
fn clients_of_a_process() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    limit.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_SPARE).min(40_000) as u32
}

fn spawn(
    args: &MillionArgs,
    broker: &RunningBroker,
    number: u32,
    first: u32,
    clients: u32,
) -> Result<Holding> {
    let source = Ipv4Addr::from(u32::from(FIRST_SOURCE) + number * SOURCES);
    let doing = || "start a generator";
    let binary = std::env::current_exe().map_err(|source| Error::io(doing(), source))?;
    let mut child = Command::new(binary)
        .arg("hold")
        .args(["--address", &broker.address().to_string()])
        .args(["--source", &source.to_string()])
        .args(["--first", &first.to_string()])
        .args(["--clients", &clients.to_string()])
        .args(["--keep-alive-s", &args.keep_alive_s.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::io(doing(), source))?;
    let input = child.stdin.take().expect("piped");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    Ok(Holding { child, input, output, clients })
}

/// Publishes to random connections at a constant rate; returns the number of messages. Each carries
/// its scheduled time.
fn publish(args: &MillionArgs, broker: &RunningBroker) -> Result<u64> {
    let failed = |source| Error::io("publish", source);
    let mut stream = TcpStream::connect(broker.address().socket_address()).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let mut packets = Vec::new();
    codec::encode_connect(Version::V311, Session::Clean, 0, "publisher", &mut packets);
    stream.write_all(&packets).map_err(failed)?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).map_err(failed)?;
    if connack[3] != 0 {
        return Err(Error::Broker(format!("the publisher was refused with {:#04x}", connack[3])));
    }
    let count = (args.rate * args.publish_s) as u64;
    eprintln!("{count} messages, {} a second", args.rate);
    let (begun, begun_ns) = (Instant::now(), clock::now_ns());
    let mut random = begun_ns | 1;
    for sequence in 0..count {
        let due = Duration::from_secs_f64(sequence as f64 / args.rate);
        thread::sleep(due.saturating_sub(begun.elapsed()));
        // Xorshift (Marsaglia, 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let topic = topic_of((random % u64::from(args.connections)) as u32);
        let template = PublishTemplate::new(Version::V311, &topic, Qos::AtMostOnce, PAYLOAD_BYTES);
        let sent_ns = begun_ns + due.as_nanos() as u64;
        packets.clear();
        template.encode(0, &Stamp { run: 0, publisher: 0, sequence, sent_ns }, &mut packets);
        stream.write_all(&packets).map_err(failed)?;
    }
    packets.clear();
    codec::encode_disconnect(&mut packets);
    stream.write_all(&packets).map_err(failed)?;
    Ok(count)
}

/// Stops the holders; returns the latencies in microseconds.
fn end_all(holdings: Vec<Holding>, published: u64) -> Result<Vec<u64>> {
    let (mut latencies, mut lost) = (Vec::new(), 0);
    for Holding { mut child, input, mut output, .. } in holdings {
        drop(input);
        let mut line = String::new();
        output.read_line(&mut line).map_err(|source| Error::io("hear of a generator", source))?;
        let held: Held = serde_json::from_str(&line)
            .map_err(|error| Error::Broker(format!("a generator ended early: {error}")))?;
        lost += held.lost;
        latencies.extend(held.latencies_us);
        child.wait().map_err(|source| Error::io("end a generator", source))?;
    }
    if lost > 0 || latencies.len() as u64 != published || latencies.is_empty() {
        return Err(Error::Broker(format!(
            "{lost} connections were lost, and {} of {published} messages came",
            latencies.len()
        )));
    }
    Ok(latencies)
}

/// Busy time of all cores since boot, in the kernel's ticks: proc(5), `/proc/stat`.
struct MachineTime {
    busy: u64,
    all: u64,
}

impl MachineTime {
    fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")
            .map_err(|source| Error::io("read /proc/stat", source))?;
        let first = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> =
            first.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
        let [user, nice, system, idle, waiting_for_disk, irq, softirq, stolen] = ticks[..] else {
            return Err(Error::Broker("/proc/stat does not begin with the cores' time".into()));
        };
        let busy = user + nice + system + irq + softirq + stolen;
        Ok(Self { busy, all: busy + idle + waiting_for_disk })
    }

    fn busy_percent_since(&self, earlier: &Self) -> f64 {
        (self.busy - earlier.busy) as f64 / (self.all - earlier.all).max(1) as f64 * 100.0
    }
}

/// The kernel's own memory: everything that is neither free, nor cache, nor a process's.
fn kernel_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")
        .map_err(|source| Error::io("read /proc/meminfo", source))?;
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .ok_or_else(|| Error::Broker(format!("/proc/meminfo has no {name}")))
    };
    let others = ["MemFree:", "Buffers:", "Cached:", "AnonPages:"];
    let others = others.iter().map(|name| kib(name)).sum::<Result<u64>>()?;
    Ok(kib("MemTotal:")?.saturating_sub(others) * 1024)
}

/// The state of memory, to explain a failure.
fn memory_text() -> String {
    let lines = |path, names: &[&str]| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let wanted = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        wanted.map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    let memory = lines("/proc/meminfo", &["MemTotal", "MemAvailable", "Slab"]);
    let sockets = lines("/proc/net/sockstat", &["TCP"]);
    let files = fs::read_to_string("/proc/sys/fs/file-nr").unwrap_or_default();
    format!("{memory}\n{sockets}\nfiles in use, unused, most: {}", files.trim())
}

fn text(outcome: &Outcome) -> String {
    let Outcome { connections, keep_alive_s, published, .. } = outcome;
    [
        format!("{connections} connections held, a subscription each"),
        format!(
            "  made           {:.0} a second, {:.1} µs of the broker's CPU each",
            outcome.connections_per_second, outcome.connect_cpu_us
        ),
        format!("  broker         {:.0} bytes each", outcome.broker_bytes),
        format!(
            "  kernel         {:.0} bytes for both ends of each",
            outcome.kernel_bytes_both_ends
        ),
        format!("  generators     {:.0} bytes each", outcome.generator_bytes),
        format!(
            "  idle           {:.1}% of a core, with Keep Alive {keep_alive_s} s; the machine is {:.0}% \
             busy, generators included",
            outcome.idle_cpu_percent, outcome.machine_percent
        ),
        format!(
            "  publish        {published} to one drawn at random: p50 {} µs, p99 {} µs, max {} µs",
            outcome.latency_p50_us, outcome.latency_p99_us, outcome.latency_max_us
        ),
        format!(
            "  meanwhile      the broker was kept from a core for {:.1}% of the time",
            outcome.waiting_percent
        ),
    ]
    .join("\n")
}

//! The command line: commands, flags and their defaults.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    address::LoopbackAddress,
    codec::{Qos, Version},
    error::{Error, Result},
    limits::{PROCESSES_MAX, SOURCES_MAX, SPAN_S_MAX},
    load::RunSettings,
    meter::Meter,
    scenario::{LoadMode, Scenario, Workload},
    suite::Published,
    transport::{Sources, TlsSettings, TlsVersion, Transport},
};

/// Generate load for MQTT brokers on this machine, and verify every delivery.
///
/// Exit codes: 0 all messages were delivered once and in order; 1 some were not; 2 invalid command
/// line; 3 no result.
#[derive(Debug, Parser)]
#[command(name = "ringmq-bench", version, about)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load a broker that is already running.
    Run(RunArgs),
    /// Load a running broker like a published benchmark, scaled to this machine.
    Suite(SuiteArgs),
    /// Start several brokers in turn, apply the same loads to each, and compare them.
    Compare(CompareArgs),
    /// Hold many connections, from as many processes as necessary, and report their cost.
    #[cfg(target_os = "linux")]
    Million(MillionArgs),
    /// Attack brokers in various ways, and report how innocent clients are affected.
    Hostile(HostileArgs),
    /// Create an authority and a broker certificate for localhost and 127.0.0.1, for loads over
    /// TLS.
    Certificate(CertificateArgs),
    /// One process's share of a run with `--processes`; started by that run.
    #[command(hide = true)]
    Share,
    /// One process's share of `million`; started by that command.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Hold(HoldArgs),
}

/// `certificate`.
#[derive(Debug, Args)]
pub struct CertificateArgs {
    /// Folder for `ca.pem`, `server.pem` and `server-key.pem`.
    pub folder: PathBuf,
    /// The broker's key (PEM, PKCS #8), for example from `openssl genrsa` [default: a new ECDSA
    /// P-256 key].
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// `million`.
#[cfg(target_os = "linux")]
#[derive(Debug, Args)]
pub struct MillionArgs {
    /// Number of connections, each with a subscription of its own.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub connections: u32,
    /// The broker: `ringmq`, or NAME=COMMAND, in which {port} and {dir} (an empty folder) are
    /// replaced.
    #[arg(long, default_value = "ringmq")]
    pub broker: String,
    /// The broker binary for `ringmq`.
    #[arg(long, default_value = "target/release/broker")]
    pub ringmq_binary: PathBuf,
    /// The broker's cores, separated by commas.
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [0, 1])]
    pub broker_cores: Vec<usize>,
    /// Keep Alive of each connection, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(2..))]
    pub keep_alive_s: u16,
    /// Seconds in which the broker's CPU usage is measured while only PINGREQ packets arrive.
    #[arg(long, default_value_t = 60.0)]
    pub idle_s: f64,
    /// Messages per second to random connections.
    #[arg(long, default_value_t = 1_000.0)]
    pub rate: f64,
    /// Seconds in which they are sent.
    #[arg(long, default_value_t = 20.0)]
    pub publish_s: f64,
    /// Output format.
    #[arg(long, default_value = "table")]
    pub format: Format,
}

/// `hold`.
#[cfg(target_os = "linux")]
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// The broker's address, within 127.0.0.0/8.
    #[arg(long)]
    pub address: LoopbackAddress,
    /// The first source address; consecutive ones follow.
    #[arg(long)]
    pub source: std::net::Ipv4Addr,
    /// Number of the first client.
    #[arg(long)]
    pub first: u32,
    /// Number of clients.
    #[arg(long)]
    pub clients: u32,
    /// Keep Alive in seconds.
    #[arg(long)]
    pub keep_alive_s: u16,
}

/// The running broker, and the output.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// The broker's address, within 127.0.0.0/8.
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub address: LoopbackAddress,
    /// Where publishers connect, if not to the broker of the subscribers: another node of its
    /// cluster. Of a `run`.
    #[arg(long, value_name = "ADDRESS")]
    pub publishers_at: Option<LoopbackAddress>,
    /// The transport.
    #[command(flatten)]
    pub transport: TransportArgs,
    /// The broker's process ID, to measure its CPU time and memory.
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,
    /// The generator's cores, separated by commas.
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Output format.
    #[arg(long, default_value = "table")]
    pub format: Format,
    /// Fail if the rate of deliveries, or of the scenario's operations, is lower.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate_min: Option<f64>,
    /// Fail if the 99th percentile of the latency is higher, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS")]
    pub p99_ms_max: Option<f64>,
    /// Write an SVG picture: latency percentiles, and throughput over time.
    #[arg(long, value_name = "FILE.svg")]
    pub picture: Option<PathBuf>,
}

/// The transport below MQTT.
#[derive(Clone, Debug, Args)]
pub struct TransportArgs {
    /// Use TLS; with --ws, WebSocket over TLS.
    #[arg(long)]
    pub tls: bool,
    /// PEM file of the authority that issued the broker's certificate, such as the `ca.pem` of
    /// `certificate`.
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub ca: Option<PathBuf>,
    /// The name expected in the broker's certificate.
    #[arg(long, value_name = "NAME", default_value = "localhost", requires = "tls")]
    pub tls_name: String,
    /// The TLS version [default: the highest that the broker supports].
    #[arg(long, value_name = "VERSION", requires = "tls")]
    pub tls_version: Option<TlsVersion>,
    /// Make every handshake a full one; by default, reconnecting clients resume sessions with
    /// tickets.
    #[arg(long, requires = "tls")]
    pub no_tls_resume: bool,
    /// Use WebSocket.
    #[arg(long)]
    pub ws: bool,
    /// The WebSocket path.
    #[arg(long, value_name = "PATH", default_value = "/mqtt", requires = "ws")]
    pub ws_path: String,
}

/// `suite`.
#[derive(Debug, Args)]
pub struct SuiteArgs {
    /// The benchmark.
    pub benchmark: Published,
    /// Fraction of the published number of clients, each at its published rate.
    #[arg(long, default_value_t = 0.01)]
    pub scale: f64,
    /// The broker.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How the load is generated and for how long; published runs last half an hour.
    #[command(flatten)]
    pub span: SpanArgs,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The scenario.
    pub scenario: Scenario,
    /// The broker.
    #[command(flatten)]
    pub target: TargetArgs,
    /// The QoS of publications and subscriptions.
    #[arg(long, default_value = "0")]
    pub qos: Qos,
    /// The protocol version.
    #[arg(long, default_value = "3.1.1")]
    pub mqtt: Version,
    /// The amount of load.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// A broker: `ringmq`, `mosquitto`, `rumqttd`, `rmqtt`, `aedes`, or NAME=COMMAND, in which
    /// {port} and {dir} (an empty folder) are replaced. Repeat for more; ratios are relative to the
    /// first.
    #[arg(long = "broker", value_name = "BROKER", default_values = ["mosquitto", "ringmq"])]
    pub brokers: Vec<String>,
    /// Scenarios, separated by commas.
    #[arg(long, value_delimiter = ',', default_values = ["fan-out", "point-to-point", "fan-in"])]
    pub scenarios: Vec<Scenario>,
    /// QoS levels, separated by commas.
    #[arg(long, value_delimiter = ',', default_values = ["0", "1"])]
    pub qos: Vec<Qos>,
    /// Protocol versions, separated by commas.
    #[arg(long, value_delimiter = ',', default_values = ["3.1.1"])]
    pub mqtt: Vec<Version>,
    /// Number of rounds; each round runs every load on every broker once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// The brokers' cores, separated by commas.
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [0])]
    pub broker_cores: Vec<usize>,
    /// The cores of the generator, which is one thread; they may be the brokers' own.
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [1])]
    pub generator_cores: Vec<usize>,
    /// The transport: ringmq and mosquitto are configured for it, with a certificate created for
    /// the comparison. In NAME=COMMAND, {certificates} is replaced by the folder with it.
    #[command(flatten)]
    pub transport: TransportArgs,
    /// The brokers' port on 127.0.0.1; 0 selects a free one.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// The broker binary for `ringmq`.
    #[arg(long, default_value = "target/release/broker")]
    pub ringmq_binary: PathBuf,
    /// Where `tools/peers/setup` installs brokers.
    #[arg(long, default_value = "target/peers")]
    pub peers_folder: PathBuf,
    /// Rate at which latency is compared, in deliveries per second: runs each load with messages
    /// between clients once more, in an open loop at this rate.
    #[arg(long, value_name = "DELIVERIES_PER_SECOND")]
    pub latency_rate: Option<f64>,
    /// Open-loop runs (--latency-rate, --rate): give broker and generator real-time priority on
    /// their cores (SCHED_FIFO, needs CAP_SYS_NICE), so that latencies do not include delays by
    /// other processes.
    #[arg(long)]
    pub real_time: bool,
    /// Mosquitto's `max_inflight_messages`; 0 means no limit, mosquitto's default is 20.
    #[arg(long, default_value_t = 0)]
    pub mosquitto_inflight: u32,
    /// The amount of load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Output format.
    #[arg(long, default_value = "table")]
    pub format: Format,
}

/// `hostile`.
#[derive(Clone, Debug, Args)]
pub struct HostileArgs {
    /// A broker: `ringmq`, `mosquitto`. Repeat for more. Limits apply to ringmq.
    #[arg(long = "broker", value_name = "BROKER", default_values = ["ringmq", "mosquitto"])]
    pub brokers: Vec<String>,
    /// The broker binary for `ringmq`.
    #[arg(long, default_value = "target/release/broker")]
    pub ringmq_binary: PathBuf,
    /// Prefixes of the names of attacks, separated by commas [default: all].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Measure how much memory clients can make a broker use, kind by kind, instead of delays:
    /// resident memory with a bound of 64 MiB.
    #[arg(long)]
    pub memory: bool,
    /// List the attacks and exit.
    #[arg(long)]
    pub list: bool,
    /// Run fewer and smaller attacks: checks that the broker and all connections survive, with time
    /// limits for a loaded machine.
    #[arg(long)]
    pub short: bool,
    /// The broker's cores, separated by commas.
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [0])]
    pub broker_cores: Vec<usize>,
    /// The cores of attackers and innocent clients, separated by commas.
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [1])]
    pub generator_cores: Vec<usize>,
    /// Give innocent clients real-time priority on their core, above the attackers (SCHED_FIFO),
    /// and the broker a high priority on its own (nice -20, as threads that never sleep must not be
    /// real-time). Needs CAP_SYS_NICE.
    #[arg(long)]
    pub priority: bool,
    /// Seconds in which innocent clients are measured before an attack [default: 1; 0.2 with
    /// --short].
    #[arg(long)]
    pub baseline_s: Option<f64>,
    /// Seconds of an attack without an end of its own [default: 2; 5 with --memory; 0.5 with
    /// --short].
    #[arg(long)]
    pub attack_s: Option<f64>,
    /// Timeout in seconds for responses, and for the work that an attack leaves.
    #[arg(long, default_value_t = 30.0)]
    pub patience_s: f64,
    /// Maximum delay of a message or ping in milliseconds [default: 20; 2000 with --short].
    #[arg(long, value_name = "MILLISECONDS")]
    pub max_ms: Option<f64>,
    /// Maximum factor by which the 99th percentile may rise [default: 2; no limit with --short].
    #[arg(long, value_name = "FACTOR")]
    pub p99_ratio_max: Option<f64>,
    /// Output format.
    #[arg(long, default_value = "table")]
    pub format: Format,
}

/// Limits for the effect of an attack on innocent clients.
#[derive(Clone, Copy, Debug)]
pub struct HostileBounds {
    /// Maximum delay of a message or ping.
    pub max_ms: f64,
    /// Maximum factor for the 99th percentile.
    pub p99_ratio: f64,
}

impl HostileArgs {
    /// Rejects values out of range.
    pub fn check(&self) -> Result<()> {
        let spans = [self.baseline_s.unwrap_or(0.0), self.attack_s.unwrap_or(0.0), self.patience_s];
        match spans.iter().find(|seconds| !(0.0..=SPAN_S_MAX).contains(*seconds)) {
            Some(seconds) => Err(Error::Usage(format!("{seconds} s is not between 0 and an hour"))),
            None => Ok(()),
        }
    }

    /// Duration of an attack without an end of its own.
    pub fn attack_span(&self) -> Duration {
        Duration::from_secs_f64(match (self.attack_s, self.short, self.memory) {
            (Some(seconds), ..) => seconds,
            (None, true, _) => 0.5,
            (None, false, true) => 5.0,
            (None, false, false) => 2.0,
        })
    }

    /// Duration of the measurement of innocent clients before an attack.
    pub fn baseline(&self) -> Duration {
        let seconds = self.baseline_s.unwrap_or(if self.short { 0.2 } else { 1.0 });
        Duration::from_secs_f64(seconds)
    }

    /// Minimum duration of the measurement after an attack.
    pub fn aftermath(&self) -> Duration {
        Duration::from_millis(if self.short { 300 } else { 1_000 })
    }

    /// The given value, or the default of the form of the run.
    pub fn bounds(&self) -> HostileBounds {
        let (max_ms, p99_ratio) = if self.short { (2_000.0, f64::INFINITY) } else { (20.0, 2.0) };
        HostileBounds {
            max_ms: self.max_ms.unwrap_or(max_ms),
            p99_ratio: self.p99_ratio_max.unwrap_or(p99_ratio),
        }
    }
}

/// The amount of load, for several commands.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Publishing clients [default: 1 fan-out, 500 fan-in, else 100].
    #[arg(long)]
    pub publishers: Option<u32>,
    /// Subscribing clients, or connecting and disconnecting ones [default: 500 fan-out, 1 fan-in,
    /// 10 shared and retained, 1000 reconnect-storm, 10000 connections, else 100].
    #[arg(long)]
    pub subscribers: Option<u32>,
    /// Topics that the publishers of a fan-out share [default: 1], or retained messages per set
    /// [default: 1000].
    #[arg(long)]
    pub topics: Option<u32>,
    /// Payload length in bytes.
    #[arg(long, default_value_t = 64)]
    pub payload_bytes: u32,
    /// Use persistent sessions (Clean Session 0), which a broker with a store has to store before
    /// it acknowledges.
    #[arg(long)]
    pub keep_sessions: bool,
    /// Closed loop: maximum number of messages in flight per publisher, or of pending subscriptions
    /// per client [default: 16 fan-in, 10 sub, else 100].
    #[arg(long)]
    pub window: Option<u32>,
    /// Closed loop: minimum number of messages that a publisher sends together.
    #[arg(long, default_value_t = 1)]
    pub burst: u32,
    /// Open loop instead of a window: messages per second of all publishers together, or
    /// connections or subscriptions. Latency is measured from the scheduled time.
    #[arg(long, value_name = "PER_SECOND", conflicts_with_all = ["window", "burst"])]
    pub rate: Option<f64>,
    /// Open loop at QoS 0: count dropped messages as violations.
    #[arg(long)]
    pub fail_on_loss: bool,
    /// Write each message and each acknowledgement by itself, so that each is a segment of its own,
    /// as from devices that send one thing at a time.
    #[arg(long)]
    pub segment_each: bool,
    /// How the load is generated and for how long.
    #[command(flatten)]
    pub span: SpanArgs,
}

/// How the load is generated and for how long.
#[derive(Clone, Debug, Args)]
pub struct SpanArgs {
    /// Number of processes that share the clients.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(PROCESSES_MAX)))]
    pub processes: u32,
    /// Number of source addresses, from 127.1.0.1 up; 0 selects as many as necessary, including
    /// ports of connections closed in the last minute, which are still in use.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(SOURCES_MAX)))]
    pub source_addresses: u32,
    /// Seconds of load before the measured span.
    #[arg(long, default_value_t = 0.5)]
    pub warm_up_s: f64,
    /// Seconds of the measured span.
    #[arg(long, default_value_t = 2.0)]
    pub duration_s: f64,
    /// Maximum number of messages published, including the warm-up.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    pub messages_max: u64,
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people.
    Table,
    /// One JSON object per line, for programs.
    Json,
    /// A Markdown table of a comparison: one row per load and figure, one column per broker.
    Markdown,
}

impl LoadArgs {
    /// The workload of these arguments and the scenario, validated.
    pub fn workload(&self, scenario: Scenario, qos: Qos, mqtt: Version) -> Result<Workload> {
        let (publishers, subscribers) = scenario.default_clients();
        let workload = Workload {
            scenario,
            publishers: self.publishers.unwrap_or(publishers),
            subscribers: self.subscribers.unwrap_or(subscribers),
            topics: self.topics.unwrap_or(scenario.default_topics()),
            mqtt,
            qos,
            payload_bytes: self.payload_bytes,
            are_sessions_kept: self.keep_sessions,
            load: match self.rate {
                Some(per_second) => LoadMode::Open { per_second },
                None => LoadMode::Closed {
                    window: self.window.unwrap_or(scenario.default_window()),
                    burst: self.burst,
                },
            },
            loss_fails: self.fail_on_loss,
            is_segment_each: self.segment_each,
        };
        self.span.check()?;
        workload.check()?;
        workload.check_processes(self.span.processes)?;
        Ok(workload)
    }
}

impl TransportArgs {
    /// The transport of these arguments, validated.
    pub fn transport(&self) -> Result<Transport> {
        let path = self.ws_path.as_str();
        let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        if self.ws && !is_path {
            let what =
                format!("--ws-path {path:?} is not a path: a path begins with / and has no blanks");
            return Err(Error::Usage(what));
        }
        if self.tls && self.ca.is_none() {
            return Err(Error::Usage(
                "--tls requires --ca FILE, the authority that issued the broker's certificate (PEM)"
                    .into(),
            ));
        }
        let tls = self.ca.as_ref().map(|authority| TlsSettings {
            authority: authority.clone(),
            server_name: self.tls_name.clone(),
            version: self.tls_version,
            resumes: !self.no_tls_resume,
        });
        Ok(Transport { tls, websocket_path: self.ws.then(|| self.ws_path.clone()) })
    }
}

impl SpanArgs {
    /// Rejects values out of range.
    pub fn check(&self) -> Result<()> {
        for (name, seconds) in [("warm-up", self.warm_up_s), ("span", self.duration_s)] {
            if !(0.0..=SPAN_S_MAX).contains(&seconds) {
                return Err(Error::Usage(format!(
                    "a {name} of {seconds} s is not between 0 and an hour"
                )));
            }
        }
        Ok(())
    }

    /// The settings of a run.
    pub fn settings(
        &self,
        address: LoopbackAddress,
        transport: Transport,
        meter: Option<Meter>,
        workload: &Workload,
    ) -> RunSettings {
        RunSettings {
            address,
            publishers_at: None,
            transport,
            meter,
            warm_up: Duration::from_secs_f64(self.warm_up_s),
            span: Duration::from_secs_f64(self.duration_s),
            messages_max: self.messages_max,
            sources: Sources::new(self.source_addresses, workload.ports()),
            progress: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let run = |address| Cli::try_parse_from(["x", "run", "fan-out", "--address", address]);
        assert!(run("127.0.0.1:1884").is_ok());
        assert!(run("192.0.2.1:1883").is_err());
    }

    fn transport(words: &str) -> std::result::Result<Transport, String> {
        let words = ["x", "run", "fan-out"].into_iter().chain(words.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Run(args) = cli.command else { unreachable!("the command is run") };
        args.target.transport.transport().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_select_the_transport_and_invalid_combinations_are_refused() {
        assert_eq!(transport(""), Ok(Transport::default()));
        let wss = transport("--tls --ca ca.pem --no-tls-resume --ws --ws-path /x").expect("sound");
        assert_eq!(wss.websocket_path.as_deref(), Some("/x"));
        assert!(!wss.tls.expect("TLS").resumes);
        assert!(transport("--tls").expect_err("whom to trust").contains("--ca FILE"));
        assert!(transport("--ca ca.pem").is_err() && transport("--ws-path /x").is_err());
        assert!(transport("--ws --ws-path mqtt").expect_err("no path").contains("begins with /"));
    }
}

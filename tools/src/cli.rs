//! The command line: what can be asked and what the defaults are.

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

/// Load for an MQTT broker on this machine, every delivery verified.
///
/// Exit codes: 0 all messages came once and in order; 1 some did not; 2 the command line makes no
/// sense; 3 there is no result.
#[derive(Debug, Parser)]
#[command(name = "ringmq-bench", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load one broker that is running already.
    Run(RunArgs),
    /// Load a running broker as a published benchmark does, scaled to this machine.
    Suite(SuiteArgs),
    /// Start several brokers in turn, load each alike, and compare them.
    Compare(CompareArgs),
    /// Hold as many connections as asked for, from as many processes as it takes, and say what they
    /// cost.
    #[cfg(target_os = "linux")]
    Million(MillionArgs),
    /// Attack brokers, one way after the other, and say what innocent clients notice of it.
    Hostile(HostileArgs),
    /// Make an authority and a broker's certificate for localhost and 127.0.0.1, for loads over TLS.
    Certificate(CertificateArgs),
    /// One process's share of a run with `--processes`, which starts it.
    #[command(hide = true)]
    Share,
    /// One process's share of `million`, which starts it.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Hold(HoldArgs),
}

/// `certificate`.
#[derive(Debug, Args)]
pub struct CertificateArgs {
    /// Where `ca.pem`, `server.pem` and `server-key.pem` go.
    pub folder: PathBuf,
    /// The broker's key, PEM (PKCS #8), such as one by `openssl genrsa`; without it a new one, ECDSA
    /// P-256.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// `million`.
#[cfg(target_os = "linux")]
#[derive(Debug, Args)]
pub struct MillionArgs {
    /// Connections, each with a subscription of its own.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub connections: u32,
    /// The broker: `ringmq`, or NAME=COMMAND, in which {port} and {dir} (an empty folder) stand for
    /// what it is given.
    #[arg(long, default_value = "ringmq")]
    pub broker: String,
    /// The broker binary that `ringmq` stands for.
    #[arg(long, default_value = "target/release/broker")]
    pub ringmq_binary: PathBuf,
    /// The cores the broker runs on, separated by commas.
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [0, 1])]
    pub broker_cores: Vec<usize>,
    /// Keep Alive of each connection, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(2..))]
    pub keep_alive_s: u16,
    /// Seconds over which the broker's CPU is measured while nothing but PINGREQs comes.
    #[arg(long, default_value_t = 60.0)]
    pub idle_s: f64,
    /// Messages a second to connections drawn at random.
    #[arg(long, default_value_t = 1_000.0)]
    pub rate: f64,
    /// For how many seconds.
    #[arg(long, default_value_t = 20.0)]
    pub publish_s: f64,
    /// How to print the result.
    #[arg(long, default_value = "table")]
    pub format: Format,
}

/// `hold`.
#[cfg(target_os = "linux")]
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// The broker, within 127.0.0.0/8.
    #[arg(long)]
    pub address: LoopbackAddress,
    /// The first address to connect from; more follow it.
    #[arg(long)]
    pub source: std::net::Ipv4Addr,
    /// Number of the first client.
    #[arg(long)]
    pub first: u32,
    /// How many clients.
    #[arg(long)]
    pub clients: u32,
    /// Keep Alive in seconds.
    #[arg(long)]
    pub keep_alive_s: u16,
}

/// The running broker that is loaded, and where figures go.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// The broker, within 127.0.0.0/8.
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub address: LoopbackAddress,
    /// What is spoken there.
    #[command(flatten)]
    pub transport: TransportArgs,
    /// The broker's process, to measure its CPU time and memory.
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,
    /// The cores to run the generator on, separated by commas.
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// How to print the result.
    #[arg(long, default_value = "table")]
    pub format: Format,
    /// Fail if there are fewer deliveries a second, or whatever else the scenario counts.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate_min: Option<f64>,
    /// Fail if the 99th percentile of latency is higher.
    #[arg(long, value_name = "MILLISECONDS")]
    pub p99_ms_max: Option<f64>,
    /// A picture to write: percentiles of latency, and throughput over time, as SVG.
    #[arg(long, value_name = "FILE.svg")]
    pub picture: Option<PathBuf>,
}

/// What clients speak beneath MQTT.
#[derive(Clone, Debug, Args)]
pub struct TransportArgs {
    /// Speak TLS, with --ws beneath WebSocket.
    #[arg(long)]
    pub tls: bool,
    /// PEM file of the authority that has to have signed the broker's certificate, such as the
    /// `ca.pem` of `certificate`.
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub ca: Option<PathBuf>,
    /// The name that the broker's certificate has to be for.
    #[arg(long, value_name = "NAME", default_value = "localhost", requires = "tls")]
    pub tls_name: String,
    /// The one version of TLS to speak [default: the highest that the broker speaks].
    #[arg(long, value_name = "VERSION", requires = "tls")]
    pub tls_version: Option<TlsVersion>,
    /// Make every handshake a full one; by default clients that come back show a ticket of an earlier
    /// connection.
    #[arg(long, requires = "tls")]
    pub no_tls_resume: bool,
    /// Speak WebSocket.
    #[arg(long)]
    pub ws: bool,
    /// Where the broker has it.
    #[arg(long, value_name = "PATH", default_value = "/mqtt", requires = "ws")]
    pub ws_path: String,
}

/// `suite`.
#[derive(Debug, Args)]
pub struct SuiteArgs {
    /// The benchmark.
    pub benchmark: Published,
    /// The part of its clients, at the rate of each, that this machine gets.
    #[arg(long, default_value_t = 0.01)]
    pub scale: f64,
    /// The broker.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How it is made and for how long; the published ones last half an hour.
    #[command(flatten)]
    pub span: SpanArgs,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The shape of the load.
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
    /// How much of it.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// A broker: `ringmq`, `mosquitto`, `rumqttd`, `rmqtt`, `aedes`, or NAME=COMMAND, in which {port} and {dir} (an empty
    /// folder) stand for what it is given. Repeat for more; the first is what ratios refer to.
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
    /// Rounds, in each of which every broker meets every load once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// The cores brokers run on, separated by commas.
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [0])]
    pub broker_cores: Vec<usize>,
    /// The cores the generator, one thread, runs on; they may be the brokers' own.
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [1])]
    pub generator_cores: Vec<usize>,
    /// What is spoken: ringmq and mosquitto are set up for it, with a certificate that is made for
    /// the comparison. In NAME=COMMAND {certificates} stands for the folder with it.
    #[command(flatten)]
    pub transport: TransportArgs,
    /// The port brokers are told to listen on, on 127.0.0.1; 0 is one that is free.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// The broker binary that `ringmq` stands for.
    #[arg(long, default_value = "target/release/broker")]
    pub ringmq_binary: PathBuf,
    /// Where `tools/peers/setup` puts brokers.
    #[arg(long, default_value = "target/peers")]
    pub peers_folder: PathBuf,
    /// Deliveries a second at which latency is compared: another run of each load whose messages
    /// go between clients, in open loop at that rate.
    #[arg(long, value_name = "DELIVERIES_PER_SECOND")]
    pub latency_rate: Option<f64>,
    /// Loads in open loop (--latency-rate, --rate): broker and generator run before everything else on
    /// their cores (SCHED_FIFO, which needs CAP_SYS_NICE), so that latencies are theirs and not those of
    /// whatever else the machine does.
    #[arg(long)]
    pub real_time: bool,
    /// Mosquitto's `max_inflight_messages`; 0 is no limit, 20 is its own default.
    #[arg(long, default_value_t = 0)]
    pub mosquitto_inflight: u32,
    /// How much load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// How to print the results.
    #[arg(long, default_value = "table")]
    pub format: Format,
}

/// `hostile`.
#[derive(Clone, Debug, Args)]
pub struct HostileArgs {
    /// A broker: `ringmq`, `mosquitto`. Repeat for more. The aim is for ringmq.
    #[arg(long = "broker", value_name = "BROKER", default_values = ["ringmq", "mosquitto"])]
    pub brokers: Vec<String>,
    /// The broker binary that `ringmq` stands for.
    #[arg(long, default_value = "target/release/broker")]
    pub ringmq_binary: PathBuf,
    /// Attacks whose names begin like this, separated by commas [default: all].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// What clients make a broker hold, kind by kind, in place of what they make it do: resident memory
    /// under a bound of 64 MiB.
    #[arg(long)]
    pub memory: bool,
    /// Name the attacks, and do none.
    #[arg(long)]
    pub list: bool,
    /// Smaller attacks, and not all of them: whether the broker and all connections survive, with
    /// bounds on time that hold on a machine with other work.
    #[arg(long)]
    pub short: bool,
    /// The core the broker runs on, or several, separated by commas.
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [0])]
    pub broker_cores: Vec<usize>,
    /// The cores that attackers and innocent clients run on, separated by commas.
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [1])]
    pub generator_cores: Vec<usize>,
    /// Innocent clients run before everything else on their core, attackers included (SCHED_FIFO), and
    /// the broker before most on its own (nice -20, as what never sleeps must not be real-time). It
    /// needs CAP_SYS_NICE.
    #[arg(long)]
    pub priority: bool,
    /// Seconds in which innocent clients are watched before an attack [default: 1; 0.2 with --short].
    #[arg(long)]
    pub baseline_s: Option<f64>,
    /// Seconds of an attack that has no end of its own [default: 2; 5 with --memory; 0.5 with --short].
    #[arg(long)]
    pub attack_s: Option<f64>,
    /// Seconds that an answer is waited for, and what an attack left is watched.
    #[arg(long, default_value_t = 30.0)]
    pub patience_s: f64,
    /// The most milliseconds that a message or ping may take [default: 20; 2000 with --short].
    #[arg(long, value_name = "MILLISECONDS")]
    pub max_ms: Option<f64>,
    /// The most by which the 99th percentile may rise [default: 2; no bound with --short].
    #[arg(long, value_name = "FACTOR")]
    pub p99_ratio_max: Option<f64>,
    /// How to print the results.
    #[arg(long, default_value = "table")]
    pub format: Format,
}

/// What innocent clients may notice of an attack.
#[derive(Clone, Copy, Debug)]
pub struct HostileBounds {
    /// The longest a message or ping may take.
    pub max_ms: f64,
    /// What the 99th percentile may be multiplied by.
    pub p99_ratio: f64,
}

impl HostileArgs {
    /// Refuse what is out of bounds.
    pub fn check(&self) -> Result<()> {
        let spans = [self.baseline_s.unwrap_or(0.0), self.attack_s.unwrap_or(0.0), self.patience_s];
        match spans.iter().find(|seconds| !(0.0..=SPAN_S_MAX).contains(*seconds)) {
            Some(seconds) => Err(Error::Usage(format!("{seconds} s is not within an hour"))),
            None => Ok(()),
        }
    }

    /// How long an attack lasts that has no end of its own.
    pub fn attack_span(&self) -> Duration {
        Duration::from_secs_f64(match (self.attack_s, self.short, self.memory) {
            (Some(seconds), ..) => seconds,
            (None, true, _) => 0.5,
            (None, false, true) => 5.0,
            (None, false, false) => 2.0,
        })
    }

    /// How long innocent clients are watched before an attack.
    pub fn baseline(&self) -> Duration {
        let seconds = self.baseline_s.unwrap_or(if self.short { 0.2 } else { 1.0 });
        Duration::from_secs_f64(seconds)
    }

    /// How long they are watched once an attack is over, at least.
    pub fn aftermath(&self) -> Duration {
        Duration::from_millis(if self.short { 300 } else { 1_000 })
    }

    /// As given, or what the form of the run says.
    pub fn bounds(&self) -> HostileBounds {
        let (max_ms, p99_ratio) = if self.short { (2_000.0, f64::INFINITY) } else { (20.0, 2.0) };
        HostileBounds {
            max_ms: self.max_ms.unwrap_or(max_ms),
            p99_ratio: self.p99_ratio_max.unwrap_or(p99_ratio),
        }
    }
}

/// How much load, for both commands.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Publishing clients [default: 1 fan-out, 500 fan-in, else 100].
    #[arg(long)]
    pub publishers: Option<u32>,
    /// Subscribing clients, or those that come and go [default: 500 fan-out, 1 fan-in, 10 shared and
    /// retained, 1000 reconnect-storm, 10000 connections, else 100].
    #[arg(long)]
    pub subscribers: Option<u32>,
    /// Topics that the publishers of a fan-out share out [default: 1], or retained messages of a set
    /// [default: 1000].
    #[arg(long)]
    pub topics: Option<u32>,
    /// Length of the payload.
    #[arg(long, default_value_t = 64)]
    pub payload_bytes: u32,
    /// Clients ask for sessions that are kept (Clean Session 0), which a broker with a store has to
    /// store before it acknowledges.
    #[arg(long)]
    pub keep_sessions: bool,
    /// Closed loop: messages of each publisher, or subscriptions of each client, under way at most
    /// [default: 16 fan-in, 10 sub, else 100].
    #[arg(long)]
    pub window: Option<u32>,
    /// Closed loop: messages of a publisher sent together at least.
    #[arg(long, default_value_t = 1)]
    pub burst: u32,
    /// Open loop: messages a second from all publishers together, or connections or subscriptions,
    /// instead of a window. Latency counts from when each was due.
    #[arg(long, value_name = "PER_SECOND", conflicts_with_all = ["window", "burst"])]
    pub rate: Option<f64>,
    /// Open loop at QoS 0: hold the broker to deliver what it is free to drop.
    #[arg(long)]
    pub fail_on_loss: bool,
    /// How it is made and for how long.
    #[command(flatten)]
    pub span: SpanArgs,
}

/// How the load is made and for how long.
#[derive(Clone, Debug, Args)]
pub struct SpanArgs {
    /// Processes to share the clients out to.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(PROCESSES_MAX)))]
    pub processes: u32,
    /// Addresses to connect from, 127.1.0.1 and up; 0 is as many as the connections need, with
    /// those closed in the last minute, whose ports are still taken.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(SOURCES_MAX)))]
    pub source_addresses: u32,
    /// Seconds of load before the measured span.
    #[arg(long, default_value_t = 0.5)]
    pub warm_up_s: f64,
    /// Seconds of the measured span.
    #[arg(long, default_value_t = 2.0)]
    pub duration_s: f64,
    /// Messages published at most, warm-up included.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    pub messages_max: u64,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: one object a line.
    Json,
    /// For a README, of a comparison: a row for each load and figure, a column for each broker.
    Markdown,
}

impl LoadArgs {
    /// The load these arguments and the scenario come to, checked.
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
        };
        self.span.check()?;
        workload.check()?;
        workload.check_processes(self.span.processes)?;
        Ok(workload)
    }
}

impl TransportArgs {
    /// What these arguments come to, checked.
    pub fn transport(&self) -> Result<Transport> {
        let path = self.ws_path.as_str();
        let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        if self.ws && !is_path {
            let what = format!("--ws-path {path:?} is no path: it begins with / and has no blanks");
            return Err(Error::Usage(what));
        }
        if self.tls && self.ca.is_none() {
            return Err(Error::Usage(
                "--tls needs --ca FILE, the authority that signed the broker's certificate (PEM)"
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
    /// Refuse what is out of bounds.
    pub fn check(&self) -> Result<()> {
        for (name, seconds) in [("warm-up", self.warm_up_s), ("span", self.duration_s)] {
            if !(0.0..=SPAN_S_MAX).contains(&seconds) {
                return Err(Error::Usage(format!("a {name} of {seconds} s is not within an hour")));
            }
        }
        Ok(())
    }

    /// What a run of these needs.
    pub fn settings(
        &self,
        address: LoopbackAddress,
        transport: Transport,
        meter: Option<Meter>,
        workload: &Workload,
    ) -> RunSettings {
        RunSettings {
            address,
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
    fn the_command_line_holds_together() {
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
        let Command::Run(args) = cli.command else { unreachable!("it says run") };
        args.target.transport.transport().map_err(|error| error.to_string())
    }

    #[test]
    fn transports_are_what_the_flags_say_and_nonsense_is_refused() {
        assert_eq!(transport(""), Ok(Transport::default()));
        let wss = transport("--tls --ca ca.pem --no-tls-resume --ws --ws-path /x").expect("sound");
        assert_eq!(wss.websocket_path.as_deref(), Some("/x"));
        assert!(!wss.tls.expect("TLS").resumes);
        assert!(transport("--tls").expect_err("whom to trust").contains("--ca FILE"));
        assert!(transport("--ca ca.pem").is_err() && transport("--ws-path /x").is_err());
        assert!(transport("--ws --ws-path mqtt").expect_err("no path").contains("begins with /"));
    }
}

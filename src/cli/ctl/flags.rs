//! The command line of `broker ctl`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::drain::{DrainFlags, RebalanceFlags};
use super::target::Target;

/// How the admin interface is reached, and how its answers are shown.
#[derive(Clone, Debug, Args)]
pub struct InterfaceFlags {
    /// Where the admin interface is: `unix:PATH`, `http://HOST:PORT` or `https://HOST:PORT`. The default is the
    /// environment variable RINGMQCTL_AT, then what the configuration says, then the socket of the system's service.
    #[arg(long, value_name = "AT", global = true)]
    pub at: Option<Target>,

    /// File with a token, for TCP; the environment variable RINGMQCTL_TOKEN is a token itself.
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,

    /// PEM file of the certificate authorities of an `https` interface; the default is those of the system.
    #[arg(long, value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,

    /// PEM file with a client certificate and its key, for interfaces that ask for one.
    #[arg(long, value_name = "FILE", global = true)]
    pub identity: Option<PathBuf>,

    /// Send a token over plain `http` to another machine, where others on the way could read it.
    #[arg(long, global = true)]
    pub insecure: bool,

    /// Print the answers of the interface as JSON, one a line.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Flags of `broker ctl`.
#[derive(Clone, Debug, Args)]
pub struct CtlFlags {
    /// How the admin interface is reached.
    #[command(flatten)]
    pub interface: InterfaceFlags,

    /// The command.
    #[command(subcommand)]
    pub what: CtlCommand,
}

/// Flags of `broker cluster`, which is short for `broker ctl cluster`.
#[derive(Clone, Debug, Args)]
pub struct ClusterFlags {
    /// How the admin interface is reached.
    #[command(flatten)]
    pub interface: InterfaceFlags,

    /// The command.
    #[command(subcommand)]
    pub what: ClusterCommand,
}

impl From<ClusterFlags> for CtlFlags {
    fn from(ClusterFlags { interface, what }: ClusterFlags) -> Self {
        Self { interface, what: CtlCommand::Cluster { what } }
    }
}

/// Commands of `broker ctl`.
#[derive(Clone, Debug, Subcommand)]
pub enum CtlCommand {
    /// Show the broker at a glance.
    Status,
    /// Check whether the broker is ready for clients; exit code 1 if not.
    Health {
        /// Check only whether every core takes turns.
        #[arg(long)]
        live: bool,

        /// Check also whether every bridge that should be connected is.
        #[arg(long, conflicts_with = "live")]
        bridges: bool,
    },
    /// Show the cores, and the clients with the most of something; refreshed on a terminal.
    Top {
        /// What the clients have most of.
        #[arg(long, value_name = "WHAT", default_value = "queued")]
        by: TopBy,

        /// Number of clients.
        #[arg(short, value_name = "N", default_value_t = 20,
              value_parser = clap::value_parser!(u16).range(1..=100))]
        n: u16,

        /// Seconds between two refreshes.
        #[arg(long, value_name = "SECONDS", default_value_t = 2,
              value_parser = clap::value_parser!(u64).range(1..=3_600))]
        interval: u64,

        /// Print once, also on a terminal.
        #[arg(long)]
        once: bool,
    },
    /// List clients.
    Clients(ClientsFlags),
    /// Show one client.
    Client {
        /// Client Identifier.
        id: String,

        /// Show its subscriptions, queue or messages in flight instead.
        #[arg(long, value_name = "PART")]
        show: Option<ClientPart>,

        /// Show so many bytes of the payloads in the queue.
        #[arg(long, value_name = "BYTES", requires = "show")]
        payload: Option<u32>,
    },
    /// End the connection of a client; the session stays.
    Kick {
        /// Client Identifier.
        id: String,

        /// Reason, for the audit log.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Manage bans of users, clients and networks.
    Ban {
        /// The command.
        #[command(subcommand)]
        what: BanCommand,
    },
    /// Manage users of the user database. Passwords are typed, or read from standard input.
    User {
        /// The command.
        #[command(subcommand)]
        what: UserCommand,
    },
    /// Manage access rules of the user database.
    Rule {
        /// The command.
        #[command(subcommand)]
        what: RuleCommand,
    },
    /// Show who would get a message on a topic; without one, list subscriptions.
    Subs {
        /// Topic Name.
        topic: Option<String>,

        /// Number of subscriptions at most.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
    },
    /// List, show and delete retained messages.
    Retained {
        /// The command.
        #[command(subcommand)]
        what: RetainedCommand,
    },
    /// Publish a message.
    Publish {
        /// Topic Name.
        topic: String,

        /// Payload; `-` reads it from standard input.
        #[arg(default_value = "", allow_hyphen_values = true)]
        payload: String,

        /// QoS.
        #[arg(long, value_name = "QOS", default_value_t = 0,
              value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,

        /// Retain the message.
        #[arg(long)]
        retain: bool,
    },
    /// Manage sessions.
    Session {
        /// The command.
        #[command(subcommand)]
        what: SessionCommand,
    },
    /// Show the bridges: whether they are connected, and what they have carried.
    Bridges,
    /// Show one bridge, and give it commands.
    Bridge {
        /// The command.
        #[command(subcommand)]
        what: BridgeCommand,
    },
    /// Show the cluster as the broker sees it.
    Cluster {
        /// The command.
        #[command(subcommand)]
        what: ClusterCommand,
    },
    /// Show the webhooks: what they have sent and dropped, and what waits.
    Webhooks,
    /// Show the configuration that is in force, with the origin of each value.
    Config,
    /// Read the configuration and the files that it names again.
    Reload {
        /// Report what would change, and change nothing.
        #[arg(long)]
        dry_run: bool,

        /// Disconnect the clients of listeners that are removed; without this flag they stay.
        #[arg(long, conflicts_with = "dry_run")]
        close: bool,

        /// Drop the messages that wait for bridges that are removed; without this flag they are kept.
        #[arg(long, conflicts_with = "dry_run")]
        drop_queues: bool,
    },
    /// Change the log level until the next start.
    Log {
        /// Log level.
        level: Level,

        /// Return to the configured level after so many seconds.
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u32>,
    },
    /// Show what clients send and receive, as it happens.
    Trace(TraceFlags),
    /// Refuse new clients, for example before a stop. A node of a cluster is also emptied; elsewhere, clients that are
    /// connected stay.
    Drain(DrainFlags),
    /// In a cluster: send clients of this node to nodes that have fewer, until it has its share.
    Rebalance(RebalanceFlags),
    /// Manage the file of tokens on this machine. A running broker reads it again at a reload.
    Token {
        /// The file, instead of `admin.access.tokens_file` of the configuration.
        #[arg(long, value_name = "FILE", global = true)]
        file: Option<PathBuf>,

        /// The command.
        #[command(subcommand)]
        what: TokenCommand,
    },
    /// Send any request, and print the answer.
    Api {
        /// Method, such as GET.
        method: String,

        /// Path, such as `/api/v1/status`; `status` is short for it.
        path: String,

        /// Content in JSON; `-` reads it from standard input.
        #[arg(allow_hyphen_values = true)]
        content: Option<String>,
    },
}

/// Level of a log event.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Level {
    /// The broker stops, or data is lost.
    Error,
    /// An operator should look at this.
    Warn,
    /// Start, stop, and clients that come, leave or are refused.
    Info,
    /// Every line about clients, without the limit on their number.
    Debug,
    /// Packets, without payloads and passwords.
    Trace,
}

/// The names of the levels, from the one with the fewest lines.
pub fn level_names() -> Vec<String> {
    let values = Level::value_variants().iter().filter_map(Level::to_possible_value);
    values.map(|value| value.get_name().to_owned()).collect()
}

/// The roles of users of the interface.
pub const ROLES: [&str; 3] = ["read", "operate", "admin"];

fn role(text: &str) -> Result<String, String> {
    match ROLES.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not a role: read, operate or admin")),
    }
}

/// What the clients of `top` have most of.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum TopBy {
    /// Messages in the queue.
    Queued,
    /// Dropped messages.
    Dropped,
    /// Messages in flight.
    Inflight,
    /// Bytes in the outbox.
    Outbox,
    /// Bytes received from the client.
    BytesIn,
    /// Bytes sent to the client.
    BytesOut,
}

/// Filters of `clients`.
#[derive(Clone, Debug, Args)]
pub struct ClientsFlags {
    /// Only connected, or only disconnected ones.
    #[arg(long, value_name = "STATE")]
    pub state: Option<ClientState>,

    /// Only those of this user.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Only those whose Client Identifiers begin so.
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,

    /// Only those from this address or network.
    #[arg(long, value_name = "ADDR")]
    pub address: Option<String>,

    /// Only those of the listener with this number.
    #[arg(long, value_name = "N")]
    pub listener: Option<u16>,

    /// Only those with this protocol version: 3.1, 3.1.1 or 5.0.
    #[arg(long, value_name = "VERSION")]
    pub protocol: Option<String>,

    /// Only those with at least so many queued messages.
    #[arg(long, value_name = "N")]
    pub queued_min: Option<u64>,

    /// Only those with at least so many dropped messages.
    #[arg(long, value_name = "N")]
    pub dropped_min: Option<u64>,

    /// Number of clients at most.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u64,
}

/// State of a client.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ClientState {
    /// With a connection.
    Connected,
    /// Without one.
    Disconnected,
}

/// A part of a client.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ClientPart {
    /// Subscriptions.
    Subscriptions,
    /// Queued messages.
    Queue,
    /// Messages in flight.
    Inflight,
}

/// Commands for bans.
#[derive(Clone, Debug, Subcommand)]
pub enum BanCommand {
    /// List all bans.
    List,
    /// Ban a user, a client or a network.
    Add {
        /// Kind of what is banned.
        kind: BanKind,

        /// User Name, Client Identifier, or network such as 192.0.2.0/24.
        value: String,

        /// Seconds until the ban ends; without it, the ban stays until it is removed.
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,

        /// Reason, for those who read the list.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Remove a ban.
    Remove {
        /// Kind of what is banned.
        kind: BanKind,

        /// User Name, Client Identifier, or network.
        value: String,
    },
}

/// Commands for users of the database.
#[derive(Clone, Debug, Subcommand)]
pub enum UserCommand {
    /// List users.
    List {
        /// Number of users at most.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
    },
    /// Show a user.
    Show {
        /// User Name.
        name: String,
    },
    /// Add a user.
    Add {
        /// User Name.
        name: String,

        /// Group of the access rules that the user is a member of; may be repeated.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// Change the password of a user.
    Password {
        /// User Name.
        name: String,
    },
    /// Change the groups of a user: those that are named, and no others.
    Groups {
        /// User Name.
        name: String,

        /// Groups of the access rules.
        groups: Vec<String>,
    },
    /// Remove a user, and disconnect its clients.
    Remove {
        /// User Name.
        name: String,
    },
}

/// Commands for access rules of the database.
#[derive(Clone, Debug, Subcommand)]
pub enum RuleCommand {
    /// List rules in the order in which they are asked.
    List {
        /// Number of rules at most.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
    },
    /// Add a rule.
    Add {
        /// The clients that the rule is for, such as "user alice", "group meters" or everyone.
        clients: String,

        /// The rule, such as "allow publish meters/%u/#".
        rule: String,

        /// Ask the rule before the one with this number; without it, last.
        #[arg(long, value_name = "NUMBER")]
        before: Option<u32>,
    },
    /// Replace a rule by another one.
    Change {
        /// Number of the rule.
        number: u32,

        /// The clients that the rule is for.
        clients: String,

        /// The rule.
        rule: String,
    },
    /// Remove a rule.
    Remove {
        /// Number of the rule.
        number: u32,
    },
}

/// What a ban is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BanKind {
    /// A user.
    User,
    /// A client.
    Client,
    /// A network.
    Network,
}

/// Commands for retained messages.
#[derive(Clone, Debug, Subcommand)]
pub enum RetainedCommand {
    /// List retained messages.
    List {
        /// Topic Filter.
        filter: Option<String>,

        /// Number of messages at most.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
    },
    /// Show a retained message.
    Get {
        /// Topic Name.
        topic: String,
    },
    /// Delete a retained message.
    Delete {
        /// Topic Name.
        topic: String,
    },
    /// Delete all retained messages that a filter matches.
    Clear {
        /// Topic Filter.
        filter: String,

        /// Number of messages at most.
        #[arg(long, value_name = "N")]
        max: u64,
    },
}

/// Commands for sessions.
#[derive(Clone, Debug, Subcommand)]
pub enum SessionCommand {
    /// End a session: its connection, its subscriptions and its queued messages.
    Delete {
        /// Client Identifier.
        id: String,
    },
    /// End one subscription of a session.
    Unsubscribe {
        /// Client Identifier.
        id: String,

        /// Topic Filter.
        filter: String,
    },
}

/// Commands for the cluster.
#[derive(Clone, Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show whether this node is ready, its members, and what has crossed between them.
    Status {
        /// Show only the members, as a table.
        #[arg(long)]
        members: bool,
    },
    /// Free the number of a node that is gone for good. Refused while the node is a member.
    Forget {
        /// Name of the node.
        name: String,
    },
}

/// Commands for bridges.
#[derive(Clone, Debug, Subcommand)]
pub enum BridgeCommand {
    /// List bridges.
    List,
    /// Show a bridge.
    Show {
        /// Name of the bridge.
        name: String,
    },
    /// Connect a bridge that is stopped.
    Start {
        /// Name of the bridge.
        name: String,
    },
    /// Disconnect a bridge until it is started, or the broker is. Messages are queued meanwhile.
    Stop {
        /// Name of the bridge.
        name: String,
    },
    /// Make a new connection at once.
    Reconnect {
        /// Name of the bridge.
        name: String,
    },
    /// End the session at the far broker, and begin a new one.
    ResetSession {
        /// Name of the bridge.
        name: String,
    },
    /// Drop the messages that wait for the bridge.
    DropQueue {
        /// Name of the bridge.
        name: String,
    },
}

/// Filters of `trace`.
#[derive(Clone, Debug, Args)]
pub struct TraceFlags {
    /// Only this Client Identifier.
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,

    /// Only messages on topics that this filter matches.
    #[arg(long, value_name = "FILTER")]
    pub topic: Option<String>,

    /// Only connections from this address.
    #[arg(long, value_name = "ADDR")]
    pub address: Option<String>,

    /// Show so many bytes of each payload.
    #[arg(long, value_name = "BYTES")]
    pub payload: Option<u32>,

    /// Seconds until the trace ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub seconds: u32,
}

/// Commands for the file of tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token, add its hash to the file, and print the token: it is stored nowhere else.
    Add {
        /// What those who have the token may do: read, operate or admin.
        #[arg(value_parser = role)]
        role: String,

        /// Name of the token. A token with this name is replaced.
        name: String,
    },
    /// Remove a token from the file; exit code 1 if there is none.
    Remove {
        /// Name of the token.
        name: String,
    },
}

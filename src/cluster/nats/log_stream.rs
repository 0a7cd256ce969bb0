//! The streams of a node's log: `RQ_CLUSTER_LOG_NODE`, followed by an incarnation, on the subject `rq.CLUSTER.log.NODE.INCARNATION`.
//!
//! A stream that was sealed is never written again; the node continues with the next incarnation. Who takes a sealed stream over
//! purges its pages and leaves the seal, so that its node finds it whenever it returns.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType, Stream};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::options::{self, CarrierOptions};
use super::{Internal, bucket};
use crate::cluster::ship::page::{self, Header, PAGE_BYTES_MAX};
use crate::cluster::ship::{Appended, LOOK_MAX, Look};

/// Time for an answer to a question, or to an append. An election takes up to seven seconds; what is asked meanwhile is asked again.
const ANSWER: Duration = Duration::from_secs(2);

/// Time in which the next page of a stream that is read has to come.
const NEXT_PAGE: Duration = Duration::from_secs(30);

/// Pages that a reader has asked for are some hundreds.
const READ_AHEAD_MAX: usize = 4_096;

/// Servers that have a stream, where there are as many.
pub const COPIES: usize = 3;

/// Bytes of the headers that NATS counts as part of a message.
const NATS_HEADERS_MAX: i32 = 1_024;

/// The server of the streams: a connection of its own, so that pages and lanes do not wait for each other.
#[derive(Debug)]
pub struct LogServer {
    client: Client,
    context: Context,
    cluster: String,
    node: String,
    servers_expected: usize,
    told: mpsc::UnboundedReceiver<Internal>,
}

/// One incarnation of the stream.
#[derive(Clone, Debug)]
pub struct LogStream {
    context: Context,
    stream: Stream,
    subject: String,
    /// Its name.
    pub name: String,
    /// Its incarnation, from 1.
    pub incarnation: u64,
    /// Servers that have it.
    pub copies: usize,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl LogServer {
    /// Begins to connect. A server that cannot be reached is awaited, and is no error.
    ///
    /// # Errors
    ///
    /// An address or a file cannot be used; the text says which one.
    pub async fn connect(options: &CarrierOptions) -> Result<Self, String> {
        let (teller, told) = mpsc::unbounded_channel();
        let (servers, connect) = options::prepare(options, teller).await?;
        let servers_expected = options.servers_expected.max(servers.len());
        // More than a consumer has under way, as nothing repeats a page that is dropped here.
        let connect = connect.subscription_capacity(READ_AHEAD_MAX);
        let client = connect.connect(servers).await.map_err(text)?;
        let context =
            ContextBuilder::new().timeout(ANSWER).ack_timeout(ANSWER).build(client.clone());
        let (cluster, node) = (options.me.cluster.clone(), options.me.name.clone());
        Ok(Self { client, context, cluster, node, servers_expected, told })
    }

    /// Waits until the connection was made, or made again.
    pub async fn connected(&mut self) {
        loop {
            match self.told.recv().await {
                Some(Internal::Connected) => return,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Leaves the server for the next one: it does not answer.
    pub async fn force_reconnect(&self) {
        let _ = timeout(ANSWER, self.client.force_reconnect()).await;
    }

    fn subject(&self, incarnation: &str) -> String {
        format!("rq.{}.log.{}.{incarnation}", self.cluster, self.node)
    }

    fn name(&self, incarnation: u64) -> String {
        format!("RQ_{}_LOG_NODE_{}_{incarnation}", self.cluster, self.node)
    }

    /// The incarnations of which there is a stream, ascending.
    ///
    /// # Errors
    ///
    /// The engine does not answer, or refuses.
    pub async fn incarnations(&self) -> Result<Vec<u64>, String> {
        let question = json!({ "subject": self.subject("*") });
        let answer: Value = self.context.request("STREAM.NAMES", &question).await.map_err(text)?;
        if let Some(error) = answer.get("error") {
            return Err(error["description"].as_str().unwrap_or("an error").to_owned());
        }
        let names = answer["streams"].as_array().into_iter().flatten();
        let incarnation = |name: &Value| {
            let incarnation = name.as_str()?.rsplit('_').next()?.parse().ok()?;
            (name.as_str()? == self.name(incarnation)).then_some(incarnation)
        };
        let mut found: Vec<u64> = names.filter_map(incarnation).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Opens a stream, or makes it.
    ///
    /// # Errors
    ///
    /// The engine does not answer, or refuses.
    pub async fn open(&self, incarnation: u64) -> Result<LogStream, String> {
        let (name, subject) = (self.name(incarnation), self.subject(&incarnation.to_string()));
        let servers = self.client.server_info().connect_urls.len().max(self.servers_expected);
        let config = Config {
            name: name.clone(),
            description: Some("The log of a node of ringmq".to_owned()),
            subjects: vec![subject.clone()],
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            max_message_size: PAGE_BYTES_MAX as i32 + NATS_HEADERS_MAX,
            num_replicas: if servers >= 3 { COPIES } else { 1 },
            deny_delete: true,
            ..Config::default()
        };
        let (mut copies, stream) = match self.context.get_stream(&name).await {
            Ok(stream) => (stream.cached_info().config.num_replicas, stream),
            Err(_) => {
                let wanted = config.num_replicas;
                (wanted, self.context.create_stream(config.clone()).await.map_err(text)?)
            }
        };
        if copies < config.num_replicas {
            // The engine had fewer servers when the stream was made.
            let more =
                Config { num_replicas: config.num_replicas, ..stream.cached_info().config.clone() };
            match self.context.update_stream(more).await {
                Ok(info) => copies = info.config.num_replicas,
                Err(error) => tracing::debug!(%error, "cluster: a stream cannot have more copies"),
            }
        }
        if stream.cached_info().config.subjects != [subject.clone()] {
            return Err(format!(
                "the stream {name} has another subject than {subject}; rename the node or the cluster"
            ));
        }
        let context = self.context.clone();
        Ok(LogStream { context, stream, subject, name, incarnation, copies })
    }

    /// Removes a stream.
    ///
    /// # Errors
    ///
    /// The engine does not answer, or refuses.
    pub async fn remove(&self, incarnation: u64) -> Result<(), String> {
        self.context.delete_stream(self.name(incarnation)).await.map(drop).map_err(text)
    }

    /// Whether a member of this node's name that runs on another store renews its lease. Takes some ten seconds where
    /// there is such a member.
    ///
    /// # Errors
    ///
    /// The engine does not answer, or its bucket cannot be read.
    pub async fn has_rival(&self, store: u64) -> Result<bool, String> {
        bucket::has_rival(&self.context, &format!("RQ_{}", self.cluster), &self.node, store).await
    }
}

impl LogStream {
    /// The sequences of the first and the last message. Without messages, the first one is after the last one.
    ///
    /// # Errors
    ///
    /// The engine does not answer, or refuses.
    pub async fn extent(&self) -> Result<(u64, u64), String> {
        let state = self.stream.get_info().await.map_err(text)?.state;
        Ok(match state.messages {
            0 => (state.last_sequence + 1, state.last_sequence),
            _ => (state.first_sequence, state.last_sequence),
        })
    }

    /// A message, from the leader of the stream.
    ///
    /// # Errors
    ///
    /// There is no such message, or the engine does not answer.
    pub async fn message(&self, sequence: u64) -> Result<Bytes, String> {
        let message = self.stream.get_raw_message(sequence).await.map_err(text)?;
        Ok(message.payload)
    }

    /// What a message is; none if it is no page.
    ///
    /// # Errors
    ///
    /// There is no such message, or the engine does not answer.
    pub async fn header(&self, sequence: u64) -> Result<Option<Header>, String> {
        let message = self.message(sequence).await?;
        Ok(page::read(&message).ok().map(|(header, _)| header))
    }

    /// Reads messages in order, up to `last`, which is there.
    ///
    /// # Errors
    ///
    /// The engine does not answer, or `each` fails.
    pub async fn read(
        &self,
        first: u64,
        last: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        if first > last {
            return Ok(());
        }
        let config = pull::OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first },
            ..pull::OrderedConfig::default()
        };
        let consumer = self.stream.create_consumer(config).await.map_err(text)?;
        let mut messages = consumer.messages().await.map_err(text)?;
        loop {
            let next = timeout(NEXT_PAGE, messages.next()).await;
            let next = next.map_err(|_| format!("no page of the stream {} comes", self.name))?;
            let message = next.ok_or("the stream has ended")?.map_err(text)?;
            let sequence = message.info().map_err(text)?.stream_sequence;
            each(&message.payload)?;
            if sequence >= last {
                return Ok(());
            }
        }
    }

    /// Hands a page over that must get this sequence, and returns what gives the answer.
    pub async fn append(
        &self,
        sequence: u64,
        page: Bytes,
    ) -> impl Future<Output = Appended> + Send + use<> {
        let message = PublishMessage::build().payload(page).expected_last_sequence(sequence - 1);
        let sent = self.context.send_publish(self.subject.clone(), message).await;
        async move {
            let answer = match sent {
                Ok(answer) => answer.await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(stored) if stored.sequence == sequence => Appended::Stored,
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                    Appended::Refused
                }
                Ok(_) => Appended::Unknown,
                Err(error) => {
                    tracing::debug!(%error, "cluster: a page was not confirmed");
                    Appended::Unknown
                }
            }
        }
    }

    /// Where the stream stands, with up to [`LOOK_MAX`] messages from a sequence on.
    ///
    /// # Errors
    ///
    /// The engine does not answer, or refuses.
    pub async fn look(&self, from: u64) -> Result<Look, String> {
        let (_, last) = self.extent().await?;
        let mut found = Vec::new();
        for sequence in from..=last.min(from + LOOK_MAX as u64 - 1) {
            found.push(self.header(sequence).await?);
        }
        Ok(Look { last, found })
    }

    /// Drops what is before a sequence.
    ///
    /// # Errors
    ///
    /// The engine does not answer, or refuses.
    pub async fn purge(&self, before: u64) -> Result<(), String> {
        self.stream.purge().sequence(before).await.map(drop).map_err(text)
    }
}

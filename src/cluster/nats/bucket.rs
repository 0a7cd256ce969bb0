//! The key-value bucket of a cluster.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    Context, ContextBuilder, CreateKeyValueErrorKind, GetStreamErrorKind,
};
use async_nats::jetstream::kv::{Config, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Internal;
use crate::cluster::identity::random;
use crate::cluster::membership::{Answer, Ask};
use crate::cluster::view::View;

/// Time for an answer of the engine. While it elects a leader, there is none for up to seven seconds.
const ANSWER: Duration = Duration::from_secs(2);

/// Pause before an attempt to open the bucket, or to follow it, is repeated.
const PAUSE: Duration = Duration::from_millis(500);

/// Attempts to open the bucket between two log lines that say why it fails.
const LOGGED_EVERY: u32 = 20;

/// Time in which a member that is there renews its lease.
const RENEWAL: Duration = Duration::from_secs(10);

const VIEW: &str = "view";
const SEED: &str = "seed";
const CLOCK: &str = "clock";

/// The key of a node's lease.
fn lease_key(node: u8) -> String {
    format!("lease.{node}")
}

/// The bucket, opened.
#[derive(Debug)]
pub(super) struct Bucket {
    store: Store,
    /// The seed of the cluster's hashes.
    pub seed: [u8; 16],
}

/// Opens the bucket, or makes it, and tells what changes in it until the receiver is gone; `again` asks to follow it
/// anew.
pub(super) async fn follow(
    client: Client,
    name: String,
    servers_expected: usize,
    told: mpsc::UnboundedSender<Internal>,
    mut again: watch::Receiver<u64>,
) {
    let context = ContextBuilder::new().timeout(ANSWER).build(client.clone());
    let mut failures = 0;
    let bucket = loop {
        match open(&context, &client, &name, servers_expected).await {
            Ok(bucket) => break Arc::new(bucket),
            Err(why) => {
                if failures % LOGGED_EVERY == 1 {
                    tracing::warn!(bucket = %name, why, "cluster: the bucket of the members cannot be opened yet");
                }
                failures += 1;
            }
        }
        if told.is_closed() {
            return;
        }
        sleep(PAUSE).await;
    };
    if told.send(Internal::Opened(Arc::clone(&bucket))).is_err() {
        return;
    }
    while !told.is_closed() {
        follow_once(&bucket.store, &told, &mut again).await;
        sleep(PAUSE).await;
    }
}

async fn follow_once(
    store: &Store,
    told: &mpsc::UnboundedSender<Internal>,
    again: &mut watch::Receiver<u64>,
) {
    again.mark_unchanged();
    let Ok(Ok(mut changes)) =
        timeout(ANSWER, store.watch_many_with_history([VIEW, "lease.*"])).await
    else {
        return;
    };
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            _ = again.changed() => return,
            () = told.closed() => return,
        };
        let Some(Ok(entry)) = change else { return };
        if entry.operation != Operation::Put {
            continue;
        }
        let news = match entry.key.strip_prefix("lease.").map(str::parse) {
            Some(Ok(node)) => Internal::Lease {
                node,
                lease: entry.value,
                stored_us: micros(entry.created.unix_timestamp_nanos()),
            },
            None if entry.key == VIEW => {
                Internal::View { revision: entry.revision, view: entry.value }
            }
            _ => continue,
        };
        if told.send(news).is_err() {
            return;
        }
    }
}

fn micros(nanos: i128) -> u64 {
    u64::try_from(nanos / 1_000).unwrap_or(0)
}

async fn open(
    context: &Context,
    client: &Client,
    name: &str,
    servers_expected: usize,
) -> Result<Bucket, String> {
    let store = match context.get_key_value(name).await {
        Ok(store) => store,
        Err(_) => make(context, client, name, servers_expected).await?,
    };
    let mut seed = [0; 16];
    for half in seed.chunks_exact_mut(8) {
        half.copy_from_slice(&random().map_err(|error| error.to_string())?.to_le_bytes());
    }
    // Whoever comes first chooses.
    let made = store.update(SEED, Bytes::copy_from_slice(&seed), 0).await;
    if let Err(error) = made {
        if error.kind() != UpdateErrorKind::WrongLastRevision {
            return Err(error.to_string());
        }
        let message = last(&store, SEED).await?.ok_or("the seed of the cluster is missing")?;
        seed = message.1.as_ref().try_into().map_err(|_| {
            format!("the seed of the cluster has {} bytes instead of 16", message.1.len())
        })?;
    }
    Ok(Bucket { store, seed })
}

async fn make(
    context: &Context,
    client: &Client,
    name: &str,
    servers_expected: usize,
) -> Result<Store, String> {
    let servers = client.server_info().connect_urls.len().max(servers_expected);
    let config = Config {
        bucket: name.to_owned(),
        description: "Members of a cluster of ringmq".to_owned(),
        history: 1,
        num_replicas: if servers >= 3 { 3 } else { 1 },
        ..Config::default()
    };
    context.create_key_value(config).await.map_err(|error| match error.kind() {
        CreateKeyValueErrorKind::TimedOut => "the engine does not answer".to_owned(),
        _ => format!("{error}; JetStream has to be enabled on {servers} server(s)"),
    })
}

/// The last value of a key, and its revision, from the leader: other servers answer sooner, and may be behind.
async fn last(store: &Store, key: &str) -> Result<Option<(u64, Bytes)>, String> {
    let subject = format!("$KV.{}.{key}", store.name);
    match store.stream.get_last_raw_message_by_subject(&subject).await {
        Ok(message) => Ok(Some((message.sequence, message.payload))),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a member of a name that runs on another store than `store` renews its lease.
pub(super) async fn has_rival(
    context: &Context,
    bucket: &str,
    name: &str,
    store: u64,
) -> Result<bool, String> {
    if let Err(error) = context.get_stream(format!("KV_{bucket}")).await
        && let GetStreamErrorKind::JetStream(why) = error.kind()
        && why.error_code() == ErrorCode::STREAM_NOT_FOUND
    {
        // Without a bucket there are no members.
        return Ok(false);
    }
    let bucket = context.get_key_value(bucket).await.map_err(|error| error.to_string())?;
    let Some((_, view)) = last(&bucket, VIEW).await? else { return Ok(false) };
    let view = View::read(&view).map_err(|error| error.to_string())?;
    let Some(member) = view.members.iter().find(|of| of.name == name && of.store != store) else {
        return Ok(false);
    };
    let key = lease_key(member.node.get());
    let before = last(&bucket, &key).await?.map(|(revision, _)| revision);
    sleep(RENEWAL).await;
    let after = last(&bucket, &key).await?.map(|(revision, _)| revision);
    Ok(before != after)
}

impl Bucket {
    /// Asks the engine; `clock_us` is this machine's time in microseconds since 1970.
    pub async fn ask(&self, ask: Ask, clock_us: u64) -> Answer {
        match timeout(ANSWER, self.try_ask(ask, clock_us)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!(why = error, "cluster: the engine refused a request");
                Answer::Failed
            }
            Err(_) => Answer::Failed,
        }
    }

    async fn try_ask(&self, ask: Ask, clock_us: u64) -> Result<Answer, String> {
        match ask {
            Ask::ReadView => {
                let value = last(&self.store, VIEW).await?;
                Ok(Answer::View(value.map(|(revision, view)| (revision, view.to_vec()))))
            }
            Ask::SetView { revision, view } => {
                match self.store.update(VIEW, view.into(), revision).await {
                    Ok(revision) => Ok(Answer::Set(Some(revision))),
                    Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                        Ok(Answer::Set(None))
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
            Ask::PutLease { node, lease } => {
                let key = lease_key(node.get());
                self.store.put(key, lease.into()).await.map_err(|error| error.to_string())?;
                Ok(Answer::Done)
            }
            Ask::Clock => {
                let value = Bytes::from(clock_us.to_string());
                let put = self.store.put(CLOCK, value).await.map_err(|error| error.to_string())?;
                let kept = self.store.stream.get_raw_message(put).await;
                let kept = kept.map_err(|error| error.to_string())?;
                let stored_us = micros(kept.time.unix_timestamp_nanos());
                Ok(Answer::Stored { sent_us: clock_us, stored_us })
            }
        }
    }
}

//! A [`Shipper`] with the stream that it writes.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::base::clock::Now;
use crate::cluster::nats::{LogServer, LogStream};
use crate::cluster::ship::{Appended, Look, Order, Shipper};

/// Longest time for which nothing is looked at.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Time without progress after which another server is connected to, and between two such attempts.
const RECONNECT_AFTER: Duration = Duration::from_secs(4);

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// See the module's documentation.
pub(super) struct Shipping {
    server: LogServer,
    stream: LogStream,
    pub shipper: Shipper,
    begin: Instant,
    appends: FuturesUnordered<Pending<(u64, u64, Appended)>>,
    look: Option<Pending<(u64, Result<Look, String>)>>,
    purge: Option<Pending<Result<(), String>>>,
    reconnected_at: Instant,
}

impl Shipping {
    pub fn new(server: LogServer, stream: LogStream, shipper: Shipper) -> Self {
        let begin = Instant::now();
        let (appends, look, purge) = (FuturesUnordered::new(), None, None);
        Self { server, stream, shipper, begin, appends, look, purge, reconnected_at: begin }
    }

    pub fn now(&self) -> Now {
        Now(self.begin.elapsed().as_micros() as u64 + 1)
    }

    pub fn server(&self) -> &LogServer {
        &self.server
    }

    pub fn stream(&self) -> &LogStream {
        &self.stream
    }

    pub fn into_server(self) -> LogServer {
        self.server
    }

    /// Carries out what the shipper orders.
    pub async fn turn(&mut self) {
        while let Some(order) = self.shipper.poll(self.now()) {
            match order {
                Order::Append { epoch, sequence, page } => {
                    let appended = self.stream.append(sequence, page).await;
                    self.appends.push(Box::pin(async move { (epoch, sequence, appended.await) }));
                }
                Order::Look { epoch, from } => {
                    let stream = self.stream.clone();
                    self.look = Some(Box::pin(async move { (epoch, stream.look(from).await) }));
                }
                Order::Purge { before } => {
                    let stream = self.stream.clone();
                    self.purge = Some(Box::pin(async move { stream.purge(before).await }));
                }
            }
        }
        let stalled = self.shipper.stalled_for(self.now());
        if stalled > RECONNECT_AFTER && self.reconnected_at.elapsed() > RECONNECT_AFTER {
            self.reconnected_at = Instant::now();
            self.server.force_reconnect().await;
        }
    }

    /// Waits until something was answered, or something is due. May be given up and called again.
    pub async fn wait(&mut self) {
        let now = self.now();
        let due = self.shipper.poll_timeout().map(|deadline| deadline.time_left(now));
        let pause = due.map_or(PAUSE_MAX, |left| left.min(PAUSE_MAX));
        tokio::select! {
            Some((epoch, sequence, appended)) = self.appends.next() => {
                self.shipper.handle_appended(self.now(), epoch, sequence, appended);
            }
            (epoch, look) = next_of(&mut self.look) => {
                self.look = None;
                if let Err(error) = &look {
                    tracing::debug!(error, stream = self.stream.name, "cluster: the stream cannot be looked at");
                }
                self.shipper.handle_look(self.now(), epoch, look.ok());
            }
            purged = next_of(&mut self.purge) => {
                self.purge = None;
                // The next checkpoint drops these pages too.
                if let Err(error) = purged {
                    tracing::warn!(error, stream = self.stream.name, "cluster: obsolete pages cannot be dropped yet");
                }
            }
            () = self.server.connected() => self.shipper.handle_reconnected(),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn next_of<T>(of: &mut Option<Pending<T>>) -> T {
    match of {
        Some(of) => of.await,
        None => std::future::pending().await,
    }
}

//! The engine: connection, lanes, and the bucket of the cluster. No other module knows NATS.
//!
//! A [`Carrier`] belongs to one thread with a current-thread runtime of tokio. It does its work inside
//! [`Carrier::next_event`], which may be given up at any time (`select!`) and called again, and must be called again soon:
//! leases are renewed there. [`Carrier::send`] never waits.

mod bucket;
mod log_stream;
mod options;

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::{Client, Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::identity::random;
use super::membership::{Answer, JoinError, Membership, MembershipEvent, Request, TICK_US};
use super::view::{Incarnation, MemberState, NODES_MAX, NodeNumber, View};
use crate::base::clock::Now;
use crate::control::cluster::ClusterBoard;
use bucket::Bucket;
pub use log_stream::{COPIES, LogServer, LogStream};
pub use options::CarrierOptions;

/// Bytes that a frame may have on any server of the engine: what NATS allows by default.
const PAYLOAD_MIN: usize = 1024 * 1024;

/// Microseconds between two attempts to follow the bucket anew.
const FOLLOW_AGAIN_US: u64 = 3_000_000;

/// Microseconds between two looks at the membership while nothing happens to it.
const TURN_US: u64 = 50_000;

/// Microseconds between two snapshots of the status.
const STATUS_US: u64 = 1_000_000;

/// What happened.
#[derive(Clone, Debug)]
pub enum CarrierEvent {
    /// There is a connection to an engine server.
    Connected {
        /// The server: its name, and the address on which it says it listens.
        server: String,
    },
    /// There is none. The carrier connects again by itself, and frames are dropped meanwhile.
    Disconnected,
    /// This node is in the view, as `Joining`. Lanes may begin; [`Carrier::set_ready`] makes it a full member.
    Joined {
        /// Its number.
        node: NodeNumber,
        /// Its incarnation.
        incarnation: Incarnation,
        /// The secret seed of the cluster's hashes.
        seed: [u8; 16],
    },
    /// This node cannot join; the carrier tries again when [`Carrier::rejoin`] is called.
    Refused(JoinError),
    /// A frame of a node came, as it was sent. The receiver checks its incarnation.
    FrameReceived {
        /// The node that it says it is from.
        from: NodeNumber,
        /// The frame.
        frame: Bytes,
    },
    /// Members came, left, or changed their state. Also the first view after [`CarrierEvent::Joined`].
    ViewChanged(Arc<View>),
    /// A member renewed its lease.
    LeaseSeen {
        /// The member.
        node: NodeNumber,
    },
    /// What [`Carrier::send_echo`] sent came back through the engine.
    EchoHeard(u64),
    /// The engine has had no quorum for ten seconds, as far as this node reaches it. It is still a member, as far as it
    /// knows.
    Isolated,
    /// The isolation has ended, and this node is still a member.
    Healed,
    /// Other nodes have taken this incarnation out of the view, or it has left on its own because it did not hear another
    /// one. It must not act as a member any more; the gateway ends its connections and calls [`Carrier::rejoin`].
    Evicted,
    /// This node has left, after [`Carrier::leave`].
    Left,
}

/// What the tasks of the carrier tell it.
#[derive(Debug)]
enum Internal {
    Connected,
    Disconnected,
    /// Frames were dropped, as they came faster than they were taken.
    Overrun,
    Trouble(String),
    Opened(Arc<Bucket>),
    View {
        revision: u64,
        view: Bytes,
    },
    Lease {
        node: u8,
        lease: Bytes,
        stored_us: u64,
    },
    Answered {
        id: u64,
        answer: Answer,
    },
}

/// The connection to the engine, and this node's membership.
pub struct Carrier {
    prefix: String,
    client: Client,
    membership: Membership,
    begin: Instant,
    told: mpsc::UnboundedReceiver<Internal>,
    teller: mpsc::UnboundedSender<Internal>,
    follow_again: watch::Sender<u64>,
    followed_at: Now,
    bucket: Option<Arc<Bucket>>,
    lanes: Option<(NodeNumber, Subscriber)>,
    /// Subjects of lanes from this node, by receiver.
    subjects: Vec<Subject>,
    echo: Option<Subscriber>,
    echo_subject: Subject,
    is_connected: bool,
    server: Option<String>,
    connections: u64,
    frames_dropped: u64,
    trouble: String,
    ready: VecDeque<CarrierEvent>,
    has_news: bool,
    turned_at: Now,
    ticks: Interval,
    board: ClusterBoard,
    status_at: Now,
}

impl Carrier {
    /// Checks the options (addresses, files) and starts to connect. Needs a runtime of tokio. Errors say which option is
    /// wrong; an engine that cannot be reached is no error but awaited.
    ///
    /// # Errors
    ///
    /// An address or a file cannot be used; the text says which one.
    pub async fn start(options: CarrierOptions, board: ClusterBoard) -> Result<Self, String> {
        let (teller, told) = mpsc::unbounded_channel();
        let (servers, connect) = options::prepare(&options, teller.clone()).await?;
        let expected = options.servers_expected.max(servers.len());
        let client = connect.connect(servers).await.map_err(|error| error.to_string())?;
        let (follow_again, again) = watch::channel(0);
        let name = format!("RQ_{}", options.me.cluster);
        tokio::spawn(bucket::follow(client.clone(), name, expected, teller.clone(), again));
        let mut ticks = interval(Duration::from_micros(TICK_US));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = random().map_err(|error| error.to_string())?;
        let prefix = format!("rq.{}", options.me.cluster);
        let echo_subject = Subject::from(format!("{prefix}.echo.{start:016x}"));
        Ok(Self {
            prefix,
            client,
            membership: Membership::new(options.me, start, Now(0)),
            begin: Instant::now(),
            told,
            teller,
            follow_again,
            followed_at: Now(0),
            bucket: None,
            lanes: None,
            subjects: Vec::new(),
            echo: None,
            echo_subject,
            is_connected: false,
            server: None,
            connections: 0,
            frames_dropped: 0,
            trouble: String::new(),
            ready: VecDeque::new(),
            has_news: true,
            turned_at: Now(0),
            ticks,
            board,
            status_at: Now(0),
        })
    }

    fn now(&self) -> Now {
        Now(self.begin.elapsed().as_micros() as u64)
    }

    /// The next event. May be given up and called again.
    pub async fn next_event(&mut self) -> CarrierEvent {
        loop {
            self.turn();
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            tokio::select! {
                Some(frame) = next_of(self.lanes.as_mut().map(|(_, lanes)| lanes)) => {
                    if let Some(event) = received(frame) {
                        return event;
                    }
                }
                Some(echo) = next_of(self.echo.as_mut()) => {
                    if let Ok(number) = echo.payload.as_ref().try_into() {
                        return CarrierEvent::EchoHeard(u64::from_le_bytes(number));
                    }
                }
                Some(news) = self.told.recv() => self.handle(news),
                _ = self.ticks.tick() => {}
            }
        }
    }

    /// Everything that is due and does not wait. Frames come more often than there is something to do.
    fn turn(&mut self) {
        let now = self.now();
        if !std::mem::take(&mut self.has_news) && now.since_us(self.turned_at) < TURN_US {
            return;
        }
        self.turned_at = now;
        self.membership.handle_time(now);
        self.subscribe();
        if self.membership.is_behind(now) && now.since_us(self.followed_at) >= FOLLOW_AGAIN_US {
            self.follow_anew(now);
        }
        if let Some(bucket) = &self.bucket {
            let clock_us = clock_us();
            while let Some(Request { id, ask }) = self.membership.poll_request(now, clock_us) {
                let (bucket, teller) = (Arc::clone(bucket), self.teller.clone());
                tokio::spawn(async move {
                    let answer = bucket.ask(ask, clock_us).await;
                    let _ = teller.send(Internal::Answered { id, answer });
                });
            }
        }
        while let Some(event) = self.membership.poll_event() {
            let event = self.event(event);
            self.ready.push_back(event);
        }
        if now.since_us(self.status_at) >= STATUS_US || !self.ready.is_empty() {
            self.status_at = now;
            self.publish_status(now);
        }
    }

    /// Subscribes to what this node is to hear. The client takes subscriptions through a queue that may be full for a
    /// moment; the next turn tries again.
    fn subscribe(&mut self) {
        let own = self.membership.own().map(|(node, _)| node);
        if let Some(node) = own
            && self.lanes.as_ref().is_none_or(|(of, _)| *of != node)
        {
            let subject = format!("{}.lane.{node}.*", self.prefix);
            if let Some(Ok(lanes)) = self.client.subscribe(subject).now_or_never() {
                self.lanes = Some((node, lanes));
                let subject = |to| Subject::from(format!("{}.lane.{to}.{node}", self.prefix));
                self.subjects = (0..NODES_MAX).map(subject).collect();
            }
        }
        if self.echo.is_none() {
            let subscribed = self.client.subscribe(self.echo_subject.clone()).now_or_never();
            self.echo = subscribed.and_then(Result::ok);
        }
    }

    fn follow_anew(&mut self, now: Now) {
        self.followed_at = now;
        self.follow_again.send_modify(|times| *times += 1);
    }

    fn handle(&mut self, news: Internal) {
        let now = self.now();
        self.has_news = true;
        match news {
            Internal::Connected => self.handle_connected(now),
            Internal::Disconnected => {
                self.server = None;
                if std::mem::take(&mut self.is_connected) {
                    self.ready.push_back(CarrierEvent::Disconnected);
                }
            }
            Internal::Overrun => self.frames_dropped += 1,
            Internal::Trouble(why) => {
                if why != self.trouble {
                    tracing::warn!(why, "cluster: trouble with the engine");
                    self.trouble = why;
                }
            }
            Internal::Opened(bucket) => self.bucket = Some(bucket),
            Internal::View { revision, view } => self.membership.handle_view(revision, &view, now),
            Internal::Lease { node, lease, stored_us } => {
                if let Some(node) = NodeNumber::new(node) {
                    self.membership.handle_lease(node, &lease, stored_us, now);
                }
            }
            Internal::Answered { id, answer } => self.membership.handle_answer(id, answer, now),
        }
    }

    fn handle_connected(&mut self, now: Now) {
        let info = self.client.server_info();
        let server = format!("{} ({}:{})", info.server_name, info.host, info.port);
        if info.max_payload < PAYLOAD_MIN {
            tracing::error!(
                %server,
                "cluster: max_payload of this engine server is below 1 MiB; set it to 1MB in its configuration"
            );
        }
        self.trouble.clear();
        self.is_connected = true;
        self.connections += 1;
        self.server = Some(server.clone());
        self.follow_anew(now);
        self.ready.push_back(CarrierEvent::Connected { server });
    }

    fn event(&mut self, event: MembershipEvent) -> CarrierEvent {
        match event {
            MembershipEvent::Joined { node, incarnation } => {
                let seed = self.bucket.as_ref().map(|bucket| bucket.seed).unwrap_or_default();
                CarrierEvent::Joined { node, incarnation, seed }
            }
            MembershipEvent::Refused(error) => CarrierEvent::Refused(error),
            MembershipEvent::ViewChanged => match self.membership.view() {
                Some(view) => CarrierEvent::ViewChanged(Arc::clone(view)),
                None => CarrierEvent::Evicted,
            },
            MembershipEvent::LeaseSeen(node) => CarrierEvent::LeaseSeen { node },
            MembershipEvent::Isolated => CarrierEvent::Isolated,
            MembershipEvent::Healed => CarrierEvent::Healed,
            MembershipEvent::Evicted => CarrierEvent::Evicted,
            MembershipEvent::Left => CarrierEvent::Left,
        }
    }

    fn publish_status(&self, now: Now) {
        let mut status = self.membership.status(now);
        status.server = self.server.clone();
        status.reconnects = self.connections.saturating_sub(1);
        status.frames_dropped = self.frames_dropped;
        self.board.set_status(status);
    }

    /// Sends a frame to a node, once, or never: without a connection, or when too much waits to be written, it is dropped and
    /// counted. Returns whether it was handed over.
    pub fn send(&mut self, to: NodeNumber, frame: Bytes) -> bool {
        let subject = self.subjects.get(to.index()).filter(|_| self.is_connected);
        let is_sent = subject.is_some_and(|subject| {
            is_done(self.client.publish(subject.clone(), frame).now_or_never())
        });
        self.frames_dropped += u64::from(!is_sent);
        is_sent
    }

    /// Sends a number to this node itself through the engine ([`CarrierEvent::EchoHeard`]).
    pub fn send_echo(&mut self, number: u64) {
        if self.is_connected {
            let number = Bytes::copy_from_slice(&number.to_le_bytes());
            let _ = self.client.publish(self.echo_subject.clone(), number).now_or_never();
        }
    }

    /// Leaves the engine's server for the next one.
    pub fn force_reconnect(&mut self) {
        let client = self.client.clone();
        tokio::spawn(async move {
            let _ = client.force_reconnect().await;
        });
    }

    /// Notes that a frame of a member's present incarnation came.
    pub fn note_heard(&mut self, node: NodeNumber) {
        let now = self.now();
        self.membership.note_heard(node, now);
    }

    /// Changes this node's state in the view from `Joining` to `Member`.
    pub fn set_ready(&mut self) {
        self.membership.set_state(MemberState::Member);
    }

    /// The number of connections of this node, which the others are told with the next lease.
    pub fn set_clients(&mut self, clients: u32) {
        self.membership.set_clients(clients);
    }

    /// Takes a node that is gone for good out of the numbers that were used; the error says why not.
    pub fn forget(&mut self, name: &str) -> Result<(), String> {
        let now = self.now();
        self.membership.forget(name, now)
    }

    /// Changes it to `Leaving`: the node gives its sessions away.
    pub fn set_leaving(&mut self) {
        self.membership.set_state(MemberState::Leaving);
    }

    /// Takes this node out of the view ([`CarrierEvent::Left`]).
    pub fn leave(&mut self) {
        self.membership.leave();
    }

    /// Joins with the next incarnation, after [`CarrierEvent::Evicted`], [`CarrierEvent::Refused`] or
    /// [`CarrierEvent::Left`].
    pub fn rejoin(&mut self) {
        let now = self.now();
        match random() {
            Ok(start) => self.membership.rejoin(start, now),
            Err(error) => tracing::error!(%error, "cluster: no random number"),
        }
    }

    /// The view; none before the bucket was read.
    pub fn view(&self) -> Option<&Arc<View>> {
        self.membership.view()
    }

    /// This node's number and incarnation, while it is a member: it is in the last view that it knows.
    pub fn own(&self) -> Option<(NodeNumber, Incarnation)> {
        self.membership.own()
    }

    /// Whether the engine has had no quorum for ten seconds, as far as this node reaches it.
    pub fn is_isolated(&self) -> bool {
        self.membership.is_isolated()
    }
}

/// Microseconds since 1970 by this machine's clock.
fn clock_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

fn is_done<E: Display>(published: Option<Result<(), E>>) -> bool {
    match published {
        Some(Ok(())) => true,
        Some(Err(error)) => {
            tracing::debug!(%error, "cluster: a frame was not sent");
            false
        }
        None => false,
    }
}

/// The next message of a subscription; nothing comes without one.
async fn next_of(of: Option<&mut Subscriber>) -> Option<Message> {
    match of {
        Some(of) => of.next().await,
        None => std::future::pending().await,
    }
}

fn received(message: Message) -> Option<CarrierEvent> {
    let from = message.subject.rsplit('.').next()?.parse().ok().and_then(NodeNumber::new)?;
    Some(CarrierEvent::FrameReceived { from, frame: message.payload })
}

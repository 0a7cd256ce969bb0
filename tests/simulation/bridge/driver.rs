//! What the thread of a bridge does: opens its session, connects, and connects again.

use std::sync::Arc;

use flume::Receiver;
use ringmq::config::bridge::{Accepts, InRule, OutRule, Retained};
use ringmq::control::bridge::{BridgeOrder, LinkOrder};
use ringmq::control::{EngineCommand, replies};
use ringmq::transport::Transport;
use ringmq::transport::bridge::mapping::{InMap, OutMap};
use ringmq::transport::bridge::{Attempt, Counters, Event, FarEnd, Link, Report, Start, Terms};
use ringmq::wire::Version;

use crate::world::{At, World};

/// Events that wait for the thread at most.
const EVENTS_MAX: usize = 256;

const SESSION: &str = "$bridge/far";

/// One connection.
struct Line {
    link: usize,
    events: Receiver<Event>,
    /// The far broker has accepted it.
    is_open: bool,
    is_registering: bool,
}

pub struct Driver {
    terms: Arc<Terms>,
    counters: Arc<Counters>,
    line: Option<Line>,
    is_registered: bool,
    start: Start,
    /// Messages from this one on have to reach the far broker.
    expected_from: Option<usize>,
    opened: usize,
}

impl Default for Driver {
    fn default() -> Self {
        let out = OutRule {
            filter: "n/#".to_owned(),
            qos_max: 2,
            local_prefix: String::new(),
            remote_prefix: "far/".to_owned(),
            to: String::new(),
        };
        let r#in = InRule {
            filter: "there/#".to_owned(),
            qos: 2,
            local_prefix: "b/".to_owned(),
            remote_prefix: "there/".to_owned(),
            to: String::new(),
        };
        let terms = Terms {
            session: SESSION.into(),
            user: None,
            known_as: None,
            topic_alias_maximum: 0,
            unsubscribes_out: false,
            client_identifier: "ringmq".into(),
            keep_alive_s: 60,
            session_expiry_s: 3_600,
            retained: Retained::Live,
            hops_max: 8,
            broker: "0000000a".into(),
            packet_bytes_max: 1 << 20,
            sent_bytes_max: None,
            receive_maximum: 20,
            out: OutMap::new(&[out]),
            r#in: InMap::new(&[r#in]),
            group: None,
            echoes: None,
            accepts: Accepts::default(),
            notification: None,
        };
        Self {
            terms: Arc::new(terms),
            counters: Arc::default(),
            line: None,
            is_registered: false,
            start: Start::Resume,
            expected_from: None,
            opened: 0,
        }
    }
}

impl Driver {
    /// The connection to the far broker, which may not have accepted it.
    pub fn line(&self) -> Option<usize> {
        self.line.as_ref().filter(|line| !line.is_registering).map(|line| line.link)
    }

    /// The connection, if the far broker has accepted it.
    pub fn open_link(&self) -> Option<usize> {
        self.line.as_ref().filter(|line| line.is_open).map(|line| line.link)
    }

    /// Messages from this one on have to reach the far broker, if it is connected.
    pub fn expected_from(&self) -> Option<usize> {
        self.expected_from.filter(|_| self.open_link().is_some())
    }

    pub fn cut(&mut self, world: &mut World) {
        if let Some(line) = self.line.as_ref().filter(|line| !line.is_registering) {
            world.cut(line.link);
        }
    }

    /// The broker has crashed.
    pub fn crash(&mut self, world: &mut World) {
        if let Some(line) = self.line.take() {
            world.cut(line.link);
        }
        self.is_registered = false;
    }

    /// Takes events, and connects if there is no connection. `messages` were published so far.
    pub fn look(&mut self, world: &mut World, messages: usize) -> Result<(), String> {
        if self.line.is_none() {
            self.line = Some(self.open(world));
        }
        let Some(line) = &mut self.line else { return Ok(()) };
        let mut has_ended = false;
        while let Ok(event) = line.events.try_recv() {
            match event {
                Event::Registered { session_present } => {
                    if !session_present {
                        if self.expected_from.is_some() {
                            return Err("the broker has lost the session of the bridge".to_owned());
                        }
                        self.start = Start::Discard;
                    }
                    self.expected_from.get_or_insert(messages);
                    self.is_registered = true;
                    world.cut(line.link);
                }
                Event::Connected { .. } => (line.is_open, self.start) = (true, Start::Resume),
                Event::Discarded => self.start = Start::First,
                Event::Ended { .. } => has_ended = true,
                Event::Subscribed { refused } if refused.is_empty() => {}
                // The connection was cut before SUBACK.
                Event::NoLocalDoubted => {}
                other => return Err(format!("the bridge says {other:?}")),
            }
        }
        // The engine may have ended it before it had a link.
        let is_closed = world.links[line.link].at == At::Closed;
        if has_ended || is_closed && line.events.is_disconnected() {
            self.line = None;
        }
        Ok(())
    }

    fn open(&mut self, world: &mut World) -> Line {
        let (sender, events) = flume::bounded(EVENTS_MAX);
        let report = Report::new(sender, Arc::clone(&self.counters));
        let is_registering = !self.is_registered;
        let (link, bytes) = match is_registering {
            true => Link::register(Arc::clone(&self.terms), report),
            false => {
                let attempt = Attempt {
                    version: Version::V5,
                    is_bridge: false,
                    no_local: true,
                    start: self.start,
                    username: None,
                    password: None,
                };
                (Link::connect(Arc::clone(&self.terms), attempt, report), Vec::new())
            }
        };
        let transport = Box::new(Transport::to_far_broker(FarEnd::plain(link)));
        self.opened += 1;
        let core = self.opened % world.cores();
        let link = world.dial(core, transport, bytes);
        Line { link, events, is_open: false, is_registering }
    }

    /// The session of the bridge ends.
    pub fn end(&mut self, world: &mut World) {
        for core in 0..world.cores() {
            let (to, _) = replies();
            let what = LinkOrder::EndSession;
            let order = BridgeOrder { session: SESSION.into(), what, reply: to.core(core) };
            world.command(core, EngineCommand::BridgeOrder(order));
        }
        if let Some(line) = self.line.take() {
            world.cut(line.link);
        }
    }
}

//! The access control of one core: the user of each connection, and the decisions made for it.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use flume::{Receiver, Sender};
use hashbrown::DefaultHashBuilder;
use shards::Text;

use crate::access::acl::{Rules, Subject, Wish};
use crate::access::cache::Decisions;
use crate::access::methods::{Answer, Exchange, Job, Known, Step, Workers};
use crate::access::password_file::User;
use crate::access::{Control, Notify, Snapshot};
use crate::base::clock::Now;
use crate::base::ids::Peer;
use crate::base::metrics::AccessCounts;
use crate::base::pool::Busy;
use crate::engine::{Access, Authentication, Credentials, Grant, IdentifierClaim, Identity};
use crate::message::Content;
use crate::wire::{Qos, ReasonCode};

/// The access control of one core.
pub struct CoreAccess {
    control: Arc<Control>,
    /// Reading the current snapshot costs the load of an atomic pointer.
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    /// By the slot of the connection.
    clients: Vec<Option<Box<Client>>>,
    answers: Receiver<(u64, Answer)>,
    answer: Sender<(u64, Answer)>,
    notify: Notify,
    hasher: DefaultHashBuilder,
    /// Steps since [`Access::take_steps`] was called last.
    steps: usize,
}

/// A connection whose client authenticates or has authenticated.
#[derive(Default)]
struct Client {
    exchange: u64,
    /// Needed only until the client is authenticated.
    asking: Option<Box<Asking>>,
    is_authenticated: bool,
    user: Option<Box<str>>,
    /// Entry of the password file by which the client authenticated.
    entry: Option<Arc<User>>,
    /// Client Identifier, if connections are counted per client.
    client_identifier: Box<str>,
    /// Revision of the snapshot that the following fields are from; 0 if none.
    revision: u64,
    /// Sections of the rules that apply to the client.
    sections: Box<[u32]>,
    publishes_all: bool,
    decisions: Decisions,
}

/// A client that is not authenticated yet.
struct Asking {
    client_identifier: Box<str>,
    address: Option<SocketAddr>,
    /// The connection that this one would take over.
    replaces: Option<u64>,
    /// An enhanced authentication that waits for the client.
    next: Option<Box<dyn Exchange>>,
}

/// Sends the decision of a job to its core; sends a refusal if the job panics.
struct Reply {
    exchange: u64,
    to: Sender<(u64, Answer)>,
    notify: Notify,
    is_given: bool,
}

impl Reply {
    fn give(mut self, answer: Answer) {
        self.send(answer);
    }

    fn send(&mut self, answer: Answer) {
        self.is_given = true;
        // Fails if the core has stopped.
        let _ = self.to.send((self.exchange, answer));
        (self.notify)();
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_given {
            self.send(Err(ReasonCode::ServerUnavailable));
        }
    }
}

impl CoreAccess {
    pub(super) fn new(control: Arc<Control>, notify: Notify) -> Self {
        let (answer, answers) = flume::unbounded(); // bounded by the pools
        Self {
            snapshot: Cache::new(Arc::clone(&control.snapshot)),
            control,
            clients: Vec::new(),
            answers,
            answer,
            notify,
            hasher: DefaultHashBuilder::default(),
            steps: 0,
        }
    }

    fn client(&mut self, exchange: u64) -> Option<&mut Client> {
        let client = self.clients.get_mut(exchange as u32 as usize)?.as_deref_mut();
        client.filter(|client| client.exchange == exchange)
    }

    /// Notes the client of a connection, which may have authenticated before.
    fn note(&mut self, exchange: u64, who: &Credentials<'_>) {
        let asking = Asking {
            client_identifier: who.client_identifier.into(),
            address: who.address,
            replaces: who.replaces,
            next: None,
        };
        if self.client(exchange).is_none() {
            let slot = exchange as u32 as usize;
            if self.clients.len() <= slot {
                self.clients.resize_with(slot + 1, || None);
            }
            self.clients[slot] = Some(Box::new(Client { exchange, ..Client::default() }));
        }
        let client = self.client(exchange).expect("just made");
        client.asking = Some(Box::new(asking));
    }

    fn asking(&mut self, exchange: u64) -> Option<&mut Asking> {
        self.client(exchange)?.asking.as_deref_mut()
    }

    /// Admits an authenticated client.
    fn admit(&mut self, now: Now, exchange: u64, known: Known, data: Vec<u8>) -> Authentication {
        if let (Some(user), Some(entry)) = (&known.user, &known.entry)
            && self.snapshot.load().current_entry(user, entry).is_err()
        {
            // The password file was reloaded meanwhile.
            return self.refuse(now, exchange, ReasonCode::NotAuthorized);
        }
        let Known { user, valid_for, entry } = known;
        let Some(client) = self.client(exchange) else {
            return Authentication::Refused(ReasonCode::UnspecifiedError);
        };
        if client.is_authenticated {
            // Re-authentication must not change the user: the session belongs to the user.
            if client.user != user {
                return self.refuse(now, exchange, ReasonCode::NotAuthorized);
            }
            client.asking = None;
            client.entry = entry;
            return Authentication::Granted(Grant { data, user, valid_for });
        }
        let Some(asking) = client.asking.take() else {
            return Authentication::Refused(ReasonCode::UnspecifiedError);
        };
        if self.control.guard.is_banned(now, user.as_deref(), &asking.client_identifier) {
            return Authentication::Refused(ReasonCode::Banned);
        }
        if let Some(user) = &user {
            let replaced = asking.replaces.and_then(|other| self.client(other)?.user.clone());
            if !self.control.guard.enter_user(user, replaced.as_ref() == Some(user)) {
                return Authentication::Refused(ReasonCode::QuotaExceeded);
            }
        }
        let (has_rules, counts_flaps) =
            (self.snapshot.load().rules.is_some(), self.control.guard.counts_flaps());
        if user.is_none() && !has_rules && !counts_flaps {
            // No later decision needs the client.
            self.clients[exchange as u32 as usize] = None;
            return Authentication::Granted(Grant { data, user, valid_for });
        }
        let client = self.client(exchange).expect("just seen");
        client.is_authenticated = true;
        client.user.clone_from(&user);
        client.entry = entry;
        if counts_flaps {
            client.client_identifier = asking.client_identifier;
        }
        Authentication::Granted(Grant { data, user, valid_for })
    }

    /// Refuses a client, and counts the refusal for its address unless a server or memory was missing.
    fn refuse(&mut self, now: Now, exchange: u64, reason: ReasonCode) -> Authentication {
        if reason != ReasonCode::ServerUnavailable {
            let address = self.asking(exchange).and_then(|asking| asking.address);
            self.control.guard.refused(now, address);
        }
        Authentication::Refused(reason)
    }

    /// Processes the outcome of a part of an authentication.
    fn process(&mut self, now: Now, exchange: u64, step: Step) -> Authentication {
        match step {
            Step::Granted(known, data) => self.admit(now, exchange, known, data),
            Step::Refused(reason) => self.refuse(now, exchange, reason),
            Step::Continue(data, next) => {
                if let Some(asking) = self.asking(exchange) {
                    asking.next = Some(next);
                }
                Authentication::Continue(data)
            }
            Step::Pending(workers, job) => self.run(workers, exchange, job),
        }
    }

    /// Runs a job in a pool.
    fn run(&self, workers: Workers, exchange: u64, job: Job) -> Authentication {
        let (to, notify) = (self.answer.clone(), Arc::clone(&self.notify));
        let mut reply = Reply { exchange, to, notify, is_given: true };
        let outcome = self.control.pool(workers).run(move || {
            reply.is_given = false;
            let answer = job();
            reply.give(answer);
        });
        match outcome {
            Ok(()) => Authentication::Pending,
            Err(Busy) => Authentication::Refused(ReasonCode::ServerBusy),
        }
    }
}

impl Access for CoreAccess {
    fn may_stay(&mut self, now: Now, peer: &Peer) -> bool {
        self.control.guard.enter(now, peer.address)
    }

    fn gone(&mut self, now: Now, peer: &Peer, exchange: u64, was_open: bool) {
        let guard = &self.control.guard;
        guard.left(peer.address);
        if let Some(Some(client)) = self.clients.get(exchange as u32 as usize)
            && client.exchange == exchange
            && was_open
        {
            guard.flapped(now, client.user.as_deref(), &client.client_identifier);
        }
    }

    fn authenticate(&mut self, now: Now, exchange: u64, who: &Credentials<'_>) -> Authentication {
        self.note(exchange, who);
        let step = self.snapshot.load().methods.begin(who);
        self.process(now, exchange, step)
    }

    fn proceed(&mut self, now: Now, exchange: u64, data: &[u8]) -> Authentication {
        match self.asking(exchange).and_then(|asking| asking.next.take()) {
            Some(next) => self.process(now, exchange, next.proceed(data)),
            None => self.refuse(now, exchange, ReasonCode::NotAuthorized),
        }
    }

    fn poll_answer(&mut self, now: Now) -> Option<(u64, Authentication)> {
        loop {
            let (exchange, answer) = self.answers.try_recv().ok()?;
            if self.client(exchange).is_none() {
                continue; // the connection is closed
            }
            let authentication = match answer {
                Ok(known) => self.admit(now, exchange, known, Vec::new()),
                Err(reason) => self.refuse(now, exchange, reason),
            };
            return Some((exchange, authentication));
        }
    }

    fn forget(&mut self, exchange: u64) {
        if self.client(exchange).is_none() {
            return;
        }
        if let Some(client) = self.clients[exchange as u32 as usize].take()
            && client.is_authenticated
            && let Some(user) = &client.user
        {
            self.control.guard.user_left(user);
        }
    }

    fn claims_identifier(&mut self, who: &Identity<'_>) -> IdentifierClaim {
        let snapshot = self.snapshot.load();
        let Some(rules) = &snapshot.rules else { return IdentifierClaim::Open };
        let client = self.clients.get(who.exchange as u32 as usize).and_then(Option::as_ref);
        let user = client.and_then(|client| client.user.as_deref());
        match rules.decide_identifier(&subject(user, who)) {
            Some(verdict) if !verdict.is_allowed => IdentifierClaim::Denied,
            Some(verdict) if verdict.is_own => IdentifierClaim::Own,
            Some(_) => IdentifierClaim::Allowed,
            None => IdentifierClaim::Open,
        }
    }

    fn may_publish(&mut self, who: &Identity<'_>, topic: &str, qos: Qos, retain: bool) -> bool {
        let snapshot = self.snapshot.load();
        let Some(rules) = &snapshot.rules else { return true };
        let Some(Some(client)) = self.clients.get_mut(who.exchange as u32 as usize) else {
            return false;
        };
        client.refresh(rules, snapshot.revision, who);
        if client.publishes_all && !topic.starts_with('$') {
            return true;
        }
        let Client { decisions, sections, user, .. } = &mut **client;
        let steps = &mut self.steps;
        decisions.decide(&self.hasher, topic, qos, retain, || {
            *steps += rules.steps(sections, topic);
            let subject = subject(user.as_deref(), who);
            let wish = Wish::Publish { topic, qos, retain };
            rules.decide(sections, &subject, &wish).qos.is_some()
        })
    }

    fn may_subscribe(&mut self, who: &Identity<'_>, filter: &str, qos: Qos) -> Option<Qos> {
        let snapshot = self.snapshot.load();
        let Some(rules) = &snapshot.rules else { return Some(qos) };
        let client = self.clients.get_mut(who.exchange as u32 as usize)?.as_mut()?;
        client.refresh(rules, snapshot.revision, who);
        self.steps += rules.steps(&client.sections, filter);
        let subject = subject(client.user.as_deref(), who);
        rules.decide(&client.sections, &subject, &Wish::Subscribe { filter, qos }).qos
    }

    fn may_publish_will(
        &mut self,
        user: Option<&str>,
        client_identifier: &Text,
        will: &Content<'_>,
        retain: bool,
    ) -> bool {
        let Some(rules) = &self.snapshot.load().rules else { return true };
        let subject = Subject { user, client_identifier: client_identifier.as_str() };
        let sections = rules.sections_of(&subject);
        self.steps += rules.steps(&sections, will.topic);
        let wish = Wish::Publish { topic: will.topic, qos: will.qos, retain };
        rules.decide(&sections, &subject, &wish).qos.is_some()
    }

    fn withdrawn(&mut self, exchange: u64) -> Option<ReasonCode> {
        let snapshot = self.snapshot.load();
        let client = self.clients.get_mut(exchange as u32 as usize)?.as_deref_mut()?;
        let (user, entry) = (client.user.as_deref()?, client.entry.as_mut()?);
        match snapshot.current_entry(user, entry) {
            Ok(same) => {
                // Frees the entry of an older snapshot.
                entry.clone_from(same);
                None
            }
            Err(reason) => Some(reason),
        }
    }

    fn revision(&mut self) -> u64 {
        self.snapshot.load().revision
    }

    fn take_steps(&mut self) -> usize {
        std::mem::take(&mut self.steps)
    }

    fn counts(&self) -> AccessCounts {
        self.control.counts()
    }
}

impl Client {
    /// Discards decisions of an older snapshot.
    fn refresh(&mut self, rules: &Rules, revision: u64, who: &Identity<'_>) {
        if self.revision == revision {
            return;
        }
        self.revision = revision;
        self.sections = rules.sections_of(&subject(self.user.as_deref(), who));
        self.publishes_all = rules.lets_publish_all(&self.sections);
        self.decisions = Decisions::default();
    }
}

fn subject<'a>(user: Option<&'a str>, who: &Identity<'a>) -> Subject<'a> {
    Subject { user, client_identifier: who.client_identifier.as_str() }
}

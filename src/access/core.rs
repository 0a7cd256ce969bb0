//! One core's access control: who its connections are, and what was decided for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use flume::{Receiver, Sender};
use hashbrown::DefaultHashBuilder;
use shards::Text;

use crate::access::acl::{Rules, Subject, Wish};
use crate::access::cache::Decisions;
use crate::access::password_file::{NoMemory, User};
#[cfg(feature = "scram")]
use crate::access::methods::scram;
use crate::access::{Bell, Control, Snapshot};
use crate::base::clock::Now;
use crate::base::ids::Peer;
use crate::base::metrics::AccessCounts;
use crate::base::pool::Pool;
use crate::engine::{Access, Authentication, Credentials, Grant, IdentifierClaim, Identity};
use crate::message::Content;
use crate::wire::{Qos, ReasonCode};

/// The access control of one core.
pub struct CoreAccess {
    control: Arc<Control>,
    /// Which snapshot is in force costs a look at an atomic pointer.
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    /// By the slot of the connection.
    clients: Vec<Option<Box<Client>>>,
    answers: Receiver<(u64, Answer)>,
    answer: Sender<(u64, Answer)>,
    bell: Bell,
    hasher: DefaultHashBuilder,
    /// Steps taken since they were asked for.
    steps: usize,
}

/// What the pool found out about a client.
pub(super) type Answer = Result<Known, ReasonCode>;

/// Who a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Its name; none when it comes without.
    pub user: Option<Box<str>>,
    /// How long that holds.
    pub valid_for: Option<Duration>,
    /// What the password file says of it, where that was decisive.
    pub entry: Option<Arc<User>>,
}

/// A connection whose client has said who it is.
#[derive(Default)]
struct Client {
    exchange: u64,
    /// What is needed only until it is decided.
    asking: Option<Box<Asking>>,
    is_let_in: bool,
    user: Option<Box<str>>,
    /// What let it in, where that was the password file.
    entry: Option<Arc<User>>,
    /// Client Identifier, where it is counted how often it comes and goes.
    client_identifier: Box<str>,
    /// The snapshot that what follows is of; 0 for none yet.
    revision: u64,
    /// The sections of the rules that are for it.
    sections: Box<[u32]>,
    publishes_all: bool,
    decisions: Decisions,
}

/// A client about which nothing is decided yet.
struct Asking {
    client_identifier: Box<str>,
    address: Option<SocketAddr>,
    /// The connection that this one would take over.
    replaces: Option<u64>,
    /// An exchange of which the client's last message is awaited, and whose password it is about.
    #[cfg(feature = "scram")]
    scram: Option<(scram::Exchange, Option<Arc<User>>)>,
}

/// The way from the pool back to a core; says *no* when it is lost on a job that has begun.
struct Reply {
    exchange: u64,
    to: Sender<(u64, Answer)>,
    bell: Bell,
    is_given: bool,
}

impl Reply {
    fn give(mut self, answer: Answer) {
        self.send(answer);
    }

    fn send(&mut self, answer: Answer) {
        self.is_given = true;
        // A core that is gone needs no answer.
        let _ = self.to.send((self.exchange, answer));
        (self.bell)();
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
    pub(super) fn new(control: Arc<Control>, bell: Bell) -> Self {
        let (answer, answers) = flume::unbounded(); // as many at most as the pool takes
        Self {
            snapshot: Cache::new(Arc::clone(&control.snapshot)),
            control,
            clients: Vec::new(),
            answers,
            answer,
            bell,
            hasher: DefaultHashBuilder::default(),
            steps: 0,
        }
    }

    fn client(&mut self, exchange: u64) -> Option<&mut Client> {
        let client = self.clients.get_mut(exchange as u32 as usize)?.as_deref_mut();
        client.filter(|client| client.exchange == exchange)
    }

    /// Remembers who asks, with a connection that may be known already.
    fn note(&mut self, exchange: u64, who: &Credentials<'_>) {
        let asking = Asking {
            client_identifier: who.client_identifier.into(),
            address: who.address,
            replaces: who.replaces,
            #[cfg(feature = "scram")]
            scram: None,
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

    /// Lets somebody in who is known by now.
    fn admit(&mut self, now: Now, exchange: u64, known: Known, data: Vec<u8>) -> Authentication {
        if let (Some(user), Some(entry)) = (&known.user, &known.entry)
            && self.snapshot.load().entry_in_force(user, entry).is_err()
        {
            // The file was read anew while this was being worked out.
            return self.refuse(now, exchange, ReasonCode::NotAuthorized);
        }
        let Known { user, valid_for, entry } = known;
        let Some(client) = self.client(exchange) else {
            return Authentication::Refused(ReasonCode::UnspecifiedError);
        };
        if client.is_let_in {
            // It has authenticated anew: as the same, or the session would be another's.
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
            // Nothing will be asked about it.
            self.clients[exchange as u32 as usize] = None;
            return Authentication::Granted(Grant { data, user, valid_for });
        }
        let client = self.client(exchange).expect("just seen");
        client.is_let_in = true;
        client.user.clone_from(&user);
        client.entry = entry;
        if counts_flaps {
            client.client_identifier = asking.client_identifier;
        }
        Authentication::Granted(Grant { data, user, valid_for })
    }

    /// Counts a client that does not know what it has to, and says no.
    fn refuse(&mut self, now: Now, exchange: u64, reason: ReasonCode) -> Authentication {
        let address = self.asking(exchange).and_then(|asking| asking.address);
        self.control.guard.refused(now, address);
        Authentication::Refused(reason)
    }

    /// Has something worked out in a pool.
    fn ask(
        &self,
        pool: &Pool,
        exchange: u64,
        job: impl FnOnce() -> Answer + Send + 'static,
    ) -> Authentication {
        let (to, bell) = (self.answer.clone(), Arc::clone(&self.bell));
        let mut reply = Reply { exchange, to, bell, is_given: true };
        let outcome = pool.run(move || {
            reply.is_given = false;
            let answer = job();
            reply.give(answer);
        });
        match outcome {
            Ok(()) => Authentication::Pending,
            Err(crate::base::pool::Busy) => Authentication::Refused(ReasonCode::ServerBusy),
        }
    }

    /// A client without a name.
    fn let_in_anonymous(&mut self, now: Now, exchange: u64, listener: u16) -> Authentication {
        match self.control.is_anonymous_let_in(listener) {
            true => self.admit(now, exchange, Known::default(), Vec::new()),
            false => self.refuse(now, exchange, ReasonCode::NotAuthorized),
        }
    }

    /// A client with a User Name or a Password.
    fn check_password(&mut self, now: Now, exchange: u64, who: &Credentials<'_>) -> Authentication {
        let snapshot = Arc::clone(self.snapshot.load());
        let password = who.password.map(<[u8]>::to_vec);
        #[cfg(feature = "jwt")]
        if snapshot.keys.is_some()
            && let Some(token) = super::methods::jwt::token_of(who, self.control.settings.jwt.token_in)
        {
            let token = token.to_vec();
            return self.ask(&self.control.pool, exchange, move || {
                let keys = snapshot.keys.as_ref().expect("just seen");
                keys.verify(&token).map_err(|_| ReasonCode::BadUserNameOrPassword)
            });
        }
        if !self.control.settings.knows_users() {
            // Whatever it says of itself cannot be checked: it is nobody.
            return self.let_in_anonymous(now, exchange, who.listener);
        }
        let Some(user) = who.username.map(Box::<str>::from) else {
            return self.refuse(now, exchange, ReasonCode::BadUserNameOrPassword);
        };
        #[cfg(feature = "http-hook")]
        if let Some(hook) = &self.control.http
            && snapshot.passwords.user(&user).is_none()
        {
            let (hook, client) = (Arc::clone(hook), Box::<str>::from(who.client_identifier));
            let address = who.address.map(|address| address.ip());
            return self.ask(&self.control.asking, exchange, move || {
                hook.ask(user, &client, password.as_deref(), address)
            });
        }
        self.ask(&self.control.pool, exchange, move || {
            match snapshot.passwords.verify(&user, password.as_deref().unwrap_or_default()) {
                Err(NoMemory) => Err(ReasonCode::ServerUnavailable),
                Ok(true) => {
                    let entry = snapshot.passwords.user(&user).cloned();
                    Ok(Known { user: Some(user), valid_for: None, entry })
                }
                Ok(false) => Err(ReasonCode::BadUserNameOrPassword),
            }
        })
    }

    /// An enhanced authentication begins [MQTT-4.12].
    #[cfg_attr(not(feature = "scram"), expect(unused_variables, reason = "there is no method"))]
    fn begin_exchange(
        &mut self,
        now: Now,
        exchange: u64,
        method: &str,
        data: &[u8],
    ) -> Authentication {
        #[cfg(feature = "scram")]
        if method == scram::METHOD && self.control.settings.has_password_file() {
            let snapshot = Arc::clone(self.snapshot.load());
            let mut entry = None;
            let find = |user: &str| {
                entry = snapshot.passwords.user(user).cloned();
                scram::Verifier::parse(entry.as_ref()?.verifier.as_deref()?)
            };
            return match scram::Exchange::begin(data, &snapshot.scram_secret, find) {
                Ok((begun, answer)) => {
                    if let Some(asking) = self.asking(exchange) {
                        asking.scram = Some((begun, entry));
                    }
                    Authentication::Continue(answer)
                }
                Err(scram::Failed) => self.refuse(now, exchange, ReasonCode::NotAuthorized),
            };
        }
        // [MQTT-4.12.0-1]
        self.refuse(now, exchange, ReasonCode::BadAuthenticationMethod)
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
        if let Some((method, data)) = who.method {
            return self.begin_exchange(now, exchange, method, data);
        }
        if self.control.settings.certificate_names
            && let Some(name) = who.certificate.and_then(|certificate| certificate.name.clone())
        {
            let known = Known { user: Some(name), ..Known::default() };
            return self.admit(now, exchange, known, Vec::new());
        }
        match (who.username, who.password) {
            (None, None) => self.let_in_anonymous(now, exchange, who.listener),
            _ => self.check_password(now, exchange, who),
        }
    }

    #[cfg(feature = "scram")]
    fn proceed(&mut self, now: Now, exchange: u64, data: &[u8]) -> Authentication {
        let begun = self.asking(exchange).and_then(|asking| asking.scram.take());
        let finish = |(begun, entry): (scram::Exchange, _)| Ok((begun.finish(data)?, entry));
        match begun.ok_or(scram::Failed).and_then(finish) {
            Ok(((user, answer), entry)) => {
                let known = Known { user: Some(user), valid_for: None, entry };
                self.admit(now, exchange, known, answer)
            }
            Err(scram::Failed) => self.refuse(now, exchange, ReasonCode::NotAuthorized),
        }
    }

    fn poll_answer(&mut self, now: Now) -> Option<(u64, Authentication)> {
        loop {
            let (exchange, answer) = self.answers.try_recv().ok()?;
            if self.client(exchange).is_none() {
                continue; // its connection is gone
            }
            let authentication = match answer {
                Ok(known) => self.admit(now, exchange, known, Vec::new()),
                Err(ReasonCode::ServerUnavailable) => {
                    Authentication::Refused(ReasonCode::ServerUnavailable)
                }
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
            && client.is_let_in
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
        match snapshot.entry_in_force(user, entry) {
            Ok(same) => {
                // So that the older one can go.
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
    /// Forgets what was decided under other rules.
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

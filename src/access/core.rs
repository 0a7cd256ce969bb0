//! The access control of one core: the user of each connection, and the decisions made for it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use flume::{Receiver, Sender};
use hashbrown::DefaultHashBuilder;

use crate::access::acl::{Covered, Rules, Subject, Wish};
use crate::access::authorization::{Action, Question, Questions};
use crate::access::cache::Decided;
use crate::access::client::{Asking, Client, Origins, known, subject};
use crate::access::decide::{Asked, Open, Verdict, answered, ask};
use crate::access::dynamic_security::{self, Publication, Receiving};
use crate::access::methods::{Answer, Job, Known, Step, Workers};
use crate::access::read_rules::Reading;
use crate::access::reply::{Reply, not_authorized, refused_unheard, run_for};
use crate::access::{Control, Notify, Snapshot};
use crate::base::clock::Now;
use crate::base::ids::Peer;
use crate::base::metrics::AccessCounts;
use crate::base::pool::Busy;
use crate::engine::{
    Access, Authentication, Cause, ControlTopic, Coverage, Credentials, Decision, Grant,
    IdentifierClaim, Identity, ReadRules, Rejection, WillOwner,
};
use crate::message::Content;
use crate::wire::{Qos, ReasonCode};

/// The access control of one core.
pub struct CoreAccess {
    control: Arc<Control>,
    /// Reading the current snapshot costs the load of an atomic pointer.
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    /// By the slot of the connection.
    clients: Vec<Option<Box<Client>>>,
    origins: Origins,
    answers: Receiver<(u64, Answer)>,
    answer: Sender<(u64, Answer)>,
    notify: Notify,
    hasher: DefaultHashBuilder,
    /// Steps since [`Access::take_steps`] was called last.
    steps: usize,
    /// Clients that bring rules along, and the memory of these rules.
    granted: Granted,
    questions: Questions,
    /// Answers to commands of dynamic security, which the engine publishes.
    publications: Receiver<Publication>,
    publish: Sender<Publication>,
}

/// What clients bring along.
#[derive(Default)]
struct Granted {
    clients: usize,
    bytes: usize,
}

impl CoreAccess {
    /// Of a core with connections that came through these listeners.
    pub(super) fn new(control: Arc<Control>, notify: Notify, origins: Origins) -> Self {
        let (answer, answers) = flume::unbounded(); // bounded by the pools
        let (publish, publications) = flume::unbounded(); // bounded by the queue of commands
        Self {
            snapshot: Cache::new(Arc::clone(&control.snapshot)),
            questions: Questions::new(&control, &notify),
            control,
            clients: Vec::new(),
            origins,
            answers,
            answer,
            notify,
            hasher: DefaultHashBuilder::default(),
            steps: 0,
            granted: Granted::default(),
            publications,
            publish,
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
        let has_own_users = self.snapshot.load().own_passwords_of(who.listener).is_some();
        let client = self.client(exchange).expect("just made");
        client.listener = who.listener;
        client.has_own_users = has_own_users;
        client.asking = Some(Box::new(asking));
    }

    fn asking(&mut self, exchange: u64) -> Option<&mut Asking> {
        self.client(exchange)?.asking.as_deref_mut()
    }

    /// Admits an authenticated client.
    fn admit(&mut self, now: Now, exchange: u64, known: Known, data: Vec<u8>) -> Authentication {
        let listener = self.client(exchange).map_or(0, |client| client.listener);
        if let (Some(user), Some(entry)) = (&known.user, &known.entry)
            && self.snapshot.load().current_entry(listener, user, entry).is_err()
        {
            // The users have changed meanwhile.
            return self.refuse(now, exchange, not_authorized(Cause::CredentialsWithdrawn));
        }
        let Known { user, valid_for, entry, grants } = known;
        let stamp = match self.admit_by_security(exchange, user.as_deref()) {
            Ok(stamp) => stamp,
            Err(rejection) => return self.refuse(now, exchange, rejection.of_user(user)),
        };
        let Some(client) = self.client(exchange) else { return refused_unheard() };
        if client.is_authenticated {
            // Re-authentication must not change the user: the session belongs to the user.
            if client.user != user {
                let rejection = not_authorized(Cause::UserChanged).of_user(user);
                return self.refuse(now, exchange, rejection);
            }
            client.asking = None;
            client.entry = entry;
            client.stamp = stamp;
            return Authentication::Granted(Grant { data, user, valid_for });
        }
        let Some(asking) = client.asking.take() else { return refused_unheard() };
        if self.control.guard.is_banned(now, user.as_deref(), &asking.client_identifier) {
            let banned = Rejection::new(ReasonCode::Banned, Cause::Banned);
            return Authentication::Refused(banned.of_user(user));
        }
        if let Some(user) = &user {
            let replaced = asking.replaces.and_then(|other| self.client(other)?.user.clone());
            if !self.control.guard.enter_user(user, replaced.as_ref() == Some(user)) {
                let full = Rejection::new(ReasonCode::QuotaExceeded, Cause::ConnectionsOfUser);
                return Authentication::Refused(full.of_user(Some(user.clone())));
            }
        }
        let (has_rules, counts_flaps) =
            (self.snapshot.load().rules.has_any(), self.control.guard.counts_flaps());
        if user.is_none() && !has_rules && !counts_flaps {
            // No later decision needs the client.
            self.clients[exchange as u32 as usize] = None;
            return Authentication::Granted(Grant { data, user, valid_for });
        }
        if let Some(grants) = &grants {
            self.granted.clients += 1;
            self.granted.bytes += grants.bytes();
        }
        let client = self.client(exchange).expect("just seen");
        client.is_authenticated = true;
        client.user.clone_from(&user);
        client.entry = entry;
        client.stamp = stamp;
        client.grants = grants;
        if counts_flaps {
            client.client_identifier = asking.client_identifier;
        }
        Authentication::Granted(Grant { data, user, valid_for })
    }

    /// The mark of a client in dynamic security, or why it is not admitted there.
    fn admit_by_security(&mut self, exchange: u64, user: Option<&str>) -> Result<u64, Rejection> {
        let Some(security) = self.snapshot.load().security.clone() else { return Ok(0) };
        let identifier = self.asking(exchange).map(|asking| asking.client_identifier.clone());
        match security.admits(user, identifier.as_deref().unwrap_or_default()) {
            true => Ok(security.stamp(user)),
            false => Err(not_authorized(Cause::DynamicSecurity)),
        }
    }

    /// Refuses a client, and counts the refusal for its address unless a server or memory was missing.
    fn refuse(&mut self, now: Now, exchange: u64, rejection: Rejection) -> Authentication {
        if rejection.reason != ReasonCode::ServerUnavailable {
            let address = self.asking(exchange).and_then(|asking| asking.address);
            self.control.guard.refused(now, address);
        }
        Authentication::Refused(rejection)
    }

    /// Processes the outcome of a part of an authentication.
    fn process(&mut self, now: Now, exchange: u64, step: Step) -> Authentication {
        match step {
            Step::Granted(known, data) => self.admit(now, exchange, known, data),
            Step::Refused(rejection) => self.refuse(now, exchange, rejection),
            Step::Continue(data, next) => {
                if let Some(asking) = self.asking(exchange) {
                    asking.next = Some(next);
                }
                Authentication::Continue(data)
            }
            Step::Pending(workers, job) => self.run(workers, exchange, job),
        }
    }

    /// Decides about a subscription; asks a server only if `asks`.
    fn decide_subscription(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        filter: &str,
        qos: Qos,
        asks: bool,
    ) -> Decision<Qos> {
        let snapshot = self.snapshot.load();
        let (authorizer, security) = (snapshot.authorizer.as_ref(), snapshot.security.as_deref());
        if !snapshot.rules.has_any() && self.granted.clients == 0 && authorizer.is_none() {
            return Decision::Allowed(qos);
        }
        let client = known(&mut self.clients, &self.origins, who.exchange);
        let rules = snapshot.rules.of(client.listener).map(|rules| &**rules);
        if rules.is_some_and(Rules::is_filtering) {
            return Decision::Allowed(qos);
        }
        client.refresh(snapshot, who);
        let Client { sections, user, known_as, grants, question, is_exempt, .. } = client;
        if *is_exempt {
            return Decision::Allowed(qos);
        }
        let asked = Asked { rules, security, sections, grants: grants.as_ref(), authorizer };
        let wish = Wish::Subscribe { filter, qos };
        let subject = subject(user.as_deref(), known_as.as_deref(), who);
        let authorizer = match asked.decide(&subject, &wish, &mut self.steps) {
            Verdict::Allowed(qos) => return Decision::Allowed(qos),
            Verdict::Denied => return Decision::Denied,
            // The server was asked when the client subscribed.
            Verdict::Undecided(_) if !asks => return Decision::Allowed(qos),
            Verdict::Undecided(authorizer) => authorizer,
        };
        let client = subject.client_identifier;
        let asks = Question::new(Action::Subscribe, user.as_deref(), client, filter);
        match answered(question, &self.questions, now, authorizer, &asks) {
            Some(Decided { is_allowed: true, .. }) => Decision::Allowed(qos),
            Some(Decided { is_allowed: false, .. }) => Decision::Denied,
            None => {
                ask(question, &self.questions, who.exchange, authorizer, asks);
                Decision::Pending
            }
        }
    }

    /// Runs a job in a pool.
    fn run(&self, workers: Workers, exchange: u64, job: Job) -> Authentication {
        let reply = Reply::new(exchange, self.answer.clone(), Arc::clone(&self.notify));
        let outcome = run_for(&self.control, workers, reply, job);
        match outcome {
            Ok(()) => Authentication::Pending,
            Err(Busy) => Authentication::Refused(Rejection::new(
                ReasonCode::ServerBusy,
                Cause::AuthenticationBusy,
            )),
        }
    }
}

impl Access for CoreAccess {
    fn may_stay(&mut self, now: Now, peer: &Peer) -> Result<(), Cause> {
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
        self.origins.note(exchange, who.listener);
        self.note(exchange, who);
        let snapshot = self.snapshot.load();
        let step = snapshot.methods.begin(who, snapshot.passwords_of(who.listener));
        self.process(now, exchange, step)
    }

    fn admit_bridge(
        &mut self,
        exchange: u64,
        client_identifier: &str,
        user: Option<Box<str>>,
    ) -> Authentication {
        self.origins.note_bridge(exchange);
        let slot = exchange as u32 as usize;
        if self.clients.len() <= slot {
            self.clients.resize_with(slot + 1, || None);
        }
        // A bridge counts for no user: it is one connection, which the configuration bounds.
        self.clients[slot] = Some(Box::new(Client {
            exchange,
            listener: self.origins.of(exchange),
            is_exempt: user.is_none(),
            user: user.clone(),
            known_as: Some(client_identifier.into()),
            client_identifier: client_identifier.into(),
            ..Client::default()
        }));
        Authentication::Granted(Grant { user, ..Grant::default() })
    }

    fn proceed(&mut self, now: Now, exchange: u64, data: &[u8]) -> Authentication {
        match self.asking(exchange).and_then(|asking| asking.next.take()) {
            Some(next) => self.process(now, exchange, next.proceed(data)),
            None => self.refuse(now, exchange, not_authorized(Cause::AuthenticationData)),
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
                Err(rejection) => self.refuse(now, exchange, rejection),
            };
            return Some((exchange, authentication));
        }
    }

    fn forget(&mut self, exchange: u64) {
        if self.client(exchange).is_none() {
            return;
        }
        let Some(client) = self.clients[exchange as u32 as usize].take() else { return };
        if let Some(grants) = &client.grants {
            self.granted.clients -= 1;
            self.granted.bytes -= grants.bytes();
        }
        if client.is_authenticated
            && let Some(user) = &client.user
        {
            self.control.guard.user_left(user);
        }
    }

    fn claims_identifier(&mut self, who: &Identity<'_>) -> IdentifierClaim {
        let snapshot = self.snapshot.load();
        let Some(rules) = snapshot.rules.of(self.origins.of(who.exchange)) else {
            return IdentifierClaim::Open;
        };
        let client = self.clients.get(who.exchange as u32 as usize).and_then(Option::as_ref);
        let user = client.and_then(|client| client.user.as_deref());
        match rules.decide_identifier(&subject(user, None, who)) {
            Some(verdict) if !verdict.is_allowed => IdentifierClaim::Denied,
            Some(verdict) if verdict.is_own => IdentifierClaim::Own,
            Some(_) => IdentifierClaim::Allowed,
            None => IdentifierClaim::Open,
        }
    }

    fn may_publish(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        topic: &str,
        qos: Qos,
        retain: bool,
    ) -> Decision {
        let snapshot = self.snapshot.load();
        let authorizer = snapshot.authorizer.as_ref();
        if !snapshot.rules.has_any() && self.granted.clients == 0 && authorizer.is_none() {
            return Decision::Allowed(());
        }
        let client = known(&mut self.clients, &self.origins, who.exchange);
        client.refresh(snapshot, who);
        if client.publishes_all && !topic.starts_with('$') {
            return Decision::Allowed(());
        }
        let Client { decisions, sections, user, known_as, grants, question, listener, .. } = client;
        let (steps, questions) = (&mut self.steps, &self.questions);
        let mut unanswered = None;
        let decided = decisions.decide(&self.hasher, topic, qos, retain, now, || {
            let security = snapshot.security.as_deref();
            let rules = snapshot.rules.of(*listener).map(|rules| &**rules);
            let asked = Asked { rules, security, sections, grants: grants.as_ref(), authorizer };
            let wish = Wish::Publish { topic, qos, retain };
            let subject = subject(user.as_deref(), known_as.as_deref(), who);
            match asked.decide(&subject, &wish, steps) {
                Verdict::Allowed(_) => Some(Decided::by_rule(true)),
                Verdict::Denied => Some(Decided::by_rule(false)),
                Verdict::Undecided(authorizer) => {
                    let client = subject.client_identifier;
                    let asks = Question::new(Action::Publish, user.as_deref(), client, topic);
                    let found = answered(question, questions, now, authorizer, &asks);
                    unanswered = found.is_none().then(|| (Arc::clone(authorizer), asks));
                    found
                }
            }
        });
        if let Some((authorizer, asks)) = unanswered {
            ask(question, &self.questions, who.exchange, &authorizer, asks);
        }
        decided.map_or(Decision::Pending, Decision::of)
    }

    fn has_topic_rules(&mut self, exchange: u64) -> bool {
        self.snapshot.load().rules.of(self.origins.of(exchange)).is_some()
    }

    fn has_topic_rules_of(&mut self, listener: u16) -> bool {
        self.snapshot.load().rules.of(listener).is_some()
    }

    fn may_subscribe(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        filter: &str,
        qos: Qos,
    ) -> Decision<Qos> {
        self.decide_subscription(now, who, filter, qos, true)
    }

    fn read_rules(&mut self) -> Option<Arc<dyn ReadRules>> {
        let snapshot = self.snapshot.load();
        if let Some(security) = &snapshot.security {
            return Some(Arc::new(Receiving(Arc::clone(security))));
        }
        let is_filtering = snapshot.rules.are_filtering();
        is_filtering.then(|| -> Arc<dyn ReadRules> { Arc::new(Reading(snapshot.rules.clone())) })
    }

    fn coverage(&mut self, who: &Identity<'_>, filter: &str) -> Coverage {
        let snapshot = self.snapshot.load();
        let client = self.clients.get(who.exchange as u32 as usize).and_then(Option::as_deref);
        if client.is_some_and(|client| client.exchange == who.exchange && client.is_exempt) {
            return Coverage::Whole;
        }
        if let Some(security) = &snapshot.security {
            let client = known(&mut self.clients, &self.origins, who.exchange);
            let subject = client.subject(who);
            return security.coverage(&subject, filter, &mut self.steps);
        }
        let rules = snapshot.rules.of(self.origins.of(who.exchange));
        let Some(rules) = rules.filter(|rules| rules.is_filtering()) else {
            return Coverage::Whole;
        };
        let client = known(&mut self.clients, &self.origins, who.exchange);
        client.refresh(snapshot, who);
        let subject = client.subject(who);
        self.steps += 2 * rules.steps(&client.sections, filter);
        let (coverage, is_denied) = match rules.covered(&client.sections, &subject, filter) {
            Covered::Whole => return Coverage::Whole,
            Covered::Part { is_denied } => (Coverage::Part, is_denied),
            Covered::Nothing { is_denied } => (Coverage::Nothing, is_denied),
        };
        // What no rule of the broker decides is up to those that the client brought along.
        match client.grants.as_ref().filter(|_| !is_denied) {
            Some(grants) => {
                self.steps += grants.steps(filter);
                let wish = Wish::Subscribe { filter, qos: Qos::AtMostOnce };
                let is_granted = grants.decide(&subject, &wish).qos.is_some();
                if is_granted { Coverage::Whole } else { coverage }
            }
            None => coverage,
        }
    }

    fn may_receive(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        topic: &str,
        qos: Qos,
        shared: Option<&str>,
    ) -> bool {
        let snapshot = self.snapshot.load();
        let is_filtering = snapshot.security.is_some()
            || snapshot.rules.are_filtering_for(self.origins.of(who.exchange));
        match is_filtering {
            true => self.coverage(who, topic) != Coverage::Nothing,
            false => {
                let share =
                    shared.and_then(|filter| filter.strip_prefix("$share/")?.split_once('/'));
                match share {
                    None => self.may_keep(now, who, topic, qos),
                    Some((name, _)) => {
                        self.may_keep(now, who, &format!("$share/{name}/{topic}"), qos)
                    }
                }
            }
        }
    }

    fn may_keep(&mut self, now: Now, who: &Identity<'_>, filter: &str, qos: Qos) -> bool {
        self.decide_subscription(now, who, filter, qos, false) != Decision::Denied
    }

    fn poll_decided(&mut self, now: Now) -> Option<u64> {
        loop {
            let (exchange, question, decided) = self.questions.poll(now)?;
            if let Some(client) = self.client(exchange) {
                client.question = Some(Box::new(Open::Answered(question, decided)));
                return Some(exchange);
            }
        }
    }

    fn may_publish_will(
        &mut self,
        of: &WillOwner<'_>,
        will: &Content<'_>,
        retain: bool,
        is_granted: bool,
    ) -> bool {
        let snapshot = self.snapshot.load();
        let Some(rules) = snapshot.rules.of(of.listener) else { return true };
        let client_identifier = of.client_identifier.as_str();
        let subject = Subject { user: of.user, client_identifier };
        if let Some(security) = &snapshot.security {
            let wish = Wish::Publish { topic: will.topic, qos: will.qos, retain };
            return dynamic_security::control_topic(will.topic) == ControlTopic::No
                && security.decide(&subject, &wish, &mut self.steps);
        }
        let sections = rules.sections_of(&subject);
        self.steps += rules.steps(&sections, will.topic);
        let wish = Wish::Publish { topic: will.topic, qos: will.qos, retain };
        let verdict = rules.decide(&sections, &subject, &wish);
        // Something else that allowed it at CONNECT counts where no rule decides, or where it is asked after the rules.
        let overrules = snapshot.authorizer.as_ref().is_some_and(|of| of.is_asked_after_rules());
        verdict.qos.is_some() || is_granted && (verdict.by.is_none() || overrules)
    }

    fn withdrawn(&mut self, exchange: u64) -> Option<ReasonCode> {
        let snapshot = self.snapshot.load();
        let client = self.clients.get_mut(exchange as u32 as usize)?.as_deref_mut()?;
        if let Some(security) = &snapshot.security
            && security.stamp(client.user.as_deref()) != client.stamp
        {
            return Some(ReasonCode::AdministrativeAction);
        }
        // The clients of a listener that is removed stay, and nobody says any more which users it knew.
        if client.has_own_users && snapshot.is_gone(client.listener) {
            return None;
        }
        let (user, entry) = (client.user.as_deref()?, client.entry.as_mut()?);
        match snapshot.current_entry(client.listener, user, entry) {
            Ok(same) => {
                // Frees the entry of an older snapshot.
                entry.clone_from(same);
                None
            }
            Err(reason) => Some(reason),
        }
    }

    fn may_unsubscribe(&mut self, who: &Identity<'_>, filter: &str) -> bool {
        let Some(security) = &self.snapshot.load().security else { return true };
        let client = known(&mut self.clients, &self.origins, who.exchange);
        security.may_unsubscribe(&client.subject(who), filter, &mut self.steps)
    }

    fn control_topic(&mut self, topic: &str) -> ControlTopic {
        match self.snapshot.load().security {
            None => ControlTopic::No,
            Some(_) => dynamic_security::control_topic(topic),
        }
    }

    fn command(&mut self, who: &Identity<'_>, payload: &[u8]) -> bool {
        let client = known(&mut self.clients, &self.origins, who.exchange);
        let (reply, notify) = (self.publish.clone(), Arc::clone(&self.notify));
        self.control.command(&client.subject(who), payload, reply, notify)
    }

    fn poll_publication(&mut self) -> Option<(&'static str, Vec<u8>)> {
        self.publications.try_recv().ok()
    }

    fn revision(&mut self) -> u64 {
        self.snapshot.load().revision
    }

    fn held_bytes(&self) -> usize {
        self.granted.bytes + self.questions.bytes()
    }

    fn take_steps(&mut self) -> usize {
        std::mem::take(&mut self.steps)
    }

    fn counts(&self) -> AccessCounts {
        self.control.counts()
    }
}

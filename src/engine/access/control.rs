//! Owner of a core's access control: decisions charge the turn's budget for the rules that they
//! evaluated, and a change of credentials or rules starts a check of all connected clients.

use std::sync::Arc;

use shards::Text;

use crate::base::clock::Now;
use crate::base::ids::Peer;
use crate::base::metrics::AccessCounts;
use crate::control::{AccessChecked, Reply};
use crate::engine::access::{
    Access, Authentication, ControlTopic, Coverage, Credentials, Decision, IdentifierClaim,
    Identity, ReadRules, WillOwner,
};
use crate::engine::cause::Cause;
use crate::engine::sys_topics::{self, Writer};
use crate::engine::work::Work;
use crate::message::Content;
use crate::resources::gauges::{Charge, Ledger};
use crate::wire::{Qos, ReasonCode};

/// The access control of a core.
pub(in crate::engine) struct AccessControl {
    access: Box<dyn Access>,
    /// Revision of the rules by which connected clients were checked last; 0 if rules never change.
    checked_revision: u64,
    recheck: Option<Recheck>,
    /// Commands that wait for the end of the running check.
    waiting: Vec<Reply<AccessChecked>>,
    /// Counters when that check began.
    before: AccessChecked,
    /// What came of the last check that is complete.
    last: AccessChecked,
    /// What the access control holds of clients, on the ledger.
    charge: Charge,
}

/// A message that a client wants to publish.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Message<'a> {
    pub topic: &'a str,
    pub payload_bytes: usize,
    pub qos: Qos,
    pub retain: bool,
}

/// Position of the check of all connected clients, which can take several turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Recheck {
    /// Index of the session to check next.
    pub session: usize,
    /// Number of its subscriptions that are not checked yet; none before its credentials are checked.
    pub subscriptions_left: Option<usize>,
}

impl AccessControl {
    pub fn new(mut access: Box<dyn Access>, ledger: &Ledger) -> Self {
        Self {
            checked_revision: access.revision(),
            access,
            recheck: None,
            waiting: Vec::new(),
            before: AccessChecked::default(),
            last: AccessChecked::default(),
            charge: Charge::on(ledger),
        }
    }

    /// Charges what the access control holds.
    fn settle(&mut self) {
        self.charge.update(self.access.held_bytes());
    }

    /// Continues with other access control, if a reload has begun it.
    pub fn renew(&mut self) {
        if let Some(access) = self.access.replacement() {
            self.access = access;
        }
    }

    /// Whether decisions can change while the broker runs.
    pub fn has_rules(&mut self) -> bool {
        self.access.revision() != 0
    }

    /// Position of the check of connected clients, or none if no check is under way. A change of
    /// credentials or rules since the last check starts one.
    pub fn recheck(&mut self) -> Option<Recheck> {
        let revision = self.access.revision();
        if self.checked_revision != revision {
            self.checked_revision = revision;
            self.recheck = Some(Recheck::default());
        }
        self.recheck
    }

    /// Answers once the check of connected clients is complete, with what came of it. The core may have been woken by
    /// the change, and the check be complete, before the question arrives.
    pub fn answer_when_checked(&mut self, reply: Reply<AccessChecked>) {
        match self.recheck() {
            Some(_) => self.waiting.push(reply),
            None => reply.send(self.last),
        }
    }

    /// The check begins; `counted` is what came of all earlier ones.
    pub fn begin_recheck(&mut self, counted: AccessChecked) {
        self.before = counted;
    }

    /// The check continues at this position in the next turn.
    pub fn continue_recheck_at(&mut self, at: Recheck) {
        self.recheck = Some(at);
    }

    /// The check is complete; `counted` is what came of all checks so far.
    pub fn end_recheck(&mut self, counted: AccessChecked) {
        self.recheck = None;
        let before = self.before;
        self.last = AccessChecked {
            clients_disconnected: counted.clients_disconnected - before.clients_disconnected,
            subscriptions_ended: counted.subscriptions_ended - before.subscriptions_ended,
        };
        self.waiting.drain(..).for_each(|reply| reply.send(self.last));
    }

    /// Whether a check of connected clients is under way.
    pub fn is_rechecking(&self) -> bool {
        self.recheck.is_some()
    }

    /// Whether some earlier decisions may not hold any more: a check is due or under way.
    pub fn has_changed(&mut self) -> bool {
        self.recheck.is_some() || self.checked_revision != self.access.revision()
    }

    /// See [`Access::may_stay`].
    pub fn may_stay(&mut self, now: Now, peer: &Peer) -> Result<(), Cause> {
        self.access.may_stay(now, peer)
    }

    /// See [`Access::gone`].
    pub fn gone(&mut self, now: Now, peer: &Peer, exchange: u64, was_open: bool) {
        self.access.gone(now, peer, exchange, was_open);
    }

    /// See [`Access::authenticate`].
    pub fn authenticate(
        &mut self,
        now: Now,
        exchange: u64,
        who: &Credentials<'_>,
    ) -> Authentication {
        let authentication = self.access.authenticate(now, exchange, who);
        self.settle();
        authentication
    }

    /// See [`Access::admit_bridge`].
    #[cfg(feature = "bridge")]
    pub fn admit_bridge(
        &mut self,
        exchange: u64,
        client_identifier: &str,
        user: Option<Box<str>>,
    ) -> Authentication {
        self.access.admit_bridge(exchange, client_identifier, user)
    }

    /// See [`Access::proceed`].
    pub fn proceed(&mut self, now: Now, exchange: u64, data: &[u8]) -> Authentication {
        self.access.proceed(now, exchange, data)
    }

    /// See [`Access::poll_answer`].
    pub fn poll_answer(&mut self, now: Now) -> Option<(u64, Authentication)> {
        let answer = self.access.poll_answer(now);
        self.settle();
        answer
    }

    /// See [`Access::forget`].
    pub fn forget(&mut self, exchange: u64) {
        self.access.forget(exchange);
        self.settle();
    }

    /// See [`Access::withdrawn`].
    pub fn withdrawn(&mut self, exchange: u64) -> Option<ReasonCode> {
        self.access.withdrawn(exchange)
    }

    /// See [`Access::claims_identifier`].
    pub fn claims_identifier(&mut self, who: &Identity<'_>) -> IdentifierClaim {
        self.access.claims_identifier(who)
    }

    /// See [`Access::poll_decided`].
    pub fn poll_decided(&mut self, now: Now) -> Option<u64> {
        let decided = self.access.poll_decided(now);
        self.settle();
        decided
    }

    /// Whether a client may publish a message. See [`Access::may_publish`] and, for topics below `$SYS`, [`Writer`].
    #[inline]
    pub fn may_publish(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        message: &Message<'_>,
        work: &mut Work,
    ) -> Decision {
        let Message { topic, payload_bytes, qos, retain } = *message;
        if topic.starts_with('$')
            && let Some(decided) = self.decide_of_broker(who, topic, payload_bytes)
        {
            return Decision::of(decided);
        }
        let decision = self.access.may_publish(now, who, topic, qos, retain);
        if self.checked_revision != 0 {
            work.spend(self.access.take_steps());
        }
        decision
    }

    /// The decision about a message to a topic of the broker's own; none where the topic is as any other.
    #[cold]
    fn decide_of_broker(
        &mut self,
        who: &Identity<'_>,
        topic: &str,
        payload_bytes: usize,
    ) -> Option<bool> {
        if sys_topics::is_below_root(topic) {
            let exchange = who.exchange;
            return decide_below_sys(who.client_identifier, topic, payload_bytes, || {
                self.access.has_topic_rules(exchange)
            });
        }
        match self.access.control_topic(topic) {
            ControlTopic::No => None,
            // Commands are no messages for subscribers.
            ControlTopic::Reserved | ControlTopic::Commands => Some(false),
        }
    }

    /// Whether a message that is denied is a command to the broker, which its client may give.
    pub fn is_command(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        message: &Message<'_>,
        work: &mut Work,
    ) -> bool {
        let Message { topic, qos, retain, .. } = *message;
        let is_command = self.access.control_topic(topic) == ControlTopic::Commands
            && self.access.may_publish(now, who, topic, qos, retain) == Decision::Allowed(());
        work.spend(self.access.take_steps());
        is_command
    }

    /// See [`Access::may_subscribe`].
    pub fn may_subscribe(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        filter: &str,
        qos: Qos,
        work: &mut Work,
    ) -> Decision<Qos> {
        let decision = self.access.may_subscribe(now, who, filter, qos);
        work.spend(self.access.take_steps());
        decision
    }

    /// See [`Access::may_unsubscribe`].
    pub fn may_unsubscribe(&mut self, who: &Identity<'_>, filter: &str, work: &mut Work) -> bool {
        let is_allowed = self.access.may_unsubscribe(who, filter);
        work.spend(self.access.take_steps());
        is_allowed
    }

    /// See [`Access::command`].
    pub fn command(&mut self, who: &Identity<'_>, payload: &[u8]) -> bool {
        self.access.command(who, payload)
    }

    /// See [`Access::poll_publication`].
    pub fn poll_publication(&mut self) -> Option<(&'static str, Vec<u8>)> {
        self.access.poll_publication()
    }

    /// See [`Access::read_rules`].
    pub fn read_rules(&mut self) -> Option<Arc<dyn ReadRules>> {
        self.access.read_rules()
    }

    /// See [`Access::coverage`].
    pub fn coverage(&mut self, who: &Identity<'_>, filter: &str, work: &mut Work) -> Coverage {
        let coverage = self.access.coverage(who, filter);
        work.spend(self.access.take_steps());
        coverage
    }

    /// See [`Access::may_keep`].
    pub fn may_keep(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        filter: &str,
        qos: Qos,
        work: &mut Work,
    ) -> bool {
        let is_allowed = self.access.may_keep(now, who, filter, qos);
        work.spend(self.access.take_steps());
        is_allowed
    }

    /// See [`Access::may_receive`].
    pub fn may_receive(
        &mut self,
        now: Now,
        who: &Identity<'_>,
        topic: &str,
        qos: Qos,
        shared: Option<&str>,
        work: &mut Work,
    ) -> bool {
        let is_allowed = self.access.may_receive(now, who, topic, qos, shared);
        work.spend(self.access.take_steps());
        is_allowed
    }

    /// See [`Access::may_publish_will`].
    pub fn may_publish_will(
        &mut self,
        of: &WillOwner<'_>,
        will: &Content<'_>,
        retain: bool,
        is_granted: bool,
        work: &mut Work,
    ) -> bool {
        let has_rules = || self.access.has_topic_rules_of(of.listener);
        if sys_topics::is_below_root(will.topic)
            && let Some(decided) =
                decide_below_sys(of.client_identifier, will.topic, will.payload.len(), has_rules)
        {
            return decided;
        }
        let is_allowed = self.access.may_publish_will(of, will, retain, is_granted);
        work.spend(self.access.take_steps());
        is_allowed
    }

    /// See [`Access::counts`].
    pub fn counts(&self) -> AccessCounts {
        self.access.counts()
    }
}

/// Whether a client may publish to a topic below `$SYS`; none where the access rules decide that apply to it.
#[cold]
fn decide_below_sys(
    client_identifier: &Text,
    topic: &str,
    payload_bytes: usize,
    has_rules: impl FnOnce() -> bool,
) -> Option<bool> {
    match sys_topics::writer_of(topic, client_identifier.as_str(), payload_bytes) {
        Writer::Client => Some(true),
        Writer::Broker => Some(false),
        Writer::ByRule => (!has_rules()).then_some(false),
    }
}

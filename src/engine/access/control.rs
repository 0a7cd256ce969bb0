//! Owner of a core's access control: decisions charge the turn's budget for the rules that they
//! evaluated, and a change of credentials or rules starts a check of all connected clients.

use shards::Text;

use crate::base::clock::Now;
use crate::base::ids::Peer;
use crate::base::metrics::AccessCounts;
use crate::engine::access::{Access, Authentication, Credentials, IdentifierClaim, Identity};
use crate::engine::work::Work;
use crate::message::Content;
use crate::wire::{Qos, ReasonCode};

/// The access control of a core.
pub(in crate::engine) struct AccessControl {
    access: Box<dyn Access>,
    /// Revision of the rules by which connected clients were checked last; 0 if rules never change.
    checked_revision: u64,
    recheck: Option<Recheck>,
}

/// Position of the check of all connected clients, which can take several turns.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Recheck {
    /// Index of the session to check next.
    pub session: usize,
    /// Number of its subscriptions that are not checked yet; none before its credentials are checked.
    pub subscriptions_left: Option<usize>,
}

impl AccessControl {
    pub fn new(mut access: Box<dyn Access>) -> Self {
        Self { checked_revision: access.revision(), access, recheck: None }
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

    /// Stores the position at which the check continues in the next turn; none once it is complete.
    pub fn set_recheck(&mut self, at: Option<Recheck>) {
        self.recheck = at;
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
    pub fn may_stay(&mut self, now: Now, peer: &Peer) -> bool {
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
        self.access.authenticate(now, exchange, who)
    }

    /// See [`Access::proceed`].
    pub fn proceed(&mut self, now: Now, exchange: u64, data: &[u8]) -> Authentication {
        self.access.proceed(now, exchange, data)
    }

    /// See [`Access::poll_answer`].
    pub fn poll_answer(&mut self, now: Now) -> Option<(u64, Authentication)> {
        self.access.poll_answer(now)
    }

    /// See [`Access::forget`].
    pub fn forget(&mut self, exchange: u64) {
        self.access.forget(exchange);
    }

    /// See [`Access::withdrawn`].
    pub fn withdrawn(&mut self, exchange: u64) -> Option<ReasonCode> {
        self.access.withdrawn(exchange)
    }

    /// See [`Access::claims_identifier`].
    pub fn claims_identifier(&mut self, who: &Identity<'_>) -> IdentifierClaim {
        self.access.claims_identifier(who)
    }

    /// See [`Access::may_publish`].
    #[inline]
    pub fn may_publish(
        &mut self,
        who: &Identity<'_>,
        topic: &str,
        qos: Qos,
        retain: bool,
        work: &mut Work,
    ) -> bool {
        let is_allowed = self.access.may_publish(who, topic, qos, retain);
        if self.checked_revision != 0 {
            work.spend(self.access.take_steps());
        }
        is_allowed
    }

    /// See [`Access::may_subscribe`].
    pub fn may_subscribe(
        &mut self,
        who: &Identity<'_>,
        filter: &str,
        qos: Qos,
        work: &mut Work,
    ) -> Option<Qos> {
        let granted = self.access.may_subscribe(who, filter, qos);
        work.spend(self.access.take_steps());
        granted
    }

    /// See [`Access::may_receive`].
    pub fn may_receive(
        &mut self,
        who: &Identity<'_>,
        topic: &str,
        qos: Qos,
        shared: Option<&str>,
        work: &mut Work,
    ) -> bool {
        let is_allowed = self.access.may_receive(who, topic, qos, shared);
        work.spend(self.access.take_steps());
        is_allowed
    }

    /// See [`Access::may_publish_will`].
    pub fn may_publish_will(
        &mut self,
        user: Option<&str>,
        client_identifier: &Text,
        will: &Content<'_>,
        retain: bool,
        work: &mut Work,
    ) -> bool {
        let is_allowed = self.access.may_publish_will(user, client_identifier, will, retain);
        work.spend(self.access.take_steps());
        is_allowed
    }

    /// See [`Access::counts`].
    pub fn counts(&self) -> AccessCounts {
        self.access.counts()
    }
}

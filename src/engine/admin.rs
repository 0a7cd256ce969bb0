//! Commands of the control plane that the engine executes. A command that takes more than a slice of a turn
//! continues in the next turns, each time within the turn's budget (`work`).

use crate::base::clock::Now;
use crate::base::ids::SessionId;
use crate::base::limits;
use crate::config::Settings;
use crate::control::webhooks::Tap;
use crate::control::{AccessChecked, EngineCommand};
use crate::engine::access::Recheck;
use crate::engine::{Config, Engine};

impl Engine {
    /// Begins to execute a command; [`Self::poll_commands`] continues.
    pub fn handle_command(&mut self, now: Now, command: EngineCommand) {
        self.set_now(now);
        match command {
            EngineCommand::CheckAccess(reply) => self.access.answer_when_checked(reply),
            EngineCommand::BridgeTick(tick) => self.tick_bridge(tick),
            EngineCommand::BridgeEnd(end) => self.end_bridge(end),
            EngineCommand::BridgeQueues(queues) => self.count_bridge_queues(queues),
            #[cfg(feature = "bridge")]
            EngineCommand::BridgeOrder(order) => self.take_bridge_order(order),
            #[cfg(feature = "bridge")]
            EngineCommand::KeptBridges(reply) => reply.send(self.kept_bridges()),
            EngineCommand::PublishState { topic, payload, reply } => {
                if self.config.mqtt.sys_interval_s > 0 {
                    self.publish_sys_topic(&topic, &payload);
                }
                reply.send(());
            }
            EngineCommand::Drain { order, reply } => {
                let progress = self.take_drain_order(order);
                reply.send(progress);
            }
            EngineCommand::Ask(question) => self.ask(question),
            EngineCommand::Configure { settings, reply } => {
                self.configure(&settings);
                reply.send(());
            }
            EngineCommand::Policies { policies, reply } => {
                self.set_listeners(policies);
                reply.send(());
            }
            EngineCommand::Webhooks { taps, reply } => {
                self.set_webhooks(&taps);
                reply.send(());
            }
        }
    }

    /// These webhooks get events from now on.
    pub fn set_webhooks(&mut self, taps: &[Tap]) {
        self.observers.webhooks.set(taps);
    }

    /// Other settings hold from the next decision on. A lowered limit ends nothing that exists.
    fn configure(&mut self, settings: &Settings) {
        let mut next = Config::from(settings);
        next.has_statistics = self.config.has_statistics;
        let sys_interval_s = self.config.mqtt.sys_interval_s;
        let has_log_topics = self.config.has_log_topics;
        self.config.replace(next);
        self.observers.log.set_connections(self.config.logs_connections);
        self.listeners.set_limits(&self.config.limits);
        self.memory.set_limits(&self.config.limits);
        self.router.set_memory_bytes_max(self.config.limits.memory_bytes_max);
        self.retained.set_limits(&self.config);
        if self.config.mqtt.sys_interval_s != sys_interval_s {
            self.schedule_sys_topics();
        }
        if !has_log_topics {
            self.schedule_log_topics();
        }
    }

    /// Whether a command, a question, or a check of clients, continues in this turn.
    #[inline]
    pub fn has_commands(&self) -> bool {
        self.access.is_rechecking() || self.observers.questions.is_busy()
    }

    /// Continues with commands and questions for a slice of this turn. Called once a turn.
    pub fn poll_commands(&mut self, now: Now) {
        self.set_now(now);
        self.continue_access_check();
        self.continue_questions();
    }

    fn continue_access_check(&mut self) {
        let Some(from) = self.access.recheck() else { return };
        if from == Recheck::default() {
            self.router.set_read_rules(self.access.read_rules());
            self.access.begin_recheck(self.access_checked());
        }
        match self.check_clients(from) {
            Some(rest) => self.access.continue_recheck_at(rest),
            None => self.access.end_recheck(self.access_checked()),
        }
    }

    /// Results of checks of clients since the start.
    fn access_checked(&self) -> AccessChecked {
        AccessChecked {
            clients_disconnected: self.metrics.credentials_withdrawn,
            subscriptions_ended: self.metrics.subscriptions_revoked,
        }
    }

    /// Checks the credentials and subscriptions of connected clients, as many as a turn allows. A session without
    /// a connection is checked when its client comes back. Returns where to continue.
    fn check_clients(&mut self, mut at: Recheck) -> Option<Recheck> {
        let end = self.sessions.end();
        for _ in 0..limits::SESSIONS_CHECKED_PER_TURN {
            if at.session >= end {
                return None;
            }
            self.work.spend(1);
            let session = SessionId::new(at.session);
            if self.sessions.get(session).is_some() {
                let subscriptions = match at.subscriptions_left {
                    Some(left) => left,
                    None if !self.check_credentials(session) => 0,
                    None => self.sessions[session].subscriptions.len(),
                };
                let rest = self.check_subscriptions(session, subscriptions);
                if rest > 0 {
                    at.subscriptions_left = Some(rest);
                    break;
                }
                if let Some(state) = self.sessions.get_mut(session) {
                    state.note_new_rules();
                }
            }
            at = Recheck { session: at.session + 1, subscriptions_left: None };
        }
        Some(at)
    }
}

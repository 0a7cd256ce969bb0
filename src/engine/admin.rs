//! Commands of the control plane that the engine executes. A command that takes more than a slice of a turn
//! continues in the next turns, each time within the turn's budget (`work`).

use crate::base::clock::Now;
use crate::base::ids::SessionId;
use crate::base::limits;
use crate::control::{AccessChecked, EngineCommand, Reply};
use crate::engine::Engine;
use crate::engine::access::Recheck;

/// Commands that are being executed.
#[derive(Debug, Default)]
pub(in crate::engine) struct Commands {
    /// Commands that wait for the end of the running check of clients.
    access_checks: Vec<Reply<AccessChecked>>,
    /// Counters when the first of them arrived.
    before: AccessChecked,
}

impl Engine {
    /// Begins to execute a command; [`Self::poll_commands`] continues.
    pub fn handle_command(&mut self, now: Now, command: EngineCommand) {
        self.set_now(now);
        match command {
            EngineCommand::CheckAccess(reply) if self.access.recheck().is_none() => {
                reply.send(AccessChecked::default());
            }
            EngineCommand::CheckAccess(reply) => {
                if self.commands.access_checks.is_empty() {
                    self.commands.before = self.access_checked();
                }
                self.commands.access_checks.push(reply);
            }
        }
    }

    /// Whether a command, or a check of clients, continues in this turn.
    #[inline]
    pub fn has_commands(&self) -> bool {
        self.access.is_rechecking()
    }

    /// Continues with commands for a slice of this turn. Called once a turn.
    pub fn poll_commands(&mut self, now: Now) {
        self.set_now(now);
        let Some(from) = self.access.recheck() else { return };
        let rest = self.check_clients(from);
        self.access.set_recheck(rest);
        if rest.is_some() || self.commands.access_checks.is_empty() {
            return;
        }
        let (checked, before) = (self.access_checked(), self.commands.before);
        let checked = AccessChecked {
            clients_disconnected: checked.clients_disconnected - before.clients_disconnected,
            subscriptions_ended: checked.subscriptions_ended - before.subscriptions_ended,
        };
        self.commands.access_checks.drain(..).for_each(|reply| reply.send(checked));
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

//! Jobs of authentication in the pools, and their replies to a core.

use std::sync::Arc;

use flume::Sender;

use crate::access::methods::{Answer, Job, Outcome, Workers};
use crate::access::{Control, Notify};
use crate::base::pool::Busy;
use crate::engine::{Authentication, Cause, Rejection};
use crate::wire::ReasonCode;

/// Sends the decision of a job to its core; sends a refusal if the job panics.
pub(super) struct Reply {
    exchange: u64,
    to: Sender<(u64, Answer)>,
    notify: Notify,
    is_given: bool,
}

impl Reply {
    /// The reply to a connection's first job, which is not sent before the job runs.
    pub fn new(exchange: u64, to: Sender<(u64, Answer)>, notify: Notify) -> Self {
        Self { exchange, to, notify, is_given: true }
    }

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
            let (reason, cause) = (ReasonCode::ServerUnavailable, Cause::AuthenticationUnavailable);
            self.send(Err(Rejection::new(reason, cause)));
        }
    }
}

/// Runs a job in a pool, and those that follow it, for a reply. A reply to a first job that has no room is not sent.
pub(super) fn run_for(
    control: &Arc<Control>,
    workers: Workers,
    mut reply: Reply,
    job: Job,
) -> Result<(), Busy> {
    let further = Arc::clone(control);
    control.pool(workers).run(move || {
        reply.is_given = false;
        match job() {
            Outcome::Answer(answer) => reply.give(answer),
            // Without room, dropping the reply sends it.
            Outcome::Then(workers, job) => drop(run_for(&further, workers, reply, job)),
        }
    })
}

/// The answer to a client that may not come in.
pub(super) fn not_authorized(cause: Cause) -> Rejection {
    Rejection::new(ReasonCode::NotAuthorized, cause)
}

/// The answer to a connection that asked for nothing, or is gone.
pub(super) fn refused_unheard() -> Authentication {
    Authentication::Refused(Rejection::new(ReasonCode::UnspecifiedError, Cause::AuthenticationData))
}

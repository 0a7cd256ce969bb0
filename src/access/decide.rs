//! Who decides about a request of a client: the rules of the broker, then those that the client brought along, then a
//! server, which answers later.

use std::sync::Arc;

use crate::access::acl::{Rules, Subject, Wish};
use crate::access::authorization::{Authorizer, Question, Questions};
use crate::access::cache::Decided;
use crate::access::dynamic_security::Security;
use crate::access::grants::Grants;
use crate::base::clock::Now;
use crate::wire::Qos;

/// A question to a server.
pub(super) enum Open {
    /// There is no answer yet.
    Asked,
    /// The answer, until the packet that waited for it has taken it.
    Answered(Question, Decided),
}

/// Who is asked about a request, in this order: the rules of the broker, those that the client brought along, a server.
pub(super) struct Asked<'a> {
    pub rules: Option<&'a Rules>,
    /// Dynamic security, which decides alone.
    pub security: Option<&'a Security>,
    /// Sections of the rules that apply to the client.
    pub sections: &'a [u32],
    pub grants: Option<&'a Grants>,
    pub authorizer: Option<&'a Arc<Authorizer>>,
}

/// What rules say about a request.
pub(super) enum Verdict<'a> {
    /// The client may do it, with this QoS at most.
    Allowed(Qos),
    Denied,
    /// This server decides.
    Undecided(&'a Arc<Authorizer>),
}

impl<'a> Asked<'a> {
    pub fn decide(&self, subject: &Subject<'_>, wish: &Wish<'_>, steps: &mut usize) -> Verdict<'a> {
        let (text, qos) = match *wish {
            Wish::Publish { topic, qos, .. } => (topic, qos),
            Wish::Subscribe { filter, qos } => (filter, qos),
            Wish::Receive { topic } => (topic, Qos::ExactlyOnce),
        };
        let decision = |qos: Option<Qos>| qos.map_or(Verdict::Denied, Verdict::Allowed);
        if let Some(security) = self.security {
            let may = security.decide(subject, wish, steps);
            return if may { Verdict::Allowed(qos) } else { Verdict::Denied };
        }
        if let Some(rules) = self.rules {
            *steps += rules.steps(self.sections, text);
            let verdict = rules.decide(self.sections, subject, wish);
            if verdict.by.is_some() {
                return match (verdict.qos, self.authorizer) {
                    (None, Some(authorizer)) if authorizer.is_asked_after_rules() => {
                        Verdict::Undecided(authorizer)
                    }
                    (qos, _) => decision(qos),
                };
            }
        }
        if let Some(grants) = self.grants {
            *steps += grants.steps(text);
            let verdict = grants.decide(subject, wish);
            if verdict.by.is_some() || !grants.is_open {
                return decision(verdict.qos);
            }
        }
        match self.authorizer {
            Some(authorizer) => Verdict::Undecided(authorizer),
            None if self.rules.is_none() && self.grants.is_none() => Verdict::Allowed(qos),
            None => Verdict::Denied,
        }
    }
}

/// The answer to a question, if there is one: the one that the client has waited for, or a cached one.
pub(super) fn answered(
    open: &mut Option<Box<Open>>,
    questions: &Questions,
    now: Now,
    authorizer: &Arc<Authorizer>,
    asks: &Question,
) -> Option<Decided> {
    match open.take().map(|open| *open) {
        // The Client Identifier may be another one, if the broker assigns it.
        Some(Open::Answered(question, decided))
            if question.is_about_that_of(asks) && decided.holds(now) =>
        {
            Some(decided)
        }
        Some(Open::Asked) => {
            *open = Some(Box::new(Open::Asked));
            None
        }
        _ => questions.find(now, authorizer, asks),
    }
}

/// Asks a server, unless an answer is on its way: a client has one question at a time, as its input waits.
pub(super) fn ask(
    open: &mut Option<Box<Open>>,
    questions: &Questions,
    exchange: u64,
    authorizer: &Arc<Authorizer>,
    asks: Question,
) {
    if open.is_none() {
        *open = Some(Box::new(Open::Asked));
        questions.ask(exchange, authorizer, asks);
    }
}

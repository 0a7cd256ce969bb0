//! Questions and commands of an operator, answered while messages flow.
//!
//! | file | what it does |
//! | --- | --- |
//! | `clients` | listings of clients, the clients with the highest values, everything about one client |
//! | `sessions` | subscriptions, the queue and the messages in flight of a client |
//! | `topics` | who receives a message on a topic, and retained messages |
//! | `actions` | disconnecting, ending sessions and subscriptions, publishing |
//! | `spans` | sampled messages, for telemetry |
//! | `trace` | packets and drops, shown as they happen |
//! | `queues` | queues that are emptied |
//! | `listeners` | the end of the connections of closed listeners |
//! | `bans` | clients, users and networks that may not connect |
//!
//! A question that looks at more than a few things is worked on in slices ([`Slices`]): all questions together look
//! at [`limits::LOOKED_AT_PER_TURN`] sessions or messages in a turn, collect [`limits::ANSWER_ENTRIES_PER_TURN`] entries
//! and [`limits::ANSWER_BYTES_PER_TURN`], and what that takes is charged to the budget of the turn. So they lengthen a
//! turn by some 50 microseconds at most. A question ends early when nobody waits for the answer any more, and answers
//! with what it has after [`limits::QUESTION_S`].

mod actions;
mod bans;
mod clients;
mod listeners;
mod queues;
mod sessions;
mod spans;
mod topics;
mod trace;

use std::collections::VecDeque;
use std::fmt::Debug;

use crate::base::clock::Now;
use crate::base::ids::SessionId;
use crate::base::limits;
use crate::control::Refused;
use crate::control::question::{ListingPlace, Question};
use crate::engine::work::BYTES_PER_STEP;
use crate::engine::{Engine, Timer};
use crate::resources::gauges::Charge;
use bans::Bans;
pub(in crate::engine) use spans::{Begun, Spans};
pub(in crate::engine) use trace::Traces;

/// Steps to look at a session, whose parts are not in the processor's caches.
const LOOK_STEPS: usize = 2;

/// Steps to collect an entry of an answer, whose names are copied.
const ENTRY_STEPS: usize = 2;

/// Vacant places of a table that count as much as one session that is looked at.
const VACANT_PER_LOOK: usize = 8;

/// Bytes received and sent on a connection.
#[derive(Debug, Default)]
pub(in crate::engine) struct Traffic {
    received: u64,
    sent: u64,
}

impl Traffic {
    /// Counts bytes from the socket.
    #[inline]
    pub fn note_received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// Counts bytes to the socket.
    #[inline]
    pub fn note_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }
}

/// Bytes of the entries of a page: those of entries that are there, and the room for others. The room for all is
/// allocated at the beginning: a list that grows to a thousand entries would move them in one turn.
fn page_bytes<T>(entries: &Vec<T>, bytes: usize) -> usize {
    bytes + (entries.capacity() - entries.len()) * size_of::<T>()
}

/// The result of a slice.
enum Progress {
    /// The answer is complete.
    Done,
    /// The question continues in the next turn.
    More,
    /// The question continues once [`Slices::can_continue`] says so.
    Waits,
}

/// Work for a question that takes several turns.
trait Slices: Debug + Send {
    /// Whether somebody waits for the answer: nobody works on the question otherwise, and it is answered after
    /// [`limits::QUESTION_S`] with what there is. None if the work is carried out to its end in any case.
    fn is_awaited(&self) -> Option<bool> {
        None
    }

    /// Bytes that the question holds between two turns.
    fn bytes(&self) -> usize;

    /// Works on the question until it is done or the slice is spent.
    fn work(&mut self, engine: &mut Engine, slice: &mut Slice) -> Progress;

    /// Whether a question that waits can continue.
    fn can_continue(&self, _engine: &Engine) -> bool {
        true
    }

    /// Answers with what there is; `is_complete` is false if the time for the question is over.
    fn answer(self: Box<Self>, is_complete: bool);
}

/// How much of a turn is left for questions.
struct Slice {
    /// In vacant places.
    looks_left: usize,
    entries_left: usize,
    bytes_left: usize,
}

impl Slice {
    fn new() -> Self {
        Self {
            looks_left: limits::LOOKED_AT_PER_TURN * VACANT_PER_LOOK,
            entries_left: limits::ANSWER_ENTRIES_PER_TURN,
            bytes_left: limits::ANSWER_BYTES_PER_TURN,
        }
    }

    fn is_spent(&self) -> bool {
        self.looks_left == 0 || self.entries_left == 0 || self.bytes_left == 0
    }

    /// A session or message is looked at.
    fn look(&mut self) {
        self.looks_left = self.looks_left.saturating_sub(VACANT_PER_LOOK);
    }

    /// A vacant place is passed.
    fn pass(&mut self) {
        self.looks_left = self.looks_left.saturating_sub(1);
    }

    /// An entry of so many bytes joins the answer.
    fn add(&mut self, bytes: usize) {
        self.entries_left = self.entries_left.saturating_sub(1);
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// A connection is ended, or a message removed.
    fn act(&mut self) {
        self.entries_left = self.entries_left.saturating_sub(1);
    }

    /// So many steps were spent on a session or message that is looked at, besides the look.
    fn spend(&mut self, steps: usize) {
        self.looks_left = self.looks_left.saturating_sub(steps * VACANT_PER_LOOK / LOOK_STEPS);
    }

    /// A search has used the rest of the slice.
    fn end(&mut self) {
        self.looks_left = 0;
    }

    /// How many sessions or messages may be looked at in this turn.
    fn looks(&self) -> usize {
        self.looks_left.div_ceil(VACANT_PER_LOOK)
    }

    fn steps(&self) -> usize {
        let looks = limits::LOOKED_AT_PER_TURN - self.looks_left / VACANT_PER_LOOK;
        let entries = limits::ANSWER_ENTRIES_PER_TURN - self.entries_left;
        let bytes = limits::ANSWER_BYTES_PER_TURN - self.bytes_left;
        LOOK_STEPS * looks + ENTRY_STEPS * entries + bytes / BYTES_PER_STEP
    }
}

/// A question that is being worked on.
#[derive(Debug)]
struct Running {
    work: Box<dyn Slices>,
    since: Now,
    waits: bool,
    charge: Charge,
}

/// The questions that a core works on, and what operators have set on it.
#[derive(Debug, Default)]
pub(in crate::engine) struct Questions {
    running: VecDeque<Running>,
    bans: Bans,
}

impl Questions {
    /// Whether there are questions that are not answered yet.
    #[inline]
    pub fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether a question continues in the next turn.
    pub fn wants_turn(&self) -> bool {
        self.running.iter().any(|running| !running.waits)
    }
}

impl Engine {
    /// Answers a question, or begins to work on it.
    pub(in crate::engine) fn ask(&mut self, question: Question) {
        self.metrics.questions += 1;
        self.work.spend(LOOK_STEPS);
        match question {
            Question::Client { client_identifier, reply } => {
                reply.send(self.client_detail(&client_identifier).map(Box::new));
            }
            Question::Inflight { client_identifier, limit, reply } => {
                reply.send(self.inflight_page(&client_identifier, limit));
            }
            Question::CountRecipients { topic, reply } => {
                reply.send(self.count_recipients(&topic));
            }
            Question::RetainedMessage { topic, reply } => {
                reply.send(self.retained_message(&topic).map(Box::new));
            }
            Question::Disconnect { client_identifier, reply } => {
                reply.send(self.disconnect_client(&client_identifier));
            }
            Question::EndSession { client_identifier, reply } => {
                reply.send(self.end_session_of(&client_identifier));
            }
            Question::EndSubscription { client_identifier, filter, reply } => {
                reply.send(self.end_subscription_of(&client_identifier, &filter));
            }
            Question::Trace { filter, sink, reply } => {
                self.observers.watch.begin_trace(filter, sink, self.memory.ledger());
                reply.send(self.now);
            }
            Question::Sample { sampling, sink, reply } => {
                self.observers.watch.sample(
                    sampling,
                    sink,
                    self.mesh.cores(),
                    self.memory.ledger(),
                );
                reply.send(self.now);
            }
            // Never refused: all cores have the same bans and listeners.
            question @ (Question::SetBans { .. } | Question::EndConnections { .. }) => {
                self.begin_question(question);
            }
            question if self.observers.questions.running.len() >= limits::QUESTIONS_MAX => {
                self.metrics.questions_refused += 1;
                question.refuse(Refused::Busy);
            }
            question => self.begin_question(question),
        }
    }

    fn begin_question(&mut self, question: Question) {
        match question {
            Question::Clients { filter, page, reply } => {
                self.begin(clients::Listing::new(filter, page, reply));
            }
            Question::TopClients { by, count, reply } => {
                self.begin(clients::Top::new(by, count, reply));
            }
            Question::Subscriptions { client_identifier, page, reply } => {
                match sessions::Listing::new(client_identifier, page, &self.sessions) {
                    Some(listing) => self.begin(listing.answering(reply)),
                    None => reply.send(None),
                }
            }
            Question::Queue { client_identifier, from, limit, payload_bytes_max, reply } => {
                match self.sessions.find(&client_identifier) {
                    Some(id) => {
                        let session = self.sessions.reference(id);
                        let (from, bytes) = (from, payload_bytes_max);
                        self.begin(sessions::QueueListing::new(session, from, limit, bytes, reply));
                    }
                    None => reply.send(None),
                }
            }
            Question::DropQueue { client_identifier, reply } => {
                match self.sessions.find(&client_identifier) {
                    Some(id) => {
                        let session = self.sessions.reference(id);
                        let outbound = self.sessions[id].outbound.as_ref();
                        let end = outbound.map_or(0, |outbound| outbound.queue_end());
                        self.begin(queues::Emptying::new(session, end, reply));
                    }
                    None => reply.send(None),
                }
            }
            Question::Recipients { topic, limit, reply } => {
                let filters = self.filters_of(&topic);
                self.begin(topics::RecipientListing::new(topic, filters, limit, reply));
            }
            Question::Retained { filter, from, limit, reply } => {
                self.begin(topics::RetainedListing::new(filter, from, limit, reply));
            }
            Question::ClearRetained { filter, messages_max, reply } => {
                let mark = self.durability.mark();
                self.begin(topics::Clearing::new(filter, messages_max, mark, reply));
            }
            Question::Publish { message, reply } => match self.publish_as_operator(&message) {
                Ok(publishing) => self.begin(publishing.answering(reply)),
                Err(why) => reply.send(Err(why)),
            },
            Question::SetBans { bans, reply } => {
                self.observers.questions.bans.set(bans, self.now);
                self.begin(bans::Enforcement::new(reply));
            }
            Question::EndConnections { listeners, reply } => {
                self.begin(listeners::Closing::new(listeners, reply));
            }
            _ => unreachable!("the other questions are answered at once"),
        }
    }

    fn begin(&mut self, work: impl Slices + 'static) {
        let charge = Charge::of(self.memory.ledger(), work.bytes());
        let (work, since) = (Box::new(work), self.now);
        self.timers.arm(self.now.after_s(limits::QUESTION_S), Timer::Questions);
        self.observers.questions.running.push_back(Running { work, since, waits: false, charge });
    }

    /// Works on questions for a slice of this turn.
    pub(in crate::engine) fn continue_questions(&mut self) {
        let mut slice = Slice::new();
        for _ in 0..self.observers.questions.running.len() {
            if slice.is_spent() || self.work.is_spent() {
                break;
            }
            let Some(mut running) = self.observers.questions.running.pop_front() else { break };
            if running.work.is_awaited() == Some(false) {
                continue;
            }
            let progress = match running.waits {
                true => Progress::Waits,
                false => running.work.work(self, &mut slice),
            };
            if matches!(progress, Progress::Done) {
                running.work.answer(true);
                continue;
            }
            running.waits = matches!(progress, Progress::Waits);
            running.charge.update(running.work.bytes());
            self.observers.questions.running.push_back(running);
        }
        self.work.spend(slice.steps());
    }

    /// The turn ends: questions continue in the next one if what they waited for has happened.
    #[cold]
    pub(in crate::engine) fn end_turn_of_questions(&mut self) {
        let mut running = std::mem::take(&mut self.observers.questions.running);
        for question in running.iter_mut().filter(|question| question.waits) {
            question.waits = !question.work.can_continue(self);
        }
        self.observers.questions.running = running;
    }

    /// Answers the questions that have taken too long with what they have.
    pub(in crate::engine) fn end_late_questions(&mut self) {
        let now = self.now;
        let is_late = |running: &Running| {
            running.work.is_awaited().is_some()
                && running.since.after_s(limits::QUESTION_S).is_due(now)
        };
        let running = std::mem::take(&mut self.observers.questions.running);
        let (late, left): (VecDeque<Running>, _) = running.into_iter().partition(is_late);
        self.observers.questions.running = left;
        late.into_iter().for_each(|running| running.work.answer(false));
        let timed = self
            .observers
            .questions
            .running
            .iter()
            .filter(|running| running.work.is_awaited().is_some());
        if let Some(first) = timed.map(|running| running.since).min() {
            self.timers.arm(first.after_s(limits::QUESTION_S), Timer::Questions);
        }
    }
}

/// A walk over the sessions of a core that were there when it began.
#[derive(Debug)]
struct SessionWalk {
    at: ListingPlace,
}

/// A step of a walk.
enum Walked {
    /// The walk is at this session, and continues behind it.
    Session(SessionId),
    /// The walk continues in a later turn.
    Later,
    /// There are no further sessions.
    End,
}

impl SessionWalk {
    fn new(at: ListingPlace) -> Self {
        Self { at }
    }

    /// The next session.
    fn next(&mut self, engine: &Engine, slice: &mut Slice) -> Walked {
        let latest = engine.connections.latest_generation();
        let until = *self.at.made_until.get_or_insert(latest);
        while !slice.is_spent() {
            let place = self.at.place as usize;
            if place >= engine.sessions.end() {
                return Walked::End;
            }
            let session = SessionId::new(place);
            self.at.place += 1;
            let Some(state) = engine.sessions.get(session) else {
                slice.pass();
                continue;
            };
            slice.look();
            if !state.is_over() && !is_newer(state.generation, until, latest) {
                return Walked::Session(session);
            }
        }
        Walked::Later
    }

    /// Where the next page begins; none if the walk is over.
    fn place(&self, engine: &Engine) -> Option<ListingPlace> {
        ((self.at.place as usize) < engine.sessions.end()).then_some(self.at)
    }
}

/// Whether a session of this generation was made after the number `until`, when `latest` is the latest number.
/// Generations begin again after four billion: those of long-lived sessions can be higher.
fn is_newer(generation: u32, until: u64, latest: u64) -> bool {
    let made_since = latest.saturating_sub(until);
    let distance = u64::from(generation.wrapping_sub(until as u32));
    distance > 0 && distance <= made_since && made_since <= u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_were_made_during_a_listing_are_newer_even_when_generations_begin_again() {
        let round = 1 << 32;
        assert!(!is_newer(5, round + 5, round + 9) && is_newer(6, round + 5, round + 9));
        assert!(!is_newer(10, round + 5, round + 9), "made in an earlier round");
        let until = round + u64::from(u32::MAX) - 1;
        assert!(is_newer(3, until, 2 * round + 4) && is_newer(u32::MAX, until, 2 * round + 4));
        assert!(
            !is_newer(5, until, 2 * round + 4) && !is_newer(u32::MAX - 1, until, 2 * round + 4)
        );
    }

    #[test]
    fn a_slice_is_spent_by_sessions_by_vacant_places_by_entries_and_by_bytes() {
        let mut slice = Slice::new();
        (0..limits::LOOKED_AT_PER_TURN).for_each(|_| slice.look());
        assert!(slice.is_spent());
        assert_eq!(slice.steps(), LOOK_STEPS * limits::LOOKED_AT_PER_TURN);
        let mut slice = Slice::new();
        (0..limits::LOOKED_AT_PER_TURN * VACANT_PER_LOOK).for_each(|_| slice.pass());
        assert!(slice.is_spent());
        let mut slice = Slice::new();
        (1..limits::ANSWER_ENTRIES_PER_TURN).for_each(|_| slice.add(1));
        assert!(!slice.is_spent());
        slice.act();
        assert!(slice.is_spent());
        let mut slice = Slice::new();
        slice.spend(LOOK_STEPS * limits::LOOKED_AT_PER_TURN);
        assert!(slice.is_spent());
        let mut slice = Slice::new();
        slice.add(limits::ANSWER_BYTES_PER_TURN + 1);
        assert!(slice.is_spent());
    }
}

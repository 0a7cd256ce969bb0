//! Questions to the engines of the cores, and the cursors of listings that go from one core to the next.

use std::sync::LazyLock;
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::admin::{Problem, Shared};
use crate::base::limits;
use crate::control::answer::Page;
use crate::control::question::{ListingPlace, PageRequest, Question};
use crate::control::{Command, EngineCommand, Refused, Reply, replies};

/// How long a core may take to answer a question: longer than its engine works on one.
const PATIENCE: Duration = Duration::from_secs(limits::QUESTION_S + 2);

/// Entries of a page, if the request does not say how many.
pub const PAGE: usize = 100;

/// Asks one core.
pub async fn ask<T: 'static>(
    admin: &Shared,
    core: usize,
    question: impl FnOnce(Reply<T>) -> Question,
) -> Result<T, Problem> {
    let (to, replies) = replies();
    let command = Command::Engine(EngineCommand::Ask(question(to.core(core))));
    drop(to);
    // The refusal is among the replies.
    let _ = admin.broker.cores.send(core, command);
    let answers = replies.gather(core + 1, tokio::time::sleep(PATIENCE)).await;
    answer_of(core, answers.into_iter().next_back().flatten())
}

/// Asks all cores, and returns the answers in the order of the cores.
pub async fn ask_all<T: 'static>(
    admin: &Shared,
    question: impl Fn(Reply<T>) -> Question,
) -> Result<Vec<T>, Problem> {
    let mut answers = Vec::new();
    for answer in ask_each(admin, question).await {
        answers.push(answer?);
    }
    Ok(answers)
}

/// Asks all cores about a client, which one of them knows.
pub async fn ask_about<T: 'static>(
    admin: &Shared,
    client: &str,
    question: impl Fn(Box<str>, Reply<Option<T>>) -> Question,
) -> Result<T, Problem> {
    let mut problem = unknown_client(client);
    for answer in ask_each(admin, |reply| question(client.into(), reply)).await {
        match answer {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(failure) => problem = failure,
        }
    }
    Err(problem)
}

/// Tells all cores to do something to a client, which one of them knows.
pub async fn command_about(
    admin: &Shared,
    unknown: impl FnOnce() -> Problem,
    question: impl Fn(Reply<bool>) -> Question,
) -> Result<(), Problem> {
    let mut failure = None;
    for answer in ask_each(admin, question).await {
        match answer {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(problem) => failure = Some(problem),
        }
    }
    Err(failure.unwrap_or_else(unknown))
}

/// 404: no core knows the client.
pub fn unknown_client(client: &str) -> Problem {
    let client = crate::base::log_rate::name(client);
    Problem::not_found(format!("no session has the Client Identifier {client:?}"))
}

async fn ask_each<T: 'static>(
    admin: &Shared,
    question: impl Fn(Reply<T>) -> Question,
) -> Vec<Result<T, Problem>> {
    let replies =
        admin.broker.cores.ask_all(|reply| Command::Engine(EngineCommand::Ask(question(reply))));
    let cores = admin.broker.cores.count();
    let answers = replies.gather(cores, tokio::time::sleep(PATIENCE)).await;
    answers.into_iter().enumerate().map(|(core, answer)| answer_of(core, answer)).collect()
}

fn answer_of<T>(core: usize, answer: Option<Result<T, Refused>>) -> Result<T, Problem> {
    match answer {
        Some(answer) => answer.map_err(refusal),
        None => Err(silence(core)),
    }
}

fn refusal(refused: Refused) -> Problem {
    Problem::unavailable(refused.to_string()).retry_after(1)
}

fn silence(core: usize) -> Problem {
    let detail = format!("core {core} has not answered within {} s", PATIENCE.as_secs());
    Problem::new(StatusCode::GATEWAY_TIMEOUT, detail)
}

/// The number of entries that a request asks for.
pub fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(PAGE) {
        limit @ 1..=limits::PAGE_ENTRIES_MAX => Ok(limit),
        limit => Err(Problem::bad_request(format!(
            "limit is {limit}; it must be between 1 and {}",
            limits::PAGE_ENTRIES_MAX
        ))),
    }
}

/// The listing that a cursor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Listing {
    Clients = 1,
    Subscriptions = 2,
    Retained = 3,
    Queue = 4,
    Users = 5,
    Rules = 6,
}

/// The key of this process, for cursors.
static KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
    hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
        .expect("the system has random numbers: the broker has used some at its start")
});

/// Bytes of a cursor's signature.
const SIGNATURE_BYTES: usize = 16;

/// A cursor: a position with a signature, in text.
pub fn sign(listing: Listing, position: &[u8]) -> String {
    let signature = hmac::sign(&KEY, &[&[listing as u8], position].concat());
    URL_SAFE_NO_PAD.encode([position, &signature.as_ref()[..SIGNATURE_BYTES]].concat())
}

/// The position in a cursor of this process.
pub fn verify(listing: Listing, cursor: &str) -> Result<Vec<u8>, Problem> {
    let malformed = || Problem::bad_request("cursor is not one that an earlier answer had as next");
    let mut bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| malformed())?;
    let at = bytes.len().checked_sub(SIGNATURE_BYTES).ok_or_else(malformed)?;
    let signature = bytes.split_off(at);
    let expected = hmac::sign(&KEY, &[&[listing as u8], &bytes[..]].concat());
    match subtle::ConstantTimeEq::ct_eq(&expected.as_ref()[..SIGNATURE_BYTES], &*signature).into() {
        true => Ok(bytes),
        false => Err(Problem::new(
            StatusCode::GONE,
            "cursor is of an earlier start of the broker, or of another listing; begin without cursor",
        )),
    }
}

/// A place in a listing of all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    core: u16,
    at: ListingPlace,
}

impl Place {
    fn bytes(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[..2].copy_from_slice(&self.core.to_le_bytes());
        bytes[2..6].copy_from_slice(&self.at.place.to_le_bytes());
        bytes[6..10].copy_from_slice(&self.at.within.to_le_bytes());
        bytes[10..].copy_from_slice(&self.at.made_until.unwrap_or(0).to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (core, rest) = bytes.split_first_chunk()?;
        let (place, rest) = rest.split_first_chunk()?;
        let (within, rest) = rest.split_first_chunk()?;
        let made_until = u64::from_le_bytes(rest.try_into().ok()?);
        let at = ListingPlace {
            place: u32::from_le_bytes(*place),
            within: u32::from_le_bytes(*within),
            // Numbers of sessions begin above 0.
            made_until: Some(made_until).filter(|&made_until| made_until > 0),
        };
        Some(Self { core: u16::from_le_bytes(*core), at })
    }
}

/// A page of a listing of all cores.
pub struct AllCores<T> {
    pub entries: Vec<T>,
    pub next: Option<String>,
    pub sessions: u64,
}

/// Asks one core after the other until the page is full.
pub async fn list<T, A: Into<Option<Page<T>>> + 'static>(
    admin: &Shared,
    listing: Listing,
    cursor: Option<&str>,
    limit: usize,
    question: impl Fn(PageRequest, Reply<A>) -> Question,
) -> Result<AllCores<T>, Problem> {
    let mut place = match cursor {
        Some(cursor) => Place::parse(&verify(listing, cursor)?).unwrap_or_default(),
        None => Place::default(),
    };
    let (mut entries, mut sessions) = (Vec::new(), 0);
    while usize::from(place.core) < admin.broker.cores.count() {
        let page = PageRequest { from: place.at, limit: limit - entries.len() };
        let answer = ask(admin, place.core.into(), |reply| question(page, reply)).await?;
        let Some(answer) = answer.into() else { break };
        sessions = answer.sessions;
        entries.extend(answer.entries);
        place = match answer.next {
            Some(at) => Place { at, ..place },
            None => Place { core: place.core + 1, at: ListingPlace::default() },
        };
        // A page that ended early was large, or took long.
        if entries.len() >= limit || answer.next.is_some() {
            break;
        }
    }
    let is_more = usize::from(place.core) < admin.broker.cores.count();
    let next = is_more.then(|| sign(listing, &place.bytes()));
    Ok(AllCores { entries, next, sessions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_accepted_by_its_own_listing_and_no_other() {
        let at = ListingPlace { place: 7, within: 9, made_until: Some(1 << 33) };
        let place = Place { core: 3, at };
        let cursor = sign(Listing::Clients, &place.bytes());
        let verified = verify(Listing::Clients, &cursor).expect("it is signed");
        assert_eq!(Place::parse(&verified), Some(place));
        let status = |listing, cursor: &str| verify(listing, cursor).map_err(|of| of.status());
        assert_eq!(status(Listing::Retained, &cursor), Err(StatusCode::GONE));
        let other = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).expect("a key");
        let signature = hmac::sign(&other, &[&[1], &place.bytes()[..]].concat());
        let earlier = [&place.bytes(), &signature.as_ref()[..16]].concat();
        let earlier = URL_SAFE_NO_PAD.encode(earlier);
        assert_eq!(status(Listing::Clients, &earlier), Err(StatusCode::GONE));
        for malformed in ["", "x", "!!!!", "AAAA"] {
            assert_eq!(status(Listing::Clients, malformed), Err(StatusCode::BAD_REQUEST));
        }
    }
}

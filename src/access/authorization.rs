//! Authorization by an HTTP server: what no rule decides is asked for each client, action and topic, on threads of a
//! pool. Each core caches the answers for a while; meanwhile the packet that needs an answer waits, and with it the input
//! of its client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use flume::{Receiver, Sender};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::access::cache::Decided;
use crate::access::go_auth::{self, Field};
use crate::access::server::{self, Answered, Server};
use crate::access::{AccessError, Control, Notify};
use crate::base::atomic::AtomicU64;
use crate::base::clock::Now;
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::config::{self, OnFailure, Params, ServerAnswer};

#[cfg(test)]
mod tests;

/// Longest answer accepted from the server.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// How long a decision holds that the server did not make, because it did not answer: a client that continues does not
/// have it asked for each of its messages.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);

/// Approximate memory of a cached answer, without its key.
const ENTRY_BYTES: usize = 112;

/// Counters of all cores.
#[derive(Default)]
pub(super) struct Counts {
    pub asked: AtomicU64,
    pub failed: AtomicU64,
    /// Cached answers.
    pub cached: AtomicU64,
}

/// The server that is asked.
pub(super) struct Authorizer {
    server: Server,
    /// The server that knows who may do everything.
    superusers: Option<Server>,
    settings: config::Authorization,
}

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Publish,
    Subscribe,
}

/// A question, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Question {
    pub client_identifier: Box<str>,
    pub username: Option<Box<str>>,
    pub action: Action,
    /// Topic Name or Topic Filter.
    pub topic: Box<str>,
    /// Name of the shared subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<Box<str>>,
}

impl Question {
    pub fn new(action: Action, user: Option<&str>, client: &str, topic: &str) -> Self {
        let shared = topic.strip_prefix("$share/").filter(|_| action == Action::Subscribe);
        let (share, topic) = match shared.and_then(|rest| rest.split_once('/')) {
            Some((share, topic)) => (Some(share.into()), topic),
            None => (None, topic),
        };
        let (client_identifier, username) = (client.into(), user.map(Into::into));
        Self { client_identifier, username, action, topic: topic.into(), share }
    }

    /// Whether both questions are about the same action and topic.
    pub fn is_about_that_of(&self, other: &Self) -> bool {
        (self.action, &self.topic, &self.share) == (other.action, &other.topic, &other.share)
    }

    /// The question in bytes, different from every other one.
    fn key(&self) -> Arc<[u8]> {
        let Self { client_identifier, username, action, topic, share } = self;
        let mut key = vec![*action as u8, username.is_some().into(), share.is_some().into()];
        let optional = [username.as_deref(), share.as_deref()].map(Option::unwrap_or_default);
        for text in [client_identifier, topic].into_iter().map(|text| &**text).chain(optional) {
            key.extend_from_slice(&(text.len() as u32).to_le_bytes());
            key.extend_from_slice(text.as_bytes());
        }
        key.into()
    }
}

/// What the server says.
#[derive(Debug, Deserialize)]
struct Said {
    allow: bool,
    /// Seconds for which the answer holds, if that is less than the cache holds it.
    expires_in_s: Option<u32>,
}

fn said(answered: &Answered) -> Result<Said, String> {
    match answered.status {
        200 => serde_json::from_str(&answered.text)
            .map_err(|error| format!("the answer is not in the expected form: {error}")),
        401 | 403 => Ok(Said { allow: false, expires_in_s: None }),
        status => Err(format!("the server answered with status {status}")),
    }
}

impl Authorizer {
    /// None if no server is configured.
    pub fn open(settings: &config::Authorization) -> Result<Option<Arc<Self>>, AccessError> {
        let config::Authorization { url, ca, timeout_ms, .. } = settings;
        if url.is_empty() {
            return Ok(None);
        }
        let (url_key, ca_key) = ("access.authorization.url", "access.authorization.ca");
        let access = server::Access { url_key, url, ca_key, ca, timeout_ms: *timeout_ms };
        let server = Server::open(&access).map_err(AccessError)?;
        let (url_key, url) = ("access.authorization.superuser_url", &settings.superuser_url);
        let superusers = match url.is_empty() {
            true => None,
            false => {
                let access = server::Access { url_key, url, ..access };
                Some(Server::open(&access).map_err(AccessError)?)
            }
        };
        Ok(Some(Arc::new(Self { server, superusers, settings: settings.clone() })))
    }

    /// Whether the server is asked, too, if a rule denies something.
    #[inline]
    pub fn is_asked_after_rules(&self) -> bool {
        self.settings.after_rules
    }

    /// Asks a server made for go-auth, and then whether the user may do everything.
    fn ask_go_auth(&self, question: &Question) -> Result<Said, String> {
        let (params, answer) = (self.settings.params, self.settings.answer);
        let user = ("username", Field::Text(question.username.as_deref().unwrap_or_default()));
        let full;
        let topic = match &question.share {
            Some(share) => {
                full = format!("$share/{share}/{}", question.topic);
                &full
            }
            None => &*question.topic,
        };
        let acc = match question.action {
            Action::Publish => go_auth::WRITE,
            Action::Subscribe => go_auth::SUBSCRIBE,
        };
        let client = ("clientid", Field::Text(&question.client_identifier));
        let fields = [user, client, ("topic", Field::Text(topic)), ("acc", Field::Number(acc))];
        let (kind, body) = go_auth::question(params, &fields);
        let allows = |server: &Server, kind: &str, body: &str| {
            let answered = server.post_as(kind, body, ANSWER_BYTES_MAX)?;
            match answer {
                ServerAnswer::Ringmq => said(&answered),
                _ => Ok(Said { allow: go_auth::is_yes(answer, &answered)?, expires_in_s: None }),
            }
        };
        let said = allows(&self.server, kind, &body)?;
        match (&self.superusers, &question.username) {
            (Some(superusers), Some(user)) if !said.allow => {
                let (kind, body) = go_auth::question(params, &[("username", Field::Text(user))]);
                allows(superusers, kind, &body)
            }
            _ => Ok(said),
        }
    }

    /// Asks the server and waits for it: never called on the thread of a core.
    fn ask(&self, question: &Question) -> Result<Said, String> {
        if self.settings.params != Params::Ringmq {
            return self.ask_go_auth(question);
        }
        let body = serde_json::to_string(question).expect("texts are JSON");
        said(&self.server.post(&body, ANSWER_BYTES_MAX)?)
    }

    /// The decision that an answer, or the lack of one, makes.
    fn decided(&self, now: Now, answer: Result<Said, String>, counts: &Counts) -> Decided {
        let until = |holds: Duration| Some(Now(now.after(holds).us()));
        match answer {
            Ok(Said { allow, expires_in_s }) => {
                let most = self.settings.cache_s;
                let holds_s = expires_in_s.map_or(most, |expires_s| expires_s.clamp(1, most));
                let holds = Duration::from_secs(holds_s.into());
                Decided { is_allowed: allow, until: until(holds) }
            }
            Err(error) => {
                counts.failed.fetch_add(1, Relaxed);
                let on_failure = self.settings.on_failure;
                let url = self.server.name();
                rated!(
                    warn,
                    log_rate::now(),
                    url,
                    ?on_failure,
                    "the server that authorizes clients did not answer: {error}"
                );
                let is_allowed = on_failure == OnFailure::Allow;
                Decided { is_allowed, until: until(FAILURE_HOLDS) }
            }
        }
    }
}

/// An answer on its way to a core.
struct Delivery {
    exchange: u64,
    question: Question,
    authorizer: Arc<Authorizer>,
    answer: Result<Said, String>,
}

/// Sends the answer to its core; a failure, if the job panics or has no room in the pool.
struct Reply {
    delivery: Option<Delivery>,
    to: Sender<Delivery>,
    notify: Notify,
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            // Fails if the core has stopped.
            let _ = self.to.send(delivery);
            (self.notify)();
        }
    }
}

/// The questions of a core, and its cached answers.
pub(super) struct Questions {
    answers: HashMap<Arc<[u8]>, Decided>,
    /// Their keys, the oldest first.
    order: VecDeque<Arc<[u8]>>,
    bytes: usize,
    /// Whose answers these are.
    authorizer: Option<Arc<Authorizer>>,
    receive: Receiver<Delivery>,
    send: Sender<Delivery>,
    notify: Notify,
    control: Arc<Control>,
}

impl Questions {
    pub fn new(control: &Arc<Control>, notify: &Notify) -> Self {
        let (send, receive) = flume::unbounded(); // bounded by the pool and by one question for each client
        Self {
            answers: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            authorizer: None,
            receive,
            send,
            notify: Arc::clone(notify),
            control: Arc::clone(control),
        }
    }

    /// Memory of the cached answers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The cached answer to a question, if it still holds.
    pub fn find(&self, now: Now, authorizer: &Arc<Authorizer>, asks: &Question) -> Option<Decided> {
        if self.authorizer.as_ref().is_none_or(|of| !Arc::ptr_eq(of, authorizer)) {
            return None;
        }
        self.answers.get(&asks.key()).copied().filter(|decided| decided.holds(now))
    }

    /// Asks the server, on a thread of the pool.
    pub fn ask(&self, exchange: u64, authorizer: &Arc<Authorizer>, question: Question) {
        self.control.authorization.asked.fetch_add(1, Relaxed);
        let answer = Err("too many questions wait".to_owned());
        let authorizer = Arc::clone(authorizer);
        let delivery = Delivery { exchange, question, authorizer, answer };
        let (to, notify) = (self.send.clone(), Arc::clone(&self.notify));
        let mut reply = Reply { delivery: Some(delivery), to, notify };
        // A job without room is dropped, and with it the reply.
        let _ = self.control.pools.load().authorization.run(move || {
            if let Some(Delivery { question, authorizer, answer, .. }) = &mut reply.delivery {
                *answer = Err("the request failed".to_owned());
                *answer = authorizer.ask(question);
            }
        });
    }

    /// The next answer: the connection and the question, and the decision, which is cached from now on.
    pub fn poll(&mut self, now: Now) -> Option<(u64, Question, Decided)> {
        let Delivery { exchange, question, authorizer, answer } = self.receive.try_recv().ok()?;
        let decided = authorizer.decided(now, answer, &self.control.authorization);
        if self.authorizer.as_ref().is_none_or(|of| !Arc::ptr_eq(of, &authorizer)) {
            self.clear();
            self.authorizer = Some(Arc::clone(&authorizer));
        }
        self.insert(now, question.key(), decided, authorizer.settings.cache_max as usize);
        Some((exchange, question, decided))
    }

    fn insert(&mut self, now: Now, key: Arc<[u8]>, decided: Decided, most: usize) {
        // Answers whose time is over, and the oldest one where there is no room.
        for _ in 0..2 {
            let Some(oldest) = self.order.front() else { break };
            let is_over = self.answers.get(oldest).is_none_or(|decided| !decided.holds(now));
            if !is_over && self.order.len() < most {
                break;
            }
            self.remove_oldest();
        }
        if self.answers.insert(Arc::clone(&key), decided).is_none() {
            self.bytes += key.len() + ENTRY_BYTES;
            self.order.push_back(key);
            self.control.authorization.cached.fetch_add(1, Relaxed);
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(key) = self.order.pop_front() {
            self.answers.remove(&key);
            self.bytes -= key.len() + ENTRY_BYTES;
            self.control.authorization.cached.fetch_sub(1, Relaxed);
        }
    }

    fn clear(&mut self) {
        self.control.authorization.cached.fetch_sub(self.order.len() as u64, Relaxed);
        self.answers.clear();
        self.order.clear();
        self.bytes = 0;
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.clear();
    }
}

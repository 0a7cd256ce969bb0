//! Clients that a server of the operator authenticates, asked over HTTP. Connections to the server are
//! reused; positive answers are cached for a while, without the password.

#[cfg(all(test, feature = "tls"))]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::{Answer, Known, Method, Outcome, Step, Workers, job};
use crate::access::AccessError;
use crate::access::go_auth::{self, Field};
use crate::access::password_file::{NoMemory, Passwords};
use crate::access::server::{self, Answered, Server};
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::config::{Http, OnFailure, Params, ServerAnswer};
use crate::engine::{Cause, Credentials, Rejection};
use crate::wire::ReasonCode;

/// Longest answer accepted from the server.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// The method for users without a password of the broker.
struct AskServer(Arc<Hook>);

/// None if no server is configured.
pub(super) fn open(settings: &Http) -> Result<Option<Arc<dyn Method>>, AccessError> {
    let hook = Hook::new(settings).map_err(AccessError)?;
    Ok(hook.map(|hook| Arc::new(AskServer(Arc::new(hook))) as _))
}

impl Method for AskServer {
    fn begin(&self, who: &Credentials<'_>, passwords: &Arc<Passwords>) -> Option<Step> {
        let user: Box<str> = who.username?.into();
        let has_password = passwords.user(&user).is_some();
        if has_password && !self.0.settings.after_passwords {
            return None;
        }
        let (hook, client) = (Arc::clone(&self.0), Box::<str>::from(who.client_identifier));
        let password = who.password.map(<[u8]>::to_vec);
        let address = who.address.map(|address| address.ip());
        if !has_password {
            let ask = move || hook.ask(user, &client, password.as_deref(), address);
            return Some(Step::Pending(Workers::Network, job(ask)));
        }
        let passwords = Arc::clone(passwords);
        let verify = move || match passwords.verify(&user, password.as_deref().unwrap_or_default())
        {
            Ok(true) => {
                let entry = passwords.user(&user).cloned();
                Outcome::Answer(Ok(Known { entry, ..Known::user(user) }))
            }
            // Without memory for the hash, the server decides.
            Ok(false) | Err(NoMemory) => {
                let ask = move || hook.ask(user, &client, password.as_deref(), address);
                Outcome::Then(Workers::Network, job(ask))
            }
        };
        Some(Step::Pending(Workers::Processor, Box::new(verify)))
    }

    fn reload(&self, _: &Passwords) -> Result<Option<Arc<dyn Method>>, AccessError> {
        let hook = self.0.reload().map_err(AccessError)?;
        Ok(Some(Arc::new(AskServer(Arc::new(hook)))))
    }
}

/// The server to ask, and its cached answers.
#[derive(Clone)]
struct Hook {
    settings: Http,
    server: Server,
    cache: Arc<Cache>,
}

/// Positive answers, by the HMAC of the question, so that no password stays in memory.
struct Cache {
    key: hmac::Key,
    answers: Mutex<HashMap<[u8; 32], Cached>>,
}

struct Cached {
    known: Known,
    until: Instant,
    since: Instant,
}

#[derive(Serialize)]
struct Question<'a> {
    client_identifier: &'a str,
    username: &'a str,
    /// None if the client sent no password, or one that is not UTF-8.
    password: Option<&'a str>,
    /// A password that is not UTF-8, which JSON cannot hold as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    address: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Said {
    allow: bool,
    /// Seconds for which the answer is valid, also for the connection.
    expires_in_s: Option<u32>,
}

/// What has come of a request.
enum Asked {
    Said(Said),
    Failed(String),
}

impl Hook {
    /// None if no server is configured.
    fn new(settings: &Http) -> Result<Option<Self>, String> {
        if settings.url.is_empty() {
            return Ok(None);
        }
        let server = Server::open(&reached_by(settings))?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| error.to_string())?;
        Ok(Some(Self {
            settings: settings.clone(),
            server,
            cache: Arc::new(Cache {
                key: hmac::Key::new(hmac::HMAC_SHA256, &key),
                answers: Mutex::default(),
            }),
        }))
    }

    /// The same server with its certificate authorities read again; shares the cache.
    fn reload(&self) -> Result<Self, String> {
        let server = Server::open(&reached_by(&self.settings))?;
        Ok(Self { server, ..self.clone() })
    }

    /// Answers from the cache, or asks the server and waits for it: never called on the thread of a core.
    fn ask(
        &self,
        username: Box<str>,
        client_identifier: &str,
        password: Option<&[u8]>,
        address: Option<IpAddr>,
    ) -> Answer {
        let sent: &[u8] = if password.is_some() { b"1" } else { b"" };
        let name = self.cache.name_of(&[
            username.as_bytes(),
            client_identifier.as_bytes(),
            sent,
            password.unwrap_or_default(),
        ]);
        if let Some(known) = self.cache.find(&name) {
            return Ok(known);
        }
        let text = password.map(std::str::from_utf8);
        let question = Question {
            client_identifier,
            username: &username,
            password: text.and_then(Result::ok),
            password_base64: password
                .filter(|_| text.is_some_and(|text| text.is_err()))
                .map(|password| BASE64.encode(password)),
            address,
        };
        let asked = match self.settings.params {
            Params::Ringmq => self.send(&question),
            Params::Json | Params::Form => {
                self.send_as_go_auth(client_identifier, &username, password)
            }
        };
        match asked {
            Asked::Said(Said { allow: true, expires_in_s }) => {
                let valid_for = expires_in_s.map(|s| Duration::from_secs(s.into()));
                let known = Known { user: Some(username), valid_for, ..Known::default() };
                self.cache.insert(name, &known, &self.settings);
                Ok(known)
            }
            Asked::Said(Said { allow: false, .. }) => {
                Err(Rejection::new(ReasonCode::BadUserNameOrPassword, Cause::DeniedByServer))
            }
            Asked::Failed(error) => {
                let on_failure = self.settings.on_failure;
                rated!(
                    warn,
                    log_rate::now(),
                    url = self.server.name(),
                    ?on_failure,
                    "HTTP hook: the request failed: {error}"
                );
                match on_failure {
                    OnFailure::Deny => Err(Rejection::new(
                        ReasonCode::ServerUnavailable,
                        Cause::AuthenticationUnavailable,
                    )
                    .with_detail(error)),
                    OnFailure::Allow => Ok(Known { user: Some(username), ..Known::default() }),
                }
            }
        }
    }

    /// Asks a server made for go-auth.
    fn send_as_go_auth(&self, client: &str, user: &str, password: Option<&[u8]>) -> Asked {
        let fields = [
            ("username", Field::Text(user)),
            ("password", Field::Bytes(password.unwrap_or_default())),
            ("clientid", Field::Text(client)),
        ];
        let (kind, body) = go_auth::question(self.settings.params, &fields);
        let answered = match self.server.post_as(kind, &body, ANSWER_BYTES_MAX) {
            Ok(answered) => answered,
            Err(error) => return Asked::Failed(error),
        };
        match self.settings.answer {
            ServerAnswer::Ringmq => Self::said(&answered),
            answer => match go_auth::is_yes(answer, &answered) {
                Ok(allow) => Asked::Said(Said { allow, expires_in_s: None }),
                Err(error) => Asked::Failed(error),
            },
        }
    }

    fn send(&self, question: &Question<'_>) -> Asked {
        let body = serde_json::to_string(question).expect("texts and numbers are JSON");
        match self.server.post(&body, ANSWER_BYTES_MAX) {
            Ok(answered) => Self::said(&answered),
            Err(error) => Asked::Failed(error),
        }
    }

    fn said(Answered { status, text, .. }: &Answered) -> Asked {
        let failed = |error: &dyn std::fmt::Display| Asked::Failed(error.to_string());
        match status {
            200 => {}
            401 | 403 => return Asked::Said(Said { allow: false, expires_in_s: None }),
            status => return failed(&format_args!("the server answered with status {status}")),
        }
        match serde_json::from_str(text) {
            Ok(said) => Asked::Said(said),
            Err(error) => failed(&format_args!("the answer is not in the expected form: {error}")),
        }
    }
}

/// How to reach the server.
fn reached_by(settings: &Http) -> server::Access<'_> {
    let Http { url, ca, timeout_ms, .. } = settings;
    let (url_key, ca_key) = ("access.http.url", "access.http.ca");
    server::Access { url_key, url, ca_key, ca, timeout_ms: *timeout_ms }
}

impl Cache {
    fn name_of(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn find(&self, name: &[u8; 32]) -> Option<Known> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let found = answers.get(name).filter(|found| Instant::now() < found.until)?;
        let mut known = found.known.clone();
        if let Some(valid_for) = &mut known.valid_for {
            *valid_for = valid_for.saturating_sub(found.since.elapsed());
        }
        Some(known)
    }

    fn insert(&self, name: [u8; 32], known: &Known, settings: &Http) {
        let cache = Duration::from_secs(settings.cache_s.into());
        let lifetime = known.valid_for.map_or(cache, |valid_for| valid_for.min(cache));
        if lifetime.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= settings.cache_max as usize {
            answers.retain(|_, of| now < of.until);
        }
        if answers.len() >= settings.cache_max as usize
            && let Some(&other) = answers.keys().next()
        {
            answers.remove(&other);
        }
        let fresh = Cached { known: known.clone(), until: now + lifetime, since: now };
        answers.insert(name, fresh);
    }
}

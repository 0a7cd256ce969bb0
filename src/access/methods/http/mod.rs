//! A server of the operator's is asked, over HTTP, whether a client may come in. The connections to
//! it are kept; answers that let in are remembered for a while, without the password.

mod target;
#[cfg(all(test, feature = "tls"))]
mod tests;

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;
use serde::{Deserialize, Serialize};

use self::target::Target;
use crate::access::core::{Answer, Known};
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::config::{Http, OnFailure};
use crate::wire::ReasonCode;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Whom to ask, and what was answered.
pub(super) struct Hook {
    settings: Http,
    target: Target,
    /// Keeps the connections; another one when the authorities were read anew.
    agent: ArcSwap<ureq::Agent>,
    /// Names in memory what was asked about, so that no password stays there.
    key: hmac::Key,
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
}

struct Remembered {
    known: Known,
    until: Instant,
    since: Instant,
}

#[derive(Serialize)]
struct Question<'a> {
    client_identifier: &'a str,
    username: &'a str,
    /// None where it has sent none, or one that is no text.
    password: Option<&'a str>,
    /// One that is no text, which is what JSON can hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    address: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Said {
    allow: bool,
    /// Seconds for which it holds, also for the connection.
    expires_in_s: Option<u32>,
}

/// What came of asking.
enum Outcome {
    Said(Said),
    Failed(String),
}

impl Hook {
    /// None where nobody is to be asked.
    pub fn new(settings: &Http) -> Result<Option<Self>, String> {
        if settings.url.is_empty() {
            return Ok(None);
        }
        let target = Target::parse(&settings.url)?;
        let agent = agent(settings, &target, |name| std::env::var_os(name))?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| error.to_string())?;
        Ok(Some(Self {
            settings: settings.clone(),
            target,
            agent: ArcSwap::from_pointee(agent),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            remembered: Mutex::default(),
        }))
    }

    /// Reads the authorities of the server anew. What is returned puts them in force.
    pub fn reload(&self) -> Result<impl FnOnce(), String> {
        let agent = agent(&self.settings, &self.target, |name| std::env::var_os(name))?;
        Ok(move || self.agent.store(Arc::new(agent)))
    }

    /// Asks, or remembers. Takes as long as the server does: not to be called on a core.
    pub fn ask(
        &self,
        username: Box<str>,
        client_identifier: &str,
        password: Option<&[u8]>,
        address: Option<IpAddr>,
    ) -> Answer {
        let sent: &[u8] = if password.is_some() { b"1" } else { b"" };
        let name = self.name_of(&[
            username.as_bytes(),
            client_identifier.as_bytes(),
            sent,
            password.unwrap_or_default(),
        ]);
        if let Some(known) = self.remembered(&name) {
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
        match self.send(&question) {
            Outcome::Said(Said { allow: true, expires_in_s }) => {
                let valid_for = expires_in_s.map(|s| Duration::from_secs(s.into()));
                let known = Known { user: Some(username), valid_for, entry: None };
                self.remember(name, &known);
                Ok(known)
            }
            Outcome::Said(Said { allow: false, .. }) => Err(ReasonCode::BadUserNameOrPassword),
            Outcome::Failed(error) => {
                let on_failure = self.settings.on_failure;
                rated!(
                    warn,
                    log_rate::now(),
                    url = self.target.name,
                    ?on_failure,
                    "cannot ask about a client: {error}"
                );
                match on_failure {
                    OnFailure::Deny => Err(ReasonCode::ServerUnavailable),
                    OnFailure::Allow => Ok(Known { user: Some(username), ..Known::default() }),
                }
            }
        }
    }

    fn send(&self, question: &Question<'_>) -> Outcome {
        let failed = |error: &dyn std::fmt::Display| Outcome::Failed(error.to_string());
        let body = serde_json::to_string(question).expect("texts and numbers are JSON");
        let agent = self.agent.load_full();
        let mut request = agent.post(&self.target.url).header("Content-Type", "application/json");
        if let Some(authorization) = &self.target.authorization {
            request = request.header("Authorization", authorization);
        }
        let mut response = match request.send(&body) {
            Ok(response) => response,
            Err(error) => return failed(&error),
        };
        match response.status().as_u16() {
            200 => {}
            401 | 403 => return Outcome::Said(Said { allow: false, expires_in_s: None }),
            status => return failed(&format_args!("it answers with status {status}")),
        }
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        match text.map(|text| serde_json::from_str(&text)) {
            Ok(Ok(said)) => Outcome::Said(said),
            Ok(Err(error)) => failed(&format_args!("its answer is not what is expected: {error}")),
            Err(error) => failed(&error),
        }
    }

    fn name_of(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("SHA-256 gives so many bytes")
    }

    fn remembered(&self, name: &[u8; 32]) -> Option<Known> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let found = remembered.get(name).filter(|found| Instant::now() < found.until)?;
        let mut known = found.known.clone();
        if let Some(valid_for) = &mut known.valid_for {
            *valid_for = valid_for.saturating_sub(found.since.elapsed());
        }
        Some(known)
    }

    fn remember(&self, name: [u8; 32], known: &Known) {
        let cache = Duration::from_secs(self.settings.cache_s.into());
        let for_how_long = known.valid_for.map_or(cache, |valid_for| valid_for.min(cache));
        if for_how_long.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= self.settings.cache_max as usize {
            remembered.retain(|_, of| now < of.until);
        }
        if remembered.len() >= self.settings.cache_max as usize
            && let Some(&other) = remembered.keys().next()
        {
            remembered.remove(&other);
        }
        let fresh = Remembered { known: known.clone(), until: now + for_how_long, since: now };
        remembered.insert(name, fresh);
    }
}

/// What asks, and trusts the authorities that are named.
fn agent(
    settings: &Http,
    target: &Target,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<ureq::Agent, String> {
    let trusted = target.trusted(settings, environment)?;
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_millis(settings.timeout_ms.into())))
        .http_status_as_error(false)
        .max_redirects(0)
        // What the environment says of proxies is not meant for passwords.
        .proxy(None)
        .tls_config(ureq::tls::TlsConfig::builder().root_certs(trusted).build())
        .user_agent(concat!("ringmq/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(config.into())
}

//! Keys from a URL: a thread fetches them again and again, and a token that names an unknown key has them fetched early.
//! While the server fails, the keys that were fetched last stay in force.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use flume::{Receiver, RecvTimeoutError, Sender};
use ureq::http::HeaderMap;
use ureq::http::header::CACHE_CONTROL;

use super::{Invalid, Keys};
use crate::access::methods::{Job, Known, Outcome, Workers};
use crate::access::server::{self, Answered, Server};
use crate::base::atomic::AtomicU64;
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::config::Jwt;
use crate::engine::{Cause, Rejection};

/// Longest key set accepted.
const KEY_SET_BYTES_MAX: u64 = 256 * 1024;

/// Time limit of a request.
const TIMEOUT_MS: u32 = 5_000;

/// Shortest time for which keys are used, whatever the server says, and the time after which a server that has failed is
/// asked again.
const REFRESH_MIN: Duration = Duration::from_secs(10);

/// Unknown keys have the key set fetched at most once in this time.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(10);

/// Clients with unknown keys that wait for the key set at the same time; others are refused.
const WAITING_MAX: usize = 8;

/// The keys that were fetched last. They stay when the configuration is reloaded.
#[derive(Default)]
pub(in crate::access) struct Fetched {
    last: Mutex<Option<Last>>,
    failures: AtomicU64,
}

/// A key set that was fetched.
#[derive(Clone)]
struct Last {
    url: String,
    text: Arc<str>,
    at: Instant,
}

impl Fetched {
    /// Age of the keys in seconds, and failed attempts to fetch them.
    pub fn counts(&self) -> (u64, u64) {
        let age_s = self.last().as_ref().map_or(0, |last| last.at.elapsed().as_secs());
        (age_s, self.failures.load(Relaxed))
    }

    fn last(&self) -> MutexGuard<'_, Option<Last>> {
        // A panic leaves a key set that is valid.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keys from a URL.
pub(super) struct Remote {
    server: Server,
    settings: Jwt,
    keys: ArcSwapOption<Keys>,
    fetched: Arc<Fetched>,
    /// When the keys were fetched for an unknown key last. Locked while they are fetched.
    for_unknown: Mutex<Option<Instant>>,
    /// Attempts to fetch the keys that are over.
    attempts: AtomicUsize,
    /// Clients that wait for keys.
    waiting: AtomicUsize,
    is_started: AtomicBool,
    /// Dropping it ends the thread.
    end: (Sender<()>, Receiver<()>),
}

impl Remote {
    /// With the keys that were fetched from this URL before, if there are any. Asks nobody.
    pub fn open(settings: &Jwt, fetched: Option<Arc<Fetched>>) -> Result<Arc<Self>, String> {
        let Jwt { key_set_url: url, key_set_ca: ca, .. } = settings;
        let (url_key, ca_key) = ("access.jwt.key_set_url", "access.jwt.key_set_ca");
        let server =
            Server::open(&server::Access { url_key, url, ca_key, ca, timeout_ms: TIMEOUT_MS })?;
        let fetched = fetched.unwrap_or_default();
        let last = fetched.last().clone().filter(|last| last.url == *url);
        let keys = last.and_then(|last| Keys::parse(&last.text, settings).ok());
        Ok(Arc::new(Self {
            server,
            settings: settings.clone(),
            keys: ArcSwapOption::new(keys.map(Arc::new)),
            fetched,
            for_unknown: Mutex::default(),
            attempts: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            is_started: AtomicBool::new(false),
            end: flume::bounded(0),
        }))
    }

    pub fn fetched(&self) -> Arc<Fetched> {
        Arc::clone(&self.fetched)
    }

    /// Starts the thread that fetches the keys, once.
    pub fn start(self: Arc<Self>) {
        if self.is_started.swap(true, Relaxed) {
            return;
        }
        if !self.server.is_secure() && !self.server.is_local() {
            tracing::warn!(
                url = self.server.name(),
                "the keys for tokens come without encryption: who is on the way can replace them; use https"
            );
        }
        let (weak, end) = (Arc::downgrade(&self), self.end.1.clone());
        drop(self);
        let run = move || keep_fresh(&weak, &end);
        if let Err(error) = std::thread::Builder::new().name("key set".to_owned()).spawn(run) {
            tracing::error!(%error, "cannot start the thread that fetches the keys for tokens");
        }
    }

    /// Verifies a token. If its key is unknown, the keys are fetched, by a job of its own, and the token is verified again.
    pub fn verify_later(self: Arc<Self>, token: Vec<u8>) -> Job {
        Box::new(move || match self.verify(&token) {
            Err(invalid) if invalid.cause == Cause::TokenKeyUnknown && self.is_worth_waiting() => {
                let fetch = move || {
                    if self.waiting.fetch_add(1, Relaxed) < WAITING_MAX {
                        self.refresh_for_unknown();
                    }
                    self.waiting.fetch_sub(1, Relaxed);
                    Outcome::Answer(self.verify(&token).map_err(Rejection::from))
                };
                Outcome::Then(Workers::Network, Box::new(fetch))
            }
            outcome => Outcome::Answer(outcome.map_err(Rejection::from)),
        })
    }

    fn verify(&self, token: &[u8]) -> Result<Known, Invalid> {
        match &*self.keys.load() {
            Some(keys) => keys.verify(token),
            None => Err(Invalid {
                cause: Cause::TokenKeyUnknown,
                detail: "the key set has not been fetched yet".to_owned(),
            }),
        }
    }

    /// Whether the keys are being fetched, or may be fetched for an unknown key.
    fn is_worth_waiting(&self) -> bool {
        match self.for_unknown.try_lock() {
            Ok(last) => is_due(*last),
            Err(_) => self.waiting.load(Relaxed) < WAITING_MAX,
        }
    }

    /// Fetches the keys for a token that names an unknown one, or waits until they are fetched.
    fn refresh_for_unknown(&self) {
        let attempts = self.attempts.load(Relaxed);
        let mut last = self.for_unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due(*last) && self.attempts.load(Relaxed) == attempts {
            *last = Some(Instant::now());
            self.fetch_or_warn();
        }
    }

    /// Fetches the keys; returns the time until they have to be fetched again. Waits for the server.
    fn refresh(&self) -> Duration {
        let _fetching = self.for_unknown.lock().unwrap_or_else(PoisonError::into_inner);
        self.fetch_or_warn()
    }

    fn fetch_or_warn(&self) -> Duration {
        let outcome = self.fetch();
        self.attempts.fetch_add(1, Relaxed);
        let most = Duration::from_secs(self.settings.key_set_refresh_s.into());
        match outcome {
            Ok(max_age) => max_age.unwrap_or(most).clamp(REFRESH_MIN, most),
            Err(error) => {
                self.fetched.failures.fetch_add(1, Relaxed);
                let url = self.server.name();
                let has_keys = self.keys.load().is_some();
                rated!(
                    warn,
                    log_rate::now(),
                    url,
                    has_keys,
                    "the keys for tokens cannot be fetched; those fetched before stay in force: {error}"
                );
                REFRESH_MIN
            }
        }
    }

    /// Fetches the keys; returns how long they are valid, if the server says so.
    fn fetch(&self) -> Result<Option<Duration>, String> {
        let Answered { status, headers, text } = self.server.get(KEY_SET_BYTES_MAX)?;
        if status != 200 {
            return Err(format!("the server answered with status {status}"));
        }
        let keys = Keys::parse(&text, &self.settings)?;
        let url = self.settings.key_set_url.clone();
        let last = Last { url, text: text.into(), at: Instant::now() };
        let before = self.fetched.last().replace(last.clone());
        if before.is_none_or(|before| before.text != last.text || before.url != last.url) {
            let (url, keys) = (self.server.name(), &keys);
            tracing::info!(url, keys = keys.keys.len(), "fetched the keys for tokens");
            for what in &keys.ignored {
                rated!(warn, log_rate::now(), url, "a key of the key set is ignored: {what}");
            }
        }
        self.keys.store(Some(Arc::new(keys)));
        Ok(max_age(&headers))
    }
}

/// Whether the keys may be fetched for an unknown key again.
fn is_due(last: Option<Instant>) -> bool {
    last.is_none_or(|last| last.elapsed() >= UNKNOWN_KEY_INTERVAL)
}

/// Fetches the keys until the method is replaced.
fn keep_fresh(remote: &Weak<Remote>, end: &Receiver<()>) {
    while let Some(now) = remote.upgrade() {
        let rest = now.refresh();
        drop(now);
        if end.recv_timeout(rest) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// How long an answer is valid (RFC 9111, 5.2).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(CACHE_CONTROL)?.to_str().ok()?.to_ascii_lowercase();
    let mut directives = text.split(',').map(str::trim);
    directives.find_map(|directive| match directive {
        "no-store" | "no-cache" => Some(Duration::ZERO),
        _ => {
            let seconds = directive.strip_prefix("max-age=")?.trim_matches('"').parse().ok()?;
            Some(Duration::from_secs(seconds))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_valid_as_long_as_its_server_says() {
        for (text, expected) in [
            ("public, max-age=120, must-revalidate", Some(120)),
            ("Max-Age=\"7\"", Some(7)),
            ("no-store", Some(0)),
            ("no-cache, max-age=60", Some(0)),
            ("max-age=soon", None),
            ("public", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, text.parse().expect("a value"));
            assert_eq!(max_age(&headers), expected.map(Duration::from_secs), "{text}");
        }
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}

//! The server of a webhook, and one request to it.

use std::time::Duration;

use ureq::http::HeaderValue;

use crate::base::http::Target;
use crate::base::{secret_file, text_file};
use crate::config::Webhook;

/// The longest time before a request is repeated.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Bytes of an answer that are read, so that its connection can be used again.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// A server, with the files of the configuration read.
#[derive(Debug)]
pub struct Destination {
    target: Target,
    agent: ureq::Agent,
    headers: Vec<(String, String)>,
    /// Events of a request at most.
    pub batch_events: usize,
    /// How long an event waits for others.
    pub linger: Duration,
    /// How often a request is repeated.
    pub retries_max: u32,
    timeout: Duration,
    backoff: Duration,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has the events.
    Delivered,
    /// The server will never take these events.
    Refused(String),
    /// The request may succeed later.
    Failed(String),
}

impl Destination {
    /// Reads the files of a webhook.
    pub fn open(webhook: &Webhook) -> Result<Self, String> {
        let target = Target::parse("url", &webhook.url)?;
        let timeout = Duration::from_millis(webhook.timeout_ms.into());
        let environment = |name: &str| std::env::var_os(name);
        let agent = target.client(("ca", &webhook.ca), timeout, environment)?;
        let mut headers: Vec<(String, String)> =
            webhook.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        headers.extend(authorization(webhook, &target)?.map(|of| ("Authorization".to_owned(), of)));
        Ok(Self {
            target,
            agent,
            headers,
            batch_events: webhook.batch_events as usize,
            linger: Duration::from_millis(webhook.linger_ms.into()),
            retries_max: webhook.retries_max,
            timeout,
            backoff: Duration::from_millis(webhook.backoff_ms.into()),
        })
    }

    /// The URL without secrets.
    pub fn name(&self) -> &str {
        &self.target.name
    }

    /// The time before a request is repeated that has been repeated so often.
    pub fn backoff(&self, retries: u32) -> Duration {
        self.backoff.saturating_mul(1 << retries.min(16)).min(BACKOFF_MAX)
    }

    /// Sends a request, and waits for the answer, at most for `patience`.
    pub fn post(&self, body: &[u8], patience: Duration) -> Outcome {
        let timeout = self.timeout.min(patience);
        let request = self.agent.post(&self.target.url);
        let mut request = request.config().timeout_global(Some(timeout)).build();
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut response = match request.header("Content-Type", "application/json").send(body) {
            Ok(response) => response,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let status = response.status();
        // Nobody needs the content, only the connection.
        let _ = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let said = format!("the server answered with status {}", status.as_u16());
        match status.as_u16() {
            200..300 => Outcome::Delivered,
            // Request Timeout, Too Early, Too Many Requests.
            408 | 425 | 429 | 500.. => Outcome::Failed(said),
            // Credentials and paths can be corrected, here or there.
            401 | 403 | 404 => Outcome::Failed(said),
            _ => Outcome::Refused(said),
        }
    }
}

/// The value of the header `Authorization`, unless the configuration sets it among the headers.
fn authorization(webhook: &Webhook, target: &Target) -> Result<Option<String>, String> {
    let token = match webhook.token_file.as_os_str().is_empty() {
        true => webhook.token.clone(),
        false => {
            let file = &webhook.token_file;
            let text = text_file::read(file)
                .map_err(|error| format!("token_file: {}: {error}", file.display()))?;
            secret_file::warn_if_open(file, "the token of a webhook");
            text.trim().to_owned()
        }
    };
    if token.is_empty() {
        return match webhook.token_file.as_os_str().is_empty() {
            true => Ok(target.authorization.clone()),
            false => Err(format!("token_file: {} is empty", webhook.token_file.display())),
        };
    }
    if target.authorization.is_some() {
        return Err(
            "url has a name and a password, and there is a token; use one of them".to_owned()
        );
    }
    let value = format!("Bearer {token}");
    match HeaderValue::from_str(&value) {
        Ok(_) => Ok(Some(value)),
        Err(_) => Err("the token has characters that a header cannot have".to_owned()),
    }
}

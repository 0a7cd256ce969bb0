//! HTTP servers that the access control asks.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use crate::base::http::Target;

/// How to reach a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access<'a> {
    /// The key of the URL, which errors name.
    pub url_key: &'static str,
    pub url: &'a str,
    /// The key of the certificate authorities.
    pub ca_key: &'static str,
    /// PEM file with certificate authorities; empty for those of the environment or of browsers.
    pub ca: &'a Path,
    pub timeout_ms: u32,
}

/// A server. Clones share the connections to it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    target: Target,
    /// Owns the connections to the server.
    agent: Agent,
}

/// What a server has answered.
pub(super) struct Answered {
    pub status: u16,
    #[cfg_attr(not(feature = "jwt"), expect(dead_code, reason = "only key sets have a lifetime"))]
    pub headers: HeaderMap,
    /// Content, if the status is 200.
    pub text: String,
}

impl Server {
    /// Reads the certificate authorities.
    pub fn open(of: &Access<'_>) -> Result<Self, String> {
        Self::open_with(of, |name| std::env::var_os(name))
    }

    /// See [`Self::open`].
    pub fn open_with(
        of: &Access<'_>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, String> {
        let target = Target::parse(of.url_key, of.url)?;
        let timeout = Duration::from_millis(of.timeout_ms.into());
        let agent = target.client((of.ca_key, of.ca), timeout, environment)?;
        Ok(Self { target, agent })
    }

    /// The URL for the log, without secrets.
    pub fn name(&self) -> &str {
        &self.target.name
    }

    /// Whether requests are encrypted.
    #[cfg(feature = "jwt")]
    pub fn is_secure(&self) -> bool {
        self.target.is_secure()
    }

    /// Whether the server is on this machine.
    #[cfg(feature = "jwt")]
    pub fn is_local(&self) -> bool {
        let host = self.target.url.split('/').nth(2).unwrap_or_default();
        ["127.", "[::1]", "localhost"].iter().any(|local| host.starts_with(local))
    }

    /// Sends JSON, and waits for an answer of at most `bytes_max`: never called on the thread of a core.
    pub fn post(&self, body: &str, bytes_max: u64) -> Result<Answered, String> {
        self.post_as("application/json", body, bytes_max)
    }

    /// Sends a body of this type, and waits for an answer of at most `bytes_max`: never called on the thread of a core.
    pub fn post_as(&self, kind: &str, body: &str, bytes_max: u64) -> Result<Answered, String> {
        let mut request = self.agent.post(&self.target.url).header("Content-Type", kind);
        if let Some(authorization) = &self.target.authorization {
            request = request.header("Authorization", authorization);
        }
        read(request.send(body), bytes_max)
    }

    /// Waits for what the URL names, of at most `bytes_max`: never called on the thread of a core.
    #[cfg(feature = "jwt")]
    pub fn get(&self, bytes_max: u64) -> Result<Answered, String> {
        let mut request = self.agent.get(&self.target.url).header("Accept", "application/json");
        if let Some(authorization) = &self.target.authorization {
            request = request.header("Authorization", authorization);
        }
        read(request.call(), bytes_max)
    }
}

fn read(response: Result<Response<Body>, ureq::Error>, bytes_max: u64) -> Result<Answered, String> {
    let response = response.map_err(|error| error.to_string())?;
    let (parts, mut body) = response.into_parts();
    let status = parts.status.as_u16();
    let text = match status {
        200 => body.with_config().limit(bytes_max).read_to_string(),
        _ => Ok(String::new()),
    };
    let text = text.map_err(|error| error.to_string())?;
    Ok(Answered { status, headers: parts.headers, text })
}

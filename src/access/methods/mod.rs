//! Authentication methods. Each decides about the clients that use it; the first method in the list
//! that applies to a client decides.
//!
//! A method never changes after it was made. A reload makes a new list, so that a file that cannot be
//! used changes nothing, and credentials and rules take effect together.

mod anonymous;
mod certificate;
#[cfg(feature = "http-hook")]
mod http;
#[cfg(feature = "jwt")]
mod jwt;
mod passwords;
#[cfg(feature = "scram")]
mod scram;

use std::sync::Arc;
use std::time::Duration;

use crate::access::AccessError;
use crate::access::password_file::{Passwords, User};
use crate::config::Access;
use crate::engine::Credentials;
use crate::wire::ReasonCode;

/// A way to authenticate clients.
pub(super) trait Method: Send + Sync {
    /// The Authentication Method of CONNECT that this method implements [MQTT-4.12]; none for a method
    /// for clients without one.
    fn name(&self) -> Option<&'static str> {
        None
    }

    /// Starts to authenticate a client; none if this method does not apply to it. Called on the thread
    /// of a core: slow work is returned as a job.
    fn begin(&self, who: &Credentials<'_>) -> Option<Step>;

    /// The method as its files, and the password file, describe it now; none if it depends on none.
    fn reload(&self, passwords: &Arc<Passwords>) -> Result<Option<Arc<dyn Method>>, AccessError> {
        let _ = passwords;
        Ok(None)
    }
}

/// An enhanced authentication that waits for the client's next AUTH packet.
pub(super) trait Exchange: Send {
    /// Processes the Authentication Data of that packet.
    fn proceed(self: Box<Self>, data: &[u8]) -> Step;
}

/// Outcome of a part of an authentication.
pub(super) enum Step {
    /// The client is authenticated; the data completes an enhanced authentication.
    Granted(Known, Vec<u8>),
    /// Authentication failed.
    Refused(ReasonCode),
    /// Send this data to the client, and process the answer.
    #[cfg_attr(not(feature = "scram"), expect(dead_code, reason = "no method has several steps"))]
    Continue(Vec<u8>, Box<dyn Exchange>),
    /// The outcome of this job decides.
    Pending(Workers, Job),
}

/// Kinds of threads that jobs run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workers {
    /// For computing: as many threads as processors.
    Processor,
    /// For waiting for a server.
    #[cfg_attr(not(feature = "http-hook"), expect(dead_code, reason = "no method asks a server"))]
    Network,
}

/// Slow work that ends with a decision.
pub(super) type Job = Box<dyn FnOnce() -> Answer + Send>;

/// Decision of a job.
pub(super) type Answer = Result<Known, ReasonCode>;

/// An authenticated client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// User name; none for an anonymous client.
    pub user: Option<Box<str>>,
    /// Time for which the authentication is valid; unlimited if none.
    pub valid_for: Option<Duration>,
    /// Entry of the password file, if it decided.
    pub entry: Option<Arc<User>>,
}

impl Known {
    /// A client that authenticated as this user, without a time limit.
    fn user(user: Box<str>) -> Self {
        Self { user: Some(user), ..Self::default() }
    }
}

/// The configured methods, in the order in which they are tried.
pub(super) struct Methods(Vec<Arc<dyn Method>>);

impl Methods {
    /// Reads what the methods need. `anonymous` says for each listener whether it admits anonymous
    /// clients.
    pub fn open(
        access: &Access,
        anonymous: Vec<bool>,
        passwords: &Arc<Passwords>,
    ) -> Result<Self, AccessError> {
        check_features(access)?;
        let mut list: Vec<Arc<dyn Method>> = Vec::new();
        #[cfg(feature = "scram")]
        list.extend(scram::open(access, passwords)?);
        list.extend(certificate::open(access));
        #[cfg(feature = "jwt")]
        list.extend(jwt::open(&access.jwt)?);
        list.push(anonymous::open(access, anonymous));
        #[cfg(feature = "http-hook")]
        list.extend(http::open(&access.http, passwords)?);
        list.push(passwords::open(passwords));
        Ok(Self(list))
    }

    /// The methods as their files describe them now.
    pub fn reload(&self, passwords: &Arc<Passwords>) -> Result<Self, AccessError> {
        let reload = |method: &Arc<dyn Method>| {
            Ok(method.reload(passwords)?.unwrap_or_else(|| Arc::clone(method)))
        };
        self.0.iter().map(reload).collect::<Result<_, _>>().map(Self)
    }

    /// Starts to authenticate a client by the first method that applies.
    pub fn begin(&self, who: &Credentials<'_>) -> Step {
        let name = who.method.map(|(name, _)| name);
        let mut methods = self.0.iter().filter(|method| method.name() == name);
        methods.find_map(|method| method.begin(who)).unwrap_or(match name {
            // [MQTT-4.12.0-1]
            Some(_) => Step::Refused(ReasonCode::BadAuthenticationMethod),
            None => Step::Refused(ReasonCode::NotAuthorized),
        })
    }
}

/// Refuses a configuration of methods that are not in this build.
fn check_features(access: &Access) -> Result<(), AccessError> {
    let lacks = |key: &str, feature: &str| {
        Err(AccessError(format!(
            "{key}: this broker was built without it; build it with --features {feature}"
        )))
    };
    if !cfg!(feature = "jwt") && !access.jwt.key_set.as_os_str().is_empty() {
        return lacks("access.jwt.key_set", "jwt");
    }
    if !cfg!(feature = "http-hook") && !access.http.url.is_empty() {
        return lacks("access.http.url", "http-hook");
    }
    Ok(())
}

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

use crate::access::grants::Grants;
use crate::access::password_file::{Passwords, User};
use crate::access::{AccessError, Admission};
use crate::config::Access;
use crate::engine::{Cause, Credentials, Rejection};
use crate::wire::ReasonCode;
#[cfg(feature = "jwt")]
pub(super) use jwt::Fetched;

/// A way to authenticate clients.
pub(super) trait Method: Send + Sync {
    /// The Authentication Method of CONNECT that this method implements [MQTT-4.12]; none for a method
    /// for clients without one.
    fn name(&self) -> Option<&'static str> {
        None
    }

    /// Starts to authenticate a client; none if this method does not apply to it. `passwords` are the users with
    /// passwords of now. Called on the thread of a core: slow work is returned as a job.
    fn begin(&self, who: &Credentials<'_>, passwords: &Arc<Passwords>) -> Option<Step>;

    /// Begins what the method does by itself, such as to fetch keys. Called when clients may use the method.
    fn start(self: Arc<Self>) {}

    /// Keys that were fetched, and that another method for the same keys may begin with.
    #[cfg(feature = "jwt")]
    fn fetched(&self) -> Option<Arc<Fetched>> {
        None
    }

    /// The method as its files describe it now; none if it depends on none.
    fn reload(&self, passwords: &Passwords) -> Result<Option<Arc<dyn Method>>, AccessError> {
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
    Refused(Rejection),
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
    /// For waiting for a server that authenticates clients.
    #[cfg_attr(not(feature = "http-hook"), expect(dead_code, reason = "no method asks a server"))]
    Network,
}

/// Slow work.
pub(super) type Job = Box<dyn FnOnce() -> Outcome + Send>;

/// Outcome of slow work.
pub(super) enum Outcome {
    /// A decision.
    Answer(Answer),
    /// Another job decides.
    #[cfg_attr(not(feature = "http-hook"), expect(dead_code, reason = "no method has two jobs"))]
    Then(Workers, Job),
}

/// Slow work that ends with a decision.
fn job(work: impl FnOnce() -> Answer + Send + 'static) -> Job {
    Box::new(|| Outcome::Answer(work()))
}

/// Decision of a job.
pub(super) type Answer = Result<Known, Rejection>;

/// An authenticated client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// User name; none for an anonymous client.
    pub user: Option<Box<str>>,
    /// Time for which the authentication is valid; unlimited if none.
    pub valid_for: Option<Duration>,
    /// The user's entry among those with passwords, if it decided.
    pub entry: Option<Arc<User>>,
    /// Rules that the client brings along.
    pub grants: Option<Grants>,
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
    /// Reads what the methods need. `listeners` says what each listener asks of clients; `before` are the methods
    /// that these replace.
    pub fn open(
        access: &Access,
        listeners: &[Admission],
        passwords: &Passwords,
        before: Option<&Self>,
    ) -> Result<Self, AccessError> {
        check_features(access)?;
        // Not all builds have a method that needs them.
        let _ = (passwords, before);
        let mut list: Vec<Arc<dyn Method>> = Vec::new();
        #[cfg(feature = "scram")]
        list.extend(scram::open(access, listeners, passwords)?);
        list.extend(certificate::open(access));
        #[cfg(feature = "jwt")]
        list.extend(jwt::open(&access.jwt, before.and_then(Self::fetched))?);
        list.push(anonymous::open(access, listeners));
        #[cfg(feature = "http-hook")]
        list.extend(http::open(&access.http)?);
        list.push(passwords::open());
        Ok(Self(list))
    }

    /// Begins what methods do by themselves.
    pub fn start(&self) {
        self.0.iter().for_each(|method| Arc::clone(method).start());
    }

    /// Keys that were fetched.
    #[cfg(feature = "jwt")]
    pub fn fetched(&self) -> Option<Arc<Fetched>> {
        self.0.iter().find_map(|method| method.fetched())
    }

    /// The methods as their files describe them now.
    pub fn reload(&self, passwords: &Passwords) -> Result<Self, AccessError> {
        let reload = |method: &Arc<dyn Method>| {
            Ok(method.reload(passwords)?.unwrap_or_else(|| Arc::clone(method)))
        };
        self.0.iter().map(reload).collect::<Result<_, _>>().map(Self)
    }

    /// Starts to authenticate a client by the first method that applies.
    pub fn begin(&self, who: &Credentials<'_>, passwords: &Arc<Passwords>) -> Step {
        let name = who.method.map(|(name, _)| name);
        let mut methods = self.0.iter().filter(|method| method.name() == name);
        methods.find_map(|method| method.begin(who, passwords)).unwrap_or(match name {
            Some(name) => Step::Refused(Rejection::unknown_method(name)),
            None => Step::Refused(Rejection::new(ReasonCode::NotAuthorized, Cause::UnknownUser)),
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
    if !cfg!(all(feature = "jwt", feature = "http-hook")) && !access.jwt.key_set_url.is_empty() {
        return lacks("access.jwt.key_set_url", "jwt,http-hook");
    }
    if !cfg!(feature = "jwt") && !access.jwt.key_set.as_os_str().is_empty() {
        return lacks("access.jwt.key_set", "jwt");
    }
    if !cfg!(feature = "admin") && access.database.is_used() {
        return lacks("access.database", "admin");
    }
    if !cfg!(feature = "dynamic-security") && access.has_dynamic_security() {
        return lacks("access.dynamic_security", "dynamic-security");
    }
    if !cfg!(feature = "http-hook") && !access.http.url.is_empty() {
        return lacks("access.http.url", "http-hook");
    }
    if !cfg!(feature = "http-hook") && !access.authorization.url.is_empty() {
        return lacks("access.authorization.url", "http-hook");
    }
    Ok(())
}

//! Who sends a request: known by the Unix socket, a certificate, a token, a password or a cookie.

mod cookie;
pub mod origin;
mod throttle;
pub mod tokens;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hashbrown::HashMap;
use ring::hmac;
use tokio::sync::oneshot;

use crate::access::Control;
use crate::access::password_file::NoMemory;
use crate::admin::problem::Problem;
use crate::base::pool::{Busy, Pool};
use crate::config::{AdminAccess, Role};

use cookie::{Cookie, Kind};
pub use cookie::{LIFETIME_S, NAME as COOKIE};
use throttle::Throttle;
use tokens::{TokenFile, Tokens};

/// Secrets that are verified at the same time: each takes the memory of an Argon2id hash.
const VERIFIED_AT_ONCE: usize = 1;
/// Secrets that wait to be verified.
const WAITING_MAX: usize = 16;
/// Verified secrets that are remembered.
const REMEMBERED_MAX: usize = 256;
/// Bytes of a secret at most.
const SECRET_BYTES_MAX: usize = 512;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A process that uses the Unix socket, with its user.
    Unix {
        /// User of the process.
        user: u32,
        /// The role that the system's users have by themselves.
        role: Option<Role>,
    },
    /// An address.
    Tcp {
        /// Address and port.
        address: SocketAddr,
        /// Whether the connection uses TLS.
        is_encrypted: bool,
        /// Common Name of the verified client certificate, with its role.
        certificate: Option<(Box<str>, Role)>,
    },
}

impl Peer {
    /// Whether the connection is through a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix { .. })
    }

    /// Whether the peer is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { address, .. } => address.ip().is_loopback(),
        }
    }

    /// Whether the connection uses TLS.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tcp { is_encrypted: true, .. })
    }

    /// What is known from the connection itself.
    fn caller(&self) -> Option<Caller> {
        match self {
            Self::Unix { user, role } => {
                role.map(|role| Caller { name: format!("uid {user}").into(), role })
            }
            Self::Tcp { certificate, .. } => {
                certificate.clone().map(|(name, role)| Caller { name, role })
            }
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { .. } => f.write_str("unix"),
            Self::Tcp { address, .. } => address.fmt(f),
        }
    }
}

/// Who sends a request, for handlers: `Extension(caller): Extension<Caller>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token, the user or the certificate.
    pub name: Box<str>,
    /// What the caller may do.
    pub role: Role,
}

/// A secret as it was sent.
#[derive(Clone)]
pub enum Secret {
    /// A token: `NAME.SECRET`.
    Token(String),
    /// A user's name and password.
    Password(String, String),
}

/// A caller that has proven to know a secret.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The caller.
    pub caller: Caller,
    kind: Kind,
    /// The hash that the secret was verified against: another one means that the secret has been changed.
    hash: Box<str>,
}

/// Who may use the interface.
pub struct Auth {
    settings: ArcSwap<AdminAccess>,
    tokens: TokenFile,
    pool: Pool,
    throttle: Throttle,
    /// Key of cookies, and of remembered secrets. No process but this one has it.
    key: hmac::Key,
    remembered: Mutex<HashMap<[u8; 32], Verified>>,
}

impl Auth {
    /// Reads the file of tokens.
    pub(super) fn open(settings: &AdminAccess) -> Result<Self, String> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| error.to_string())?;
        Ok(Self {
            settings: ArcSwap::from_pointee(settings.clone()),
            tokens: TokenFile::open(&settings.tokens_file)?,
            pool: Pool::new(VERIFIED_AT_ONCE, WAITING_MAX),
            throttle: Throttle::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            remembered: Mutex::default(),
        })
    }

    /// Reads the file of tokens that these settings name, for [`Self::put_in_force`].
    pub fn read_again(settings: &AdminAccess) -> Result<Tokens, String> {
        tokens::read(&settings.tokens_file)
    }

    /// Other settings and tokens hold for the next request.
    pub fn put_in_force(&self, settings: AdminAccess, tokens: Tokens) {
        self.settings.store(Arc::new(settings));
        self.tokens.replace(tokens);
    }

    /// Who sends a request with these headers; none if it has no credentials. Wrong credentials are an error.
    pub async fn identify(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        access: Option<&Arc<Control>>,
    ) -> Result<Option<Caller>, Problem> {
        if let Some(secret) = secret_of(headers)? {
            return self.verify(secret, peer, access).await.map(|known| Some(known.caller));
        }
        if let Some(caller) = peer.caller() {
            return Ok(Some(caller));
        }
        let Some(text) = cookie::of(headers) else { return Ok(None) };
        let hash = |cookie: &Cookie| self.current_hash(cookie.kind, &cookie.name, access);
        match Cookie::read(text, &self.key, hash) {
            Some(Cookie { name, role, .. }) => Ok(Some(Caller { name, role })),
            None => {
                Err(Problem::unauthorized("the login has expired, or was withdrawn; log in again"))
            }
        }
    }

    /// Verifies a secret. After too many wrong ones, an address has to wait.
    pub async fn verify(
        &self,
        secret: Secret,
        peer: &Peer,
        access: Option<&Arc<Control>>,
    ) -> Result<Verified, Problem> {
        if let Some(seconds) = self.throttle.seconds_closed(peer) {
            let detail = "too many wrong secrets from this address; wait";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(seconds));
        }
        let place = self.place_of(&secret);
        if let Some(verified) = self.remembered().get(&place).cloned()
            && self.is_current(&verified, access)
        {
            return Ok(verified);
        }
        match self.compute(secret, access).await? {
            Some(verified) => {
                let mut remembered = self.remembered();
                if remembered.len() >= REMEMBERED_MAX {
                    remembered.clear();
                }
                remembered.insert(place, verified.clone());
                Ok(verified)
            }
            None => {
                self.throttle.note_wrong(peer);
                tracing::warn!(target: "audit", audit = true, from = %peer, "admin interface: wrong token or password");
                Err(Problem::unauthorized("the token, or the name and password, are wrong"))
            }
        }
    }

    /// The value of a cookie for this caller, which holds for [`LIFETIME_S`].
    pub fn cookie(&self, verified: &Verified) -> String {
        let Caller { name, role } = &verified.caller;
        Cookie::new(verified.kind, name, *role).write(&self.key, &verified.hash)
    }

    /// Verifies a secret in the pool: that takes as long as a password hash.
    async fn compute(
        &self,
        secret: Secret,
        access: Option<&Arc<Control>>,
    ) -> Result<Option<Verified>, Problem> {
        let (answer, is_right) = oneshot::channel();
        let (verified, job): (_, Box<dyn FnOnce() -> Result<bool, NoMemory> + Send>) = match secret
        {
            Secret::Token(token) => {
                let Some((token, secret)) = self.tokens.find(&token) else { return Ok(None) };
                let caller = Caller { name: token.name.clone(), role: token.role };
                let verified = Verified { caller, kind: Kind::Token, hash: token.hash.clone() };
                (verified, Box::new(move || token.is_secret(&secret)))
            }
            Secret::Password(name, password) => {
                let settings = self.settings.load_full();
                let (role, group) = (settings.password_role, &settings.password_group);
                let Some(access) = access.filter(|_| !group.is_empty()).cloned() else {
                    return Ok(None);
                };
                let hash = access.hash_of_member(&name, group).unwrap_or_default();
                let (is_member, caller) = (!hash.is_empty(), name.clone().into());
                let caller = Caller { name: caller, role };
                let verified = Verified { caller, kind: Kind::Password, hash };
                // Names of others take as long.
                let job = move || Ok(access.verify(&name, password.as_bytes())? && is_member);
                (verified, Box::new(job))
            }
        };
        let job = move || {
            // The caller may have gone.
            let _ = answer.send(job());
        };
        let busy =
            |Busy| Problem::unavailable("too many secrets wait to be verified").retry_after(1);
        self.pool.run(job).map_err(busy)?;
        match is_right.await {
            Ok(Ok(is_right)) => Ok(is_right.then_some(verified)),
            Ok(Err(error)) => Err(Problem::unavailable(error.to_string())),
            Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the check failed")),
        }
    }

    /// Whether the secret that was verified is still the present one.
    fn is_current(&self, verified: &Verified, access: Option<&Arc<Control>>) -> bool {
        let name = &verified.caller.name;
        let now = self.current_hash(verified.kind, name, access);
        now.is_some_and(|(hash, role)| hash == verified.hash && role == verified.caller.role)
    }

    fn current_hash(
        &self,
        kind: Kind,
        name: &str,
        access: Option<&Arc<Control>>,
    ) -> Option<(Box<str>, Role)> {
        match kind {
            Kind::Token => self.tokens.named(name).map(|token| (token.hash.clone(), token.role)),
            Kind::Password => {
                let settings = self.settings.load();
                let hash = access?.hash_of_member(name, &settings.password_group)?;
                Some((hash, settings.password_role))
            }
        }
    }

    fn place_of(&self, secret: &Secret) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        match secret {
            Secret::Token(token) => {
                context.update(b"token\0");
                context.update(token.as_bytes());
            }
            Secret::Password(name, password) => {
                context.update(b"password\0");
                context.update(&(name.len() as u64).to_le_bytes());
                context.update(name.as_bytes());
                context.update(password.as_bytes());
            }
        }
        let mut place = [0; 32];
        place.copy_from_slice(context.sign().as_ref());
        place
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Verified>> {
        // A panic leaves the map valid.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The secret in the header `Authorization`.
fn secret_of(headers: &HeaderMap) -> Result<Option<Secret>, Problem> {
    let wrong = || Problem::unauthorized("Authorization is neither Bearer TOKEN nor Basic");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let value =
        value.to_str().ok().filter(|of| of.len() <= SECRET_BYTES_MAX && values.next().is_none());
    let (scheme, value) = value.and_then(|of| of.split_once(' ')).ok_or_else(wrong)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Secret::Token(value.trim().to_owned())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(wrong());
    }
    let pair = BASE64_STANDARD.decode(value.trim()).ok().and_then(|of| String::from_utf8(of).ok());
    let pair = pair.ok_or_else(wrong)?;
    let (name, password) = pair.split_once(':').ok_or_else(wrong)?;
    Ok(Some(Secret::Password(name.to_owned(), password.to_owned())))
}

//! Logging in from a browser: a cookie instead of a secret with every request.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::auth::{COOKIE, Caller, LIFETIME_S, Peer, Secret};
use crate::admin::problem::Problem;
use crate::admin::routes::{Allowed, Route, get, post};
use crate::admin::{Answer, Shared};
use crate::config::Role;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/whoami", Role::Read, "The caller and its role", whoami).answers::<Who>(),
        post("/api/v1/login", Role::Read, "Log in for a cookie of 8 hours", login)
            .for_whom(Allowed::Anyone)
            .body::<Login>()
            .answers::<Who>(),
        post("/api/v1/logout", Role::Read, "Forget the cookie", logout)
            .for_whom(Allowed::Anyone)
            .answers_nothing(),
    ]
}

/// What a caller knows.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
enum Login {
    /// A token.
    Token {
        /// The token.
        token: String,
    },
    /// A user of the password file.
    Password {
        /// Name.
        name: String,
        /// Password.
        password: String,
    },
}

/// A caller.
#[derive(Debug, Serialize, JsonSchema)]
struct Who {
    /// Name of the token, the user, the certificate or the system's user.
    name: String,
    /// What the caller may do: read, operate or admin.
    role: &'static str,
}

impl From<&Caller> for Who {
    fn from(caller: &Caller) -> Self {
        Self { name: caller.name.to_string(), role: caller.role.name() }
    }
}

async fn whoami(Extension(caller): Extension<Caller>) -> Answer<Who> {
    Ok(Json(Who::from(&caller)))
}

async fn login(
    State(admin): State<Shared>,
    Extension(peer): Extension<Arc<Peer>>,
    Json(login): Json<Login>,
) -> Result<Response, Problem> {
    let secret = match login {
        Login::Token { token } => Secret::Token(token),
        Login::Password { name, password } => Secret::Password(name, password),
    };
    let verified = admin.auth.verify(secret, &peer, admin.broker.access.control()).await?;
    let cookie = admin.auth.cookie(&verified);
    let mut response = Json(Who::from(&verified.caller)).into_response();
    set_cookie(&mut response, &peer, &cookie, LIFETIME_S)?;
    Ok(response)
}

async fn logout(Extension(peer): Extension<Arc<Peer>>) -> Result<Response, Problem> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut response, &peer, "", 0)?;
    Ok(response)
}

fn set_cookie(
    response: &mut Response,
    peer: &Peer,
    value: &str,
    seconds: u64,
) -> Result<(), Problem> {
    let secure = if peer.is_encrypted() { "; Secure" } else { "" };
    let cookie =
        format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let cookie = HeaderValue::from_str(&cookie).map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the cookie cannot be written")
    })?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(())
}

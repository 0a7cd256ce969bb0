//! Clients with User Name and Password, checked against the password file and the user database.

use std::sync::Arc;

use super::{Known, Method, Step, Workers, job};
use crate::access::password_file::{NoMemory, Passwords};
use crate::engine::{Cause, Credentials, Rejection};
use crate::wire::ReasonCode;

struct ByPassword;

pub(super) fn open() -> Arc<dyn Method> {
    Arc::new(ByPassword)
}

impl Method for ByPassword {
    fn begin(&self, who: &Credentials<'_>, passwords: &Arc<Passwords>) -> Option<Step> {
        let Some(user) = who.username.map(Box::<str>::from) else {
            return Some(Step::Refused(refused(Cause::Anonymous)));
        };
        let password = who.password.unwrap_or_default().to_vec();
        let passwords = Arc::clone(passwords);
        let verify = move || match passwords.verify(&user, &password) {
            Err(NoMemory) => {
                Err(Rejection::new(ReasonCode::ServerUnavailable, Cause::AuthenticationUnavailable)
                    .with_detail("not enough memory for the hash of the password"))
            }
            Ok(true) => {
                let entry = passwords.user(&user).cloned();
                Ok(Known { entry, ..Known::user(user) })
            }
            Ok(false) if passwords.user(&user).is_none() => Err(refused(Cause::UnknownUser)),
            Ok(false) => Err(refused(Cause::WrongPassword)),
        };
        Some(Step::Pending(Workers::Processor, job(verify)))
    }
}

/// The client hears the same, whatever the cause is.
fn refused(cause: Cause) -> Rejection {
    Rejection::new(ReasonCode::BadUserNameOrPassword, cause)
}

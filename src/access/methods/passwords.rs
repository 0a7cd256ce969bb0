//! Clients with User Name and Password, checked against the password file.

use std::sync::Arc;

use super::{Known, Method, Step, Workers};
use crate::access::AccessError;
use crate::access::password_file::{NoMemory, Passwords};
use crate::engine::Credentials;
use crate::wire::ReasonCode;

struct ByPassword(Arc<Passwords>);

pub(super) fn open(passwords: &Arc<Passwords>) -> Arc<dyn Method> {
    Arc::new(ByPassword(Arc::clone(passwords)))
}

impl Method for ByPassword {
    fn begin(&self, who: &Credentials<'_>) -> Option<Step> {
        let Some(user) = who.username.map(Box::<str>::from) else {
            return Some(Step::Refused(ReasonCode::BadUserNameOrPassword));
        };
        let password = who.password.unwrap_or_default().to_vec();
        let passwords = Arc::clone(&self.0);
        let job = move || match passwords.verify(&user, &password) {
            Err(NoMemory) => Err(ReasonCode::ServerUnavailable),
            Ok(true) => {
                let entry = passwords.user(&user).cloned();
                Ok(Known { entry, ..Known::user(user) })
            }
            Ok(false) => Err(ReasonCode::BadUserNameOrPassword),
        };
        Some(Step::Pending(Workers::Processor, Box::new(job)))
    }

    fn reload(&self, passwords: &Arc<Passwords>) -> Result<Option<Arc<dyn Method>>, AccessError> {
        Ok(Some(open(passwords)))
    }
}

//! Clients without User Name and Password, and all clients if no users are configured.

use std::sync::Arc;

use super::{Known, Method, Step};
use crate::access::password_file::Passwords;
use crate::config::Access;
use crate::engine::{Cause, Credentials, Rejection};
use crate::wire::ReasonCode;

struct Anonymous {
    /// By the number of the listener, whether it admits anonymous clients.
    admits: Vec<bool>,
    knows_users: bool,
    takes_unverified_names: bool,
}

pub(super) fn open(access: &Access, admits: Vec<bool>) -> Arc<dyn Method> {
    let takes_unverified_names = access.takes_unverified_names();
    Arc::new(Anonymous { admits, knows_users: access.knows_users(), takes_unverified_names })
}

impl Method for Anonymous {
    fn begin(&self, who: &Credentials<'_>, _: &Arc<Passwords>) -> Option<Step> {
        // Without users, a User Name cannot be checked: its client is anonymous too.
        if self.knows_users && (who.username.is_some() || who.password.is_some()) {
            return None;
        }
        Some(match self.admits.get(usize::from(who.listener)) {
            Some(true) => {
                let user = who.username.filter(|_| self.takes_unverified_names);
                Step::Granted(
                    user.map_or_else(Known::default, |user| Known::user(user.into())),
                    Vec::new(),
                )
            }
            // Without users, the name of a client is nobody's.
            _ if who.username.is_some() => {
                Step::Refused(Rejection::new(ReasonCode::NotAuthorized, Cause::UnknownUser))
            }
            _ => Step::Refused(Rejection::new(ReasonCode::NotAuthorized, Cause::Anonymous)),
        })
    }
}

//! Clients without User Name and Password, and all clients if no users are configured.

use std::sync::Arc;

use super::{Admission, Known, Method, Step};
use crate::access::password_file::Passwords;
use crate::config::Access;
use crate::engine::{Cause, Credentials, Rejection};
use crate::wire::ReasonCode;

struct Anonymous {
    /// By the number of the listener.
    listeners: Box<[Admission]>,
    knows_users: bool,
    takes_unverified_names: bool,
}

pub(super) fn open(access: &Access, listeners: &[Admission]) -> Arc<dyn Method> {
    let takes_unverified_names = access.takes_unverified_names();
    let knows_users = access.knows_users();
    Arc::new(Anonymous { listeners: listeners.into(), knows_users, takes_unverified_names })
}

impl Method for Anonymous {
    fn begin(&self, who: &Credentials<'_>, _: &Arc<Passwords>) -> Option<Step> {
        let listener = self.listeners.get(usize::from(who.listener));
        let knows_users = self.knows_users || listener.is_some_and(|of| of.knows_users);
        // Without users, a User Name cannot be checked: its client is anonymous too.
        if knows_users && (who.username.is_some() || who.password.is_some()) {
            return None;
        }
        Some(match listener {
            Some(of) if of.anonymous => {
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

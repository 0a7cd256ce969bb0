//! Clients without User Name and Password, and all clients if no users are configured.

use std::sync::Arc;

use super::{Known, Method, Step};
use crate::config::Access;
use crate::engine::Credentials;
use crate::wire::ReasonCode;

struct Anonymous {
    /// By the number of the listener, whether it admits anonymous clients.
    admits: Vec<bool>,
    knows_users: bool,
}

pub(super) fn open(access: &Access, admits: Vec<bool>) -> Arc<dyn Method> {
    Arc::new(Anonymous { admits, knows_users: access.knows_users() })
}

impl Method for Anonymous {
    fn begin(&self, who: &Credentials<'_>) -> Option<Step> {
        // Without users, a User Name cannot be checked: its client is anonymous too.
        if self.knows_users && (who.username.is_some() || who.password.is_some()) {
            return None;
        }
        Some(match self.admits.get(usize::from(who.listener)) {
            Some(true) => Step::Granted(Known::default(), Vec::new()),
            _ => Step::Refused(ReasonCode::NotAuthorized),
        })
    }
}

//! The user database, in builds without the admin interface, which alone changes it.

use std::sync::Arc;

use super::acl::Rules;
use super::password_file::Passwords;
use super::{AccessError, Asked, Control, Files};

/// No database can be opened.
pub(super) enum Database {}

/// No content.
pub(super) enum Content {}

impl Database {
    /// None: [`check_features`](super::methods) refuses a configuration that asks for a database.
    pub fn open(_: &Asked) -> Result<Option<Self>, AccessError> {
        Ok(None)
    }

    pub fn content(&self) -> Arc<Content> {
        match *self {}
    }

    pub fn merge(&self, _: &Asked, _: &Files) -> (Option<Arc<Rules>>, Arc<Passwords>) {
        match *self {}
    }
}

impl Control {
    pub(super) fn database_counts(&self) -> (u64, u64) {
        (0, 0)
    }
}

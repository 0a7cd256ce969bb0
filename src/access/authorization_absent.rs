//! Authorization by an HTTP server, in builds without it.

use std::sync::Arc;

use crate::access::cache::Decided;
use crate::access::{AccessError, Control, Notify};
use crate::base::atomic::AtomicU64;
use crate::base::clock::Now;
use crate::config;

/// Counters that stay zero.
#[derive(Default)]
pub(super) struct Counts {
    pub asked: AtomicU64,
    pub failed: AtomicU64,
    pub cached: AtomicU64,
}

/// No server can be asked.
pub(super) enum Authorizer {}

impl Authorizer {
    /// None: [`check_features`](super::methods) refuses a configuration that asks for a server.
    pub fn open(_: &config::Authorization) -> Result<Option<Arc<Self>>, AccessError> {
        Ok(None)
    }

    /// Whether the server is asked, too, if a rule denies something.
    pub fn is_asked_after_rules(&self) -> bool {
        match *self {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Publish,
    Subscribe,
}

pub(super) struct Question;

impl Question {
    pub fn new(_: Action, _: Option<&str>, _: &str, _: &str) -> Self {
        Self
    }

    pub fn is_about_that_of(&self, _: &Self) -> bool {
        false
    }
}

pub(super) struct Questions;

impl Questions {
    pub fn new(_: &Arc<Control>, _: &Notify) -> Self {
        Self
    }

    pub fn bytes(&self) -> usize {
        0
    }

    pub fn find(&self, _: Now, authorizer: &Arc<Authorizer>, _: &Question) -> Option<Decided> {
        match **authorizer {}
    }

    pub fn ask(&self, _: u64, authorizer: &Arc<Authorizer>, _: Question) {
        match **authorizer {}
    }

    pub fn poll(&mut self, _: Now) -> Option<(u64, Question, Decided)> {
        None
    }
}

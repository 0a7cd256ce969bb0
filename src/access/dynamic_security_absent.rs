//! Dynamic security, in builds without it.

use std::sync::Arc;

use super::acl::{Subject, Wish};
use super::password_file::Passwords;
use super::{AccessError, Asked, Control, Notify};
use crate::base::atomic::AtomicU64;
use crate::engine::{ControlTopic, Coverage, ReadDecisions, ReadRules};

/// What a topic is for: one of clients.
pub(super) fn control_topic(_: &str) -> ControlTopic {
    ControlTopic::No
}

/// A message that the broker publishes: its topic and its payload.
pub(super) type Publication = (&'static str, Vec<u8>);

/// Counters that stay zero.
#[derive(Default)]
pub(super) struct Counts {
    pub commands: AtomicU64,
    pub errors: AtomicU64,
    pub refused: AtomicU64,
}

#[derive(Default)]
pub(super) struct Executor {
    pub counts: Counts,
}

/// There is none.
pub(super) enum DynamicSecurity {}

impl DynamicSecurity {
    /// None: [`check_features`](super::methods) refuses a configuration that names a file.
    pub fn open(_: &Asked, _: Option<&Self>) -> Result<Option<Self>, AccessError> {
        Ok(None)
    }

    pub fn security(&self) -> Arc<Security> {
        match *self {}
    }

    pub fn passwords_before(&self, _: &Passwords) -> Passwords {
        match *self {}
    }

    pub fn check_writable(&self) -> Result<(), AccessError> {
        match *self {}
    }

    pub fn is_of_file(&self, _: Option<&Self>) -> bool {
        match *self {}
    }

    pub fn is_newer_than(&self, _: &Self) -> bool {
        match *self {}
    }
}

/// Nobody's rights.
#[derive(Debug)]
pub enum Security {}

impl Security {
    pub fn admits(&self, _: Option<&str>, _: &str) -> bool {
        match *self {}
    }

    pub fn stamp(&self, _: Option<&str>) -> u64 {
        match *self {}
    }

    pub fn publishes_all(&self, _: Option<&str>) -> bool {
        match *self {}
    }

    pub fn decide(&self, _: &Subject<'_>, _: &Wish<'_>, _: &mut usize) -> bool {
        match *self {}
    }

    pub fn may_unsubscribe(&self, _: &Subject<'_>, _: &str, _: &mut usize) -> bool {
        match *self {}
    }

    pub fn coverage(&self, _: &Subject<'_>, _: &str, _: &mut usize) -> Coverage {
        match *self {}
    }
}

/// Rights to receive messages, of nobody.
#[derive(Debug)]
pub struct Receiving(pub Arc<Security>);

impl ReadRules for Receiving {
    fn decide<'a>(&'a self, _: &'a str) -> Box<dyn ReadDecisions + 'a> {
        match *self.0 {}
    }
}

impl Control {
    pub(super) fn check_writable(&self) -> Result<(), AccessError> {
        Ok(())
    }

    pub(super) fn command(
        self: &Arc<Self>,
        _: &Subject<'_>,
        _: &[u8],
        _: flume::Sender<Publication>,
        _: Notify,
    ) -> bool {
        false
    }
}

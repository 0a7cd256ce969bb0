//! Replacement of webhooks in a build without them: nobody wants events.

use crate::base::ids::{ConnectionId, SessionId};
use crate::control::webhooks::Tap;
use crate::engine::Engine;
use crate::engine::client_log::Agreement;
use crate::engine::connections::connection::Connection;
use crate::engine::connections::ending::Ending;
use crate::message::Content;
use crate::wire::Qos;

/// The webhooks of this core.
#[derive(Debug, Default)]
pub(in crate::engine) struct Webhooks(());

impl Webhooks {
    pub fn set(&mut self, _taps: &[Tap]) {}
}

impl Engine {
    pub(in crate::engine) fn report_connected(&self, _: ConnectionId, _: SessionId, _: Agreement) {}

    pub(in crate::engine) fn report_disconnected(&self, _: &Connection, _: SessionId, _: Ending) {}

    pub(in crate::engine) fn report_subscribed(&self, _: SessionId, _: &str, _: Qos) {}

    pub(in crate::engine) fn report_unsubscribed(&self, _: SessionId, _: &str) {}

    #[inline]
    pub(in crate::engine) fn report_published(
        &self,
        _: &Content<'_>,
        _: Option<SessionId>,
        _: bool,
    ) {
    }
}

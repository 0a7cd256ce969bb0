//! Packets in the log at level trace: type, identifiers, topic, size and flags; never payloads or passwords.
//!
//! A core looks once a turn whether the log has this level or a trace runs. Without either, a received packet costs
//! nothing, because the check is part of another one, and a buffer that is sent costs a load.

use crate::base::log_rate::name;
use crate::engine::connections::connection::Connection;
use crate::engine::packet_view::PacketView;
use crate::wire::{self, PacketType, Version};

/// Whether the log has packets.
#[inline]
pub(in crate::engine) fn is_on() -> bool {
    tracing::enabled!(tracing::Level::TRACE)
}

/// Logs a packet of `bytes` bytes, of which at least the first are there, that a client of this version has sent or is
/// sent.
#[cold]
pub(in crate::engine) fn line(
    direction: &str,
    connection: &Connection,
    packet: &[u8],
    bytes: usize,
    version: Version,
) {
    let view = PacketView::of_bytes(packet, version);
    tracing::trace!(
        direction = display(direction),
        address = connection.address().map(display),
        packet = wire::packet_type(packet).map(PacketType::name).map(display),
        bytes,
        packet_identifier = view.packet_identifier.map(|identifier| identifier.get()),
        qos = view.qos,
        retain = view.retain,
        dup = view.dup,
        reason = view.reason.map(|reason| reason.name()),
        client = view.client.map(name),
        topic = view.topic.map(name),
        filter = view.filters.first().copied().map(name),
        "packet"
    );
}

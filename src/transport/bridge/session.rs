//! The first packets of a link, to the session here and to the far broker.

use super::link::{Attempt, Far, Start, Terms};
use super::notification;
use crate::config::bridge::Retained;
use crate::wire::{
    Connect, ConnectProperties, Packet, PacketIdentifier, Qos, Subscribe, SubscribeFilters,
    SubscribeOptions, Unsubscribe, UnsubscribeFilters, UserProperties, Version,
};

/// Packet Identifier of the link's SUBSCRIBE packets. The session here counts up from 1, so that a message has it only
/// after 65,534 others.
const SUBSCRIBE: PacketIdentifier = PacketIdentifier::new(u16::MAX).unwrap();
/// Packet Identifier of the link's UNSUBSCRIBE packets.
const UNSUBSCRIBE: PacketIdentifier = PacketIdentifier::new(u16::MAX - 1).unwrap();
/// How shared subscriptions begin.
pub(super) const SHARED: &str = "$share/";
/// Bytes that a User Property with the path takes at most for each broker, with its name.
const PATH_BYTES: u32 = 32;
const PATH_BYTES_PER_HOP: u32 = 9;

/// Appends CONNECT and SUBSCRIBE of the bridge's session, before there is a far broker.
pub(super) fn register(terms: &Terms, out: &mut Vec<u8>) {
    // Retained messages are sent once the far broker is there.
    begin(terms, &Far::default(), 2, out);
}

/// Appends CONNECT and SUBSCRIBE of the bridge's session. `far` is what the far broker accepts.
pub(super) fn open(terms: &Terms, far: &Far, out: &mut Vec<u8>) {
    let retain_handling = match terms.retained {
        Retained::Live | Retained::Clear => 2,
        Retained::Always => 0,
        Retained::Initial if far.is_new => 0,
        Retained::Initial => 1,
    };
    begin(terms, far, retain_handling, out);
}

fn begin(terms: &Terms, far: &Far, retain_handling: u8, out: &mut Vec<u8>) {
    let connect = Connect {
        version: Version::V5,
        is_bridge: false,
        clean_start: false,
        keep_alive_s: 0,
        client_identifier: &terms.session,
        username: None,
        password: None,
        will: None,
        properties: ConnectProperties {
            session_expiry_interval: Some(u32::MAX),
            receive_maximum: far.receive_maximum,
            maximum_packet_size: far.packet_bytes_max.map(|bytes| {
                let grows = terms.out.growth_max() as u32;
                let path = PATH_BYTES + PATH_BYTES_PER_HOP * (terms.hops_max as u32 + 1);
                bytes.saturating_sub(grows + path).max(1)
            }),
            ..ConnectProperties::default()
        },
    };
    Packet::Connect(connect).encode(Version::V5, out);
    let filters: Vec<_> = terms.out.local_filters().collect();
    subscribe(&filters, far.maximum_qos, retain_handling, Version::V5, out);
}

/// Appends CONNECT to the far broker.
pub(super) fn connect(terms: &Terms, attempt: &Attempt, out: &mut Vec<u8>) {
    let connect = Connect {
        version: attempt.version,
        is_bridge: attempt.is_bridge,
        clean_start: !matches!(attempt.start, Start::Resume | Start::First),
        keep_alive_s: terms.keep_alive_s,
        client_identifier: &terms.client_identifier,
        username: attempt.username.as_deref(),
        password: attempt.password.as_deref(),
        will: terms
            .notification
            .as_deref()
            .filter(|_| attempt.start != Start::Discard)
            .map(notification::will),
        properties: ConnectProperties {
            session_expiry_interval: match attempt.start {
                Start::Discard => Some(0),
                Start::Resume | Start::First | Start::Clean => Some(terms.session_expiry_s),
            },
            receive_maximum: Some(terms.receive_maximum),
            maximum_packet_size: Some(terms.packet_bytes_max),
            topic_alias_maximum: terms.topic_alias_maximum,
            ..ConnectProperties::default()
        },
    };
    Packet::Connect(connect).encode(attempt.version, out);
}

/// Appends SUBSCRIBE of the bridge's session for filters that are added while it is connected.
pub(super) fn subscribe_here(
    filters: &[(&str, Qos)],
    terms: &Terms,
    maximum_qos: Qos,
    out: &mut Vec<u8>,
) {
    let retain_handling = match terms.retained {
        Retained::Live | Retained::Clear => 2,
        Retained::Always | Retained::Initial => 1,
    };
    subscribe(filters, maximum_qos, retain_handling, Version::V5, out);
}

/// Appends SUBSCRIBE to the far broker, if there are filters.
pub(super) fn subscribe_far(
    filters: &[(&str, Qos)],
    no_local: bool,
    version: Version,
    out: &mut Vec<u8>,
) {
    encode_subscribe(filters, Qos::ExactlyOnce, 1, no_local, version, out);
}

/// Appends UNSUBSCRIBE, if there are filters.
pub(super) fn unsubscribe(filters: &[&str], version: Version, out: &mut Vec<u8>) {
    if filters.is_empty() {
        return;
    }
    let unsubscribe = Unsubscribe {
        packet_identifier: UNSUBSCRIBE,
        user_properties: UserProperties::none(),
        filters: UnsubscribeFilters::list(filters),
    };
    Packet::Unsubscribe(unsubscribe).encode(version, out);
}

fn subscribe(
    filters: &[(&str, Qos)],
    maximum_qos: Qos,
    retain_handling: u8,
    version: Version,
    out: &mut Vec<u8>,
) {
    encode_subscribe(filters, maximum_qos, retain_handling, true, version, out);
}

fn encode_subscribe<'a>(
    filters: &[(&'a str, Qos)],
    maximum_qos: Qos,
    retain_handling: u8,
    no_local: bool,
    version: Version,
    out: &mut Vec<u8>,
) {
    let options = |&(filter, qos): &(&'a str, Qos)| {
        let qos = qos.min(maximum_qos);
        // Neither broker sends back what the other one has sent, and RETAIN stays as the publisher has set it. No Local
        // is a protocol error in a shared subscription [MQTT-3.8.3-4].
        let no_local = no_local && !filter.starts_with(SHARED);
        let retain_as_published = true;
        (filter, SubscribeOptions { qos, no_local, retain_as_published, retain_handling })
    };
    let filters: Vec<_> = filters.iter().map(options).collect();
    if filters.is_empty() {
        return;
    }
    let subscribe = Subscribe {
        packet_identifier: SUBSCRIBE,
        subscription_identifier: None,
        user_properties: UserProperties::none(),
        filters: SubscribeFilters::list(&filters),
    };
    Packet::Subscribe(subscribe).encode(version, out);
}

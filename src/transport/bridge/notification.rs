//! Whether the bridge is connected, told to the far broker as bridges of Mosquitto do (mosquitto.conf(5),
//! `notifications`): a retained `1`, and `0` once it has left or by its Will.

use crate::wire::{Packet, Publish, PublishProperties, Qos, Version, Will};

/// The payload while the bridge is connected.
pub const CONNECTED: &str = "1";
/// The payload while it is not.
pub const NOT_CONNECTED: &str = "0";

/// The topic of a bridge with this Client Identifier.
pub fn topic(client_identifier: &str) -> String {
    format!("$SYS/broker/connection/{client_identifier}/state")
}

/// The Will. Its QoS is one that each far broker has.
pub(super) fn will(topic: &str) -> Will<'_> {
    Will {
        qos: Qos::AtMostOnce,
        retain: true,
        topic,
        payload: NOT_CONNECTED.as_bytes(),
        ..Will::default()
    }
}

/// Appends the state to what is sent to the far broker.
pub(super) fn publish(topic: &str, payload: &str, version: Version, out: &mut Vec<u8>) {
    let publish = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: true,
        topic,
        packet_identifier: None,
        properties: PublishProperties::default(),
        payload: payload.as_bytes(),
    };
    Packet::Publish(publish).encode(version, out);
}

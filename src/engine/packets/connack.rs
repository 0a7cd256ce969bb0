//! CONNACK: what the server grants, or why it refuses.

use crate::base::ids::{ConnectionId, SessionId};
use crate::engine::Engine;
use crate::engine::cause::Rejection;
use crate::engine::client_log::Claimed;
use crate::engine::connections::ending::Ending;
use crate::wire::{Connack, ConnackProperties, Connect, Packet, Qos, ReasonCode, Version};

impl Engine {
    /// Sends CONNACK with an error and closes the connection [MQTT-3.2.2-7]. The log says why.
    pub(in crate::engine) fn refuse(
        &mut self,
        id: ConnectionId,
        claimed: Claimed<'_>,
        rejection: &Rejection,
    ) {
        self.log_refusal(id, claimed, rejection);
        self.refuse_with(id, rejection.reason, None);
    }

    pub(super) fn refuse_with(
        &mut self,
        id: ConnectionId,
        reason: ReasonCode,
        reason_string: Option<&'static str>,
    ) {
        let version = self.connections[id].version;
        let has_words = version == Version::V5 || reason.return_code().is_some();
        if has_words {
            self.time_connack(id);
        }
        let server_reference = self.server_reference(reason);
        let server_reference = server_reference.as_deref();
        let mut connack = Connack {
            session_present: false, // [MQTT-3.2.2-6]
            reason,
            properties: ConnackProperties {
                server_reference,
                reason_string,
                ..ConnackProperties::default()
            },
        };
        if has_words && !self.connections.send_fitting(id, &Packet::Connack(connack.clone())) {
            connack.properties.reason_string = None; // [MQTT-3.2.2-19]
            self.connections.send_fitting(id, &Packet::Connack(connack));
        }
        self.end_connection(id, Ending::Silent);
    }

    pub(super) fn send_connack(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        connect: &Connect<'_>,
        assigned: Option<&str>,
        session_present: bool,
        authentication_data: &[u8],
    ) -> bool {
        let (limits, mqtt) = (&self.config.limits, &self.config.mqtt);
        let connection = &self.connections[id];
        let expiry_interval_s = self.sessions[session].expiry_interval_s;
        let asked = connect.properties.session_expiry_interval.unwrap_or(0);
        let not = |is_available: bool| (!is_available).then_some(false);
        let properties = ConnackProperties {
            session_expiry_interval: (expiry_interval_s != asked).then_some(expiry_interval_s),
            receive_maximum: (limits.receive_maximum < u16::MAX).then_some(limits.receive_maximum),
            maximum_qos: connection
                .announced_qos()
                .filter(|maximum| *maximum < u8::from(Qos::ExactlyOnce)),
            retain_available: not(mqtt.retain_available),
            maximum_packet_size: Some(limits.packet_bytes_max),
            assigned_client_identifier: assigned,
            topic_alias_maximum: (limits.topic_alias_maximum > 0)
                .then_some(limits.topic_alias_maximum),
            wildcard_subscription_available: not(mqtt.wildcard_subscription_available),
            subscription_identifiers_available: not(mqtt.subscription_identifiers_available),
            shared_subscription_available: not(mqtt.shared_subscription_available),
            server_keep_alive: (connection.keep_alive_s != connect.keep_alive_s)
                .then_some(connection.keep_alive_s),
            response_information: (connect.properties.request_response_information
                && !mqtt.response_information.is_empty())
            .then_some(mqtt.response_information.as_str()),
            authentication_method: connect.properties.authentication_method,
            authentication_data: (!authentication_data.is_empty()).then_some(authentication_data),
            ..ConnackProperties::default()
        };
        let connack = Connack { session_present, reason: ReasonCode::Success, properties };
        self.connections.send_fitting(id, &Packet::Connack(connack))
    }

    /// Notes for the statistics since when the client has waited for the CONNACK of this turn.
    pub(super) fn time_connack(&mut self, id: ConnectionId) {
        if self.config.has_statistics {
            self.connections.note_connack(id, self.now);
        }
    }
}

//! The mount point of a listener: what is put before the topics of its clients, and taken off again.
//!
//! The engine knows full topics only: those of sessions, retained messages, rules and the store. They are completed where
//! the packets of a client are taken, and shortened where a message is encoded for the client. Whether a client has a
//! mount point is not asked for each message: a phase of its own ([`Phase::Mounted`]) leads its packets to
//! `packets/mounted`, and a maximum packet size of 0 ([`NOTHING_FITS`]) leads the messages for it to `routing/mounted`.

use std::sync::Arc;

use crate::engine::connections::connection::{Connection, Phase};

/// The maximum packet size of a connection for which nothing can be encoded as it is. No client can ask for it
/// [MQTT-3.1.2-24].
const NOTHING_FITS: u32 = 0;

/// The mount point of a connection.
#[derive(Debug)]
pub struct Mount {
    /// Put before topics.
    prefix: Arc<str>,
    /// The client's Maximum Packet Size.
    packet_bytes_max: u32,
}

impl Mount {
    /// The topic that a client means.
    pub fn full_topic(&self, topic: &str) -> String {
        [&*self.prefix, topic].concat()
    }

    /// The Topic Filter that a client means. The name of a shared subscription stays before it.
    pub fn full_filter(&self, filter: &str) -> String {
        match filter.strip_prefix("$share/").and_then(|shared| shared.split_once('/')) {
            Some((name, filter)) => format!("$share/{name}/{}{filter}", self.prefix),
            None => self.full_topic(filter),
        }
    }

    /// The topic that a client knows; none if it is not below the mount point.
    pub fn short_topic<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(&*self.prefix).filter(|topic| !topic.is_empty())
    }
}

impl Connection {
    /// The mount point.
    pub fn mount(&self) -> Option<&Mount> {
        self.extra.as_ref()?.mount.as_deref()
    }

    /// Notes the mount point of the listener, before the client is admitted.
    pub fn set_mount_point(&mut self, prefix: Arc<str>) {
        let packet_bytes_max = self.packet_bytes_max;
        let mount = Mount { prefix, packet_bytes_max };
        self.extra.get_or_insert_default().mount = Some(Box::new(mount));
    }

    /// The client is admitted, and has a mount point: from now on its packets, and the messages for it, go the way that
    /// changes their topics.
    #[cold]
    pub fn begin_mounted(&mut self) {
        let Phase::Open { session, admitted_s, terms, maximum_qos } = self.phase else { return };
        let Some(mount) = self.extra.as_mut().and_then(|extra| extra.mount.as_mut()) else {
            return;
        };
        mount.packet_bytes_max = self.packet_bytes_max;
        self.packet_bytes_max = NOTHING_FITS;
        self.phase = Phase::Mounted { session, admitted_s, terms, maximum_qos };
    }

    /// The client's Maximum Packet Size.
    pub fn client_packet_bytes_max(&self) -> u32 {
        match (self.packet_bytes_max, self.mount()) {
            (NOTHING_FITS, Some(mount)) => mount.packet_bytes_max,
            (packet_bytes_max, _) => packet_bytes_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_filters_are_completed_and_topics_are_shortened() {
        let mount = Mount { prefix: "site7/".into(), packet_bytes_max: u32::MAX };
        assert_eq!(mount.full_topic("a/b"), "site7/a/b");
        for (filter, full) in [
            ("a/#", "site7/a/#"),
            ("#", "site7/#"),
            ("$share/g/a/+", "$share/g/site7/a/+"),
            ("$SYS/#", "site7/$SYS/#"),
            ("$share", "site7/$share"),
        ] {
            assert_eq!(mount.full_filter(filter), full);
        }
        for (topic, short) in [
            ("site7/a/b", Some("a/b")),
            ("site7/", None),
            ("site7", None),
            ("site70/a", None),
            ("a", None),
        ] {
            assert_eq!(mount.short_topic(topic), short, "{topic}");
        }
    }
}

//! Bridges with several connections: which connection has which Client Identifier, and subscribes to what.

use super::overlap::Topics;
use super::{Bridge, Echo, Profile, Version};
use crate::base::part::Part;

/// Bytes of a name of shared subscriptions at most.
const SHARE_BYTES_MAX: usize = 64;

impl Bridge {
    /// The topics that each connection takes; none for all, if there is one connection.
    pub fn parts(&self) -> Vec<Option<Part>> {
        match self.connections {
            0 | 1 => vec![None],
            of => (0..of).map(|number| Part::new(number, of)).collect(),
        }
    }

    /// The table of one connection: with a name and a Client Identifier of its own, on a machine of this host name, and
    /// the `in` filters that it subscribes to.
    pub fn for_part(&self, part: Option<Part>, host: &str) -> Self {
        let Some(part) = part else { return Self { connections: 1, ..self.clone() } };
        let mut table = self.clone();
        table.name = format!("{}/{}", self.name, part.text());
        table.connections = part.of();
        table.client_identifier = identifier_of(&self.client_identifier(host), part.number());
        if self.share.is_empty() {
            let groups = self.groups_of_filters();
            let mut groups = groups.into_iter().map(|group| group % usize::from(part.of()));
            table.incoming.retain(|_| groups.next() == Some(usize::from(part.number())));
        }
        table
    }

    /// The Client Identifiers at the other broker.
    pub fn client_identifiers(&self, host: &str) -> Vec<String> {
        let all = self.client_identifier(host);
        match self.connections {
            0 | 1 => vec![all],
            of => (0..of).map(|number| identifier_of(&all, number)).collect(),
        }
    }

    /// Whether what one connection sends comes back by another one, or by itself although it asks for No Local.
    pub fn has_plain_subscriptions(&self) -> bool {
        self.connections > 1 || !self.share.is_empty()
    }

    /// By `in` rule, the number of its group. Rules that share a topic are in one group, as its messages would come by
    /// each connection that subscribes to it.
    fn groups_of_filters(&self) -> Vec<usize> {
        let topics: Vec<_> =
            self.incoming.iter().map(|rule| Topics::of(&rule.filter, "")).collect();
        let mut groups: Vec<usize> = (0..topics.len()).collect();
        for later in 0..topics.len() {
            for earlier in 0..later {
                if meet(&topics[earlier], &topics[later]) {
                    let (from, to) = (groups[later], groups[earlier]);
                    groups.iter_mut().filter(|of| **of == from).for_each(|of| *of = to);
                }
            }
        }
        // Numbered without gaps, in the order of the first rules.
        let mut numbers: Vec<usize> = Vec::new();
        let number = |group| match numbers.iter().position(|of| *of == group) {
            Some(number) => number,
            None => {
                numbers.push(group);
                numbers.len() - 1
            }
        };
        groups.into_iter().map(number).collect()
    }

    /// Checks `connections` and `share`.
    pub(super) fn check_connections(&self) -> Result<(), String> {
        if self.profile == Profile::AzureIotHub && self.connections > 1 {
            return Err("connections: Azure IoT Hub accepts one connection of a device; leave connections out, or make \
                        a bridge for each device"
                .to_owned());
        }
        if !self.share.is_empty() {
            self.check_share()?;
        }
        let is_before_5 = matches!(self.version, Version::V311 | Version::V31);
        let has_no_net = is_before_5 && self.echo == Echo::Off && self.has_overlap();
        match has_no_net && self.has_plain_subscriptions() {
            true => Err("echo: topics of [[bridges.out]] come back by another connection, or by a shared subscription, \
                         and before MQTT 5.0 nothing else would tell them from others: use echo = \"auto\", version = \
                         \"auto\" or \"5\", or name topics that do not overlap"
                .to_owned()),
            false => Ok(()),
        }
    }

    fn check_share(&self) -> Result<(), String> {
        let is_name = !self.share.contains(['/', '+', '#', '\0']);
        if !is_name || self.share.len() > SHARE_BYTES_MAX {
            return Err(format!(
                "share is the name of shared subscriptions: up to {SHARE_BYTES_MAX} bytes without /, +, # and U+0000"
            ));
        }
        if self.incoming.is_empty() {
            return Err(
                "share without [[bridges.in]]: nothing is subscribed to; leave it out".to_owned()
            );
        }
        let filters = super::changes::filters_of(&self.incoming);
        let topics: Vec<_> = filters.iter().map(|filter| Topics::of(filter, "")).collect();
        for later in 0..topics.len() {
            if let Some(earlier) = (0..later).find(|&of| meet(&topics[of], &topics[later])) {
                return Err(format!(
                    "share: a message of {:?} and {:?} would come twice, as each shared subscription receives it; name \
                     filters that have no topic in common",
                    filters[earlier], filters[later]
                ));
            }
        }
        Ok(())
    }
}

fn identifier_of(all: &str, number: u16) -> String {
    format!("{all}-{number}")
}

fn meet(one: &Option<Topics>, other: &Option<Topics>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one.meets(other))
}

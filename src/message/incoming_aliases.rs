//! Topic Aliases that the other end of a Network Connection has set. Lost with the connection [MQTT-3.3.2-7].

/// Aliases that the sender has set for what it sends.
#[derive(Debug, Default)]
pub struct IncomingAliases {
    /// Topic of alias `i + 1`; grows no further than the Topic Alias Maximum announced.
    topics: Vec<Box<str>>,
    bytes: usize,
}

impl IncomingAliases {
    /// The sender maps `alias` to `topic`, replacing what was there.
    pub fn set(&mut self, alias: u16, topic: &str) {
        let index = usize::from(alias) - 1;
        if self.topics.len() <= index {
            self.topics.resize(index + 1, Box::default());
        }
        if &*self.topics[index] != topic {
            self.bytes = self.bytes - self.topics[index].len() + topic.len();
            self.topics[index] = topic.into();
        }
    }

    /// Bytes of topics kept, for the memory bound.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether none was ever set.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The topic of `alias`, when one was set on this connection.
    pub fn topic(&self, alias: u16) -> Option<&str> {
        self.topics.get(usize::from(alias) - 1).map(|topic| &**topic).filter(|t| !t.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_3_3_2_12_an_incoming_alias_keeps_its_topic_until_set_again() {
        let mut aliases = IncomingAliases::default();
        assert_eq!(aliases.topic(3), None);
        aliases.set(3, "a");
        assert_eq!((aliases.topic(3), aliases.topic(1)), (Some("a"), None));
        aliases.set(3, "b");
        assert_eq!(aliases.topic(3), Some("b"));
    }
}

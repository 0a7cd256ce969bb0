//! Topics of messages that were sent last, for the log: an acknowledgement has a Packet Identifier only.

/// Bytes of a generation of topics: of two of them, the older one is forgotten when the newer one is full.
const GENERATION_BYTES: usize = 8 * 1024;
/// Bytes of a topic that are kept at most.
const TOPIC_BYTES_MAX: usize = 256;

/// The topics of messages that were sent last, by Packet Identifier: as many as there is room for.
#[derive(Debug, Default)]
pub(super) struct SentTopics {
    /// Packet Identifier, number of bytes, and topic of each message, in the order of sending.
    newer: Vec<u8>,
    older: Vec<u8>,
}

impl SentTopics {
    /// A message with this topic was sent.
    pub fn note(&mut self, identifier: u16, topic: &str) {
        let kept = &topic[..topic.floor_char_boundary(TOPIC_BYTES_MAX)];
        if self.newer.len() + kept.len() + 4 > GENERATION_BYTES {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        self.newer.extend(identifier.to_be_bytes());
        self.newer.extend((kept.len() as u16).to_be_bytes());
        self.newer.extend(kept.as_bytes());
    }

    /// The topic of the message that was sent last with this identifier, if it is known; the beginning of a long one.
    pub fn find(&self, identifier: u16) -> Option<&str> {
        last(&self.newer, identifier).or_else(|| last(&self.older, identifier))
    }

    /// Memory of the topics.
    pub fn bytes_held(&self) -> usize {
        self.newer.capacity() + self.older.capacity()
    }
}

fn last(mut topics: &[u8], identifier: u16) -> Option<&str> {
    let mut found = None;
    while let [high, low, many, few, rest @ ..] = topics {
        let (topic, next) = rest.split_at(u16::from_be_bytes([*many, *few]).into());
        if u16::from_be_bytes([*high, *low]) == identifier {
            found = Some(topic);
        }
        topics = next;
    }
    found.and_then(|topic| std::str::from_utf8(topic).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_of_a_message_is_that_of_the_last_one_with_its_identifier() {
        let mut topics = SentTopics::default();
        assert_eq!(topics.find(1), None);
        topics.note(1, "a");
        topics.note(2, "");
        topics.note(1, "b/c");
        assert_eq!((topics.find(1), topics.find(2), topics.find(3)), (Some("b/c"), Some(""), None));
    }

    #[test]
    fn topics_take_bounded_memory_and_the_oldest_are_forgotten() {
        let mut topics = SentTopics::default();
        for identifier in 1..=60_000 {
            topics.note(identifier, &"ä".repeat(usize::from(identifier % 300)));
        }
        assert!(topics.bytes_held() <= 4 * GENERATION_BYTES, "{}", topics.bytes_held());
        assert_eq!(topics.find(59_999), Some(&*"ä".repeat(128)), "the beginning");
        assert_eq!(topics.find(1), None);
    }
}

//! A part of all topics: those that one of several connections of a bridge takes.

/// Connections of a bridge at most.
pub const PARTS_MAX: u16 = 16;

/// One of several parts of all topics. Every topic is in exactly one part, on every core and after each start, so that
/// messages of one topic stay in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    number: u16,
    of: u16,
}

impl Part {
    /// Part `number`, from 0 on, of `of` parts; none if there is no such part, or only one.
    pub fn new(number: u16, of: u16) -> Option<Self> {
        (number < of && (2..=PARTS_MAX).contains(&of)).then_some(Self { number, of })
    }

    /// The part that a text as [`Self::text`] names.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, of) = text.split_once('/')?;
        let part = Self::new(number.parse().ok()?, of.parse().ok()?)?;
        (part.text() == text).then_some(part)
    }

    /// Its number and that of all, `1/4`.
    pub fn text(self) -> String {
        format!("{}/{}", self.number, self.of)
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.number
    }

    /// How many parts there are.
    pub fn of(self) -> u16 {
        self.of
    }

    /// Whether a topic is in this part.
    pub fn takes(self, topic: &str) -> bool {
        hash(topic.as_bytes()) % u64::from(self.of) == u64::from(self.number)
    }
}

/// FNV-1a of 64 bits (IETF draft-eastlake-fnv), with its upper half folded into the lower one: the lowest bits alone
/// depend on the lowest bits of the bytes. It is the same in every process.
fn hash(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_in_one_part_and_parts_are_about_the_same_size() {
        for of in [2, 3, 4, 16] {
            let parts: Vec<Part> = (0..of).filter_map(|number| Part::new(number, of)).collect();
            let mut sizes = vec![0_usize; usize::from(of)];
            for number in 0..16_000 {
                let topic = format!("site/{}/machine/{number}", number % 7);
                let takes: Vec<&Part> = parts.iter().filter(|part| part.takes(&topic)).collect();
                assert_eq!(takes.len(), 1, "{topic}");
                sizes[usize::from(takes[0].number())] += 1;
            }
            let mean = 16_000 / usize::from(of);
            assert!(sizes.iter().all(|size| size.abs_diff(mean) < mean / 4), "{sizes:?}");
        }
    }

    #[test]
    fn a_topic_is_in_the_same_part_in_each_release() {
        let of =
            |topic: &str| (0..4).find(|&number| Part::new(number, 4).expect("it is").takes(topic));
        assert_eq!(
            ["a", "a/b", "site/hall/temperature", ""].map(of),
            [Some(0), Some(0), Some(0), Some(1)]
        );
    }

    #[test]
    fn a_part_is_read_as_it_is_written_and_nothing_else_is() {
        let part = Part::new(1, 4).expect("it is");
        assert_eq!((part.text().as_str(), Part::parse("1/4")), ("1/4", Some(part)));
        for text in ["", "1", "4/4", "0/1", "01/4", "1/17", "1/4/", "-1/4", "+1/4", "a/b"] {
            assert_eq!(Part::parse(text), None, "{text}");
        }
    }
}

//! Items as bytes and back.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::session::SessionStep;
use super::*;

/// An item with its texts and bytes, from which items borrow.
#[derive(Clone, Debug)]
struct Source {
    kind: u8,
    text: String,
    filter: String,
    bytes: Vec<u8>,
    payload: Vec<u8>,
    exchange: Option<Vec<u8>>,
    small: u8,
    number: u64,
    other: u32,
    publisher: Option<(u16, u64)>,
    expires_in_ms: Option<u64>,
    stamp: u128,
    retain: bool,
}

impl Source {
    fn publish(&self) -> Publish<'_> {
        Publish {
            topic: &self.text,
            passed_on: &self.bytes,
            payload: &self.payload,
            qos: self.small,
            retain: self.retain,
            expires_in_ms: self.expires_in_ms,
            publisher: self.publisher,
            exchange: self.exchange.as_deref(),
            to: match self.other % 3 {
                0 => To::Subscribers,
                1 => To::SubscribersAndStore { stamp: self.stamp },
                _ => To::Group { filter: &self.filter, hops: self.number as u16 },
            },
        }
    }

    fn item(&self) -> Item<'_> {
        let Self { number, small: class, filter, .. } = self;
        let (number, class, filter) = (*number, *class, filter.as_str());
        let (core, connection) = self.publisher.unwrap_or_default();
        match self.kind {
            0..3 => Item::Announce { filter, class },
            3 => Item::Withdraw { filter, class },
            4 => Item::Group { filter, online: self.other, members: number as u32 },
            5 => Item::Publish(self.publish()),
            6 => Item::Pause { core, connection },
            7 => Item::Resume { core, connection },
            8 => Item::ExchangeOver(self.exchange.as_deref().unwrap_or_default()),
            9 => Item::Clock(number),
            10 => Item::ClockAsk,
            11..14 => Item::Retained(self.publish()),
            14 => Item::HelloDone,
            _ => Item::Session(self.session()),
        }
    }

    fn session(&self) -> SessionItem<'_> {
        let (is_so, records) = (self.retain, self.payload.as_slice());
        let step = match self.other % 11 {
            0 => SessionStep::Claim {
                asks: is_so,
                ends: self.number.is_multiple_of(2),
                refuses: self.number.is_multiple_of(3),
                is_offered: self.number.is_multiple_of(5),
                user: self.exchange.as_ref().map(|_| self.filter.as_str()),
            },
            1 => SessionStep::Withdraw,
            2 => SessionStep::Answer {
                has_session: is_so,
                is_absent: !is_so && self.number % 2 == 1,
                claimed: self.number,
            },
            3 => SessionStep::Filters { is_last: is_so, records },
            4 => SessionStep::Ask { wants: is_so, nodes: self.number },
            5 => SessionStep::Flush { to: self.other as u16 },
            6 => SessionStep::Flushed { cores: self.other as u16 },
            7 => SessionStep::Mark { cores: self.other as u16 },
            8 => SessionStep::Offer { user: self.exchange.as_ref().map(|_| self.filter.as_str()) },
            9 => SessionStep::Decline,
            _ => SessionStep::State { is_last: is_so, records },
        };
        SessionItem { client: &self.text, stamp: self.number, step }
    }
}

/// Numbers of every length.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(number, shift)| number >> shift)
}

fn source() -> impl Strategy<Value = Source> {
    let texts = (".{0,40}", ".{0,40}", vec(any::<u8>(), 0..200), vec(any::<u8>(), 0..400));
    let optional = (
        option::of(vec(any::<u8>(), 0..=EXCHANGE_BYTES_MAX)),
        option::of(any::<(u16, u64)>()),
        option::of(number()),
    );
    (0u8..17, texts, optional, 0..=CLASS_MAX, number(), any::<(u32, u128, bool)>()).prop_map(
        |(
            kind,
            (text, filter, bytes, payload),
            (exchange, publisher, expires_in_ms),
            small,
            number,
            rest,
        )| {
            let (other, stamp, retain) = rest;
            Source {
                kind,
                text,
                filter,
                bytes,
                payload,
                exchange,
                small,
                number,
                other,
                publisher,
                expires_in_ms,
                stamp,
                retain,
            }
        },
    )
}

fn encoded(item: &Item<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    item.encode(&mut out);
    out
}

fn fault(bytes: &[u8]) -> Option<Fault> {
    Items::new(bytes).find_map(Result::err).map(|error| error.fault)
}

proptest! {
    #[test]
    fn items_are_read_as_they_were_written(sources in vec(source(), 0..20)) {
        let mut bytes = Vec::new();
        for source in &sources {
            let before = bytes.len();
            source.item().encode(&mut bytes);
            prop_assert!(bytes.len() - before <= source.item().bytes_max());
        }
        let read: Vec<_> = Items::new(&bytes).collect();
        let written: Vec<_> = sources.iter().map(|source| Ok(source.item())).collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn an_item_without_its_end_is_incomplete(source in source(), end in any::<prop::sample::Index>()) {
        let bytes = encoded(&source.item());
        let end = end.index(bytes.len());
        prop_assume!(end > 0);
        prop_assert_eq!(fault(&bytes[..end]), Some(Fault::Short));
    }

    #[test]
    fn arbitrary_bytes_are_items_or_an_error_after_which_there_is_nothing(bytes in vec(any::<u8>(), 0..200)) {
        let mut items = Items::new(&bytes);
        while let Some(item) = items.next() {
            if let Err(error) = item {
                prop_assert!(error.at < bytes.len());
                prop_assert!(items.next().is_none());
            }
        }
    }
}

#[test]
fn a_kind_of_a_later_version_is_an_error_that_says_so() {
    let mut bytes = encoded(&Item::HelloDone);
    bytes.push(200);
    let read: Vec<_> = Items::new(&bytes).collect();
    assert_eq!(read, [Ok(Item::HelloDone), Err(DecodeError { at: 1, fault: Fault::Kind(200) })]);
    let text = read[1].expect_err("an error").to_string();
    assert!(text.contains("kind 200, which version 2 of lanes does not have"), "{text}");
}

#[test]
fn lengths_beyond_the_frame_and_beyond_their_bounds_are_errors() {
    // A filter that says that it has nearly 2^64 bytes, and one that has more than a text may have.
    let endless = [&[4, 0][..], &[0xFF; 9], &[1]].concat();
    assert_eq!(fault(&endless), Some(Fault::Short));
    assert_eq!(fault(&[5, 0x80, 0x80, 0x04]), Some(Fault::Short));
    let long = "a".repeat(TEXT_BYTES_MAX + 1);
    assert_eq!(
        fault(&encoded(&Item::Withdraw { filter: &long, class: 0 })),
        Some(Fault::Value("filter"))
    );
    assert_eq!(fault(&encoded(&Item::Withdraw { filter: &long[1..], class: 0 })), None);
    let exchange = [0; EXCHANGE_BYTES_MAX + 1];
    assert_eq!(fault(&encoded(&Item::ExchangeOver(&exchange))), Some(Fault::Value("exchange")));
}

#[test]
fn values_out_of_range_are_errors() {
    assert_eq!(
        fault(&encoded(&Item::Announce { filter: "a", class: 3 })),
        Some(Fault::Value("class"))
    );
    assert_eq!(fault(&[3, 3, 0]), Some(Fault::Value("class")));
    assert_eq!(fault(&[4, 0, 2, 0xFF, 0xFE]), Some(Fault::Text("filter")));
    assert_eq!(fault(&[6, 3]), Some(Fault::Value("QoS")));
    assert_eq!(fault(&[6, 0b1100_0000, 0]), Some(Fault::Value("recipients")));
    // A clock of 65 bits, and one of 64 bits in eleven bytes.
    assert_eq!(fault(&[&[10][..], &[0xFF; 9], &[2]].concat()), Some(Fault::Number));
    assert_eq!(fault(&[&[10][..], &[0x80; 10], &[0]].concat()), Some(Fault::Number));
    assert_eq!(fault(&encoded(&Item::Clock(u64::MAX))), None);
    // More members than 32 bits.
    assert_eq!(fault(&[5, 0, 0x80, 0x80, 0x80, 0x80, 0x10]), Some(Fault::Value("online members")));
}

#[test]
fn a_message_takes_little_more_than_its_topic_and_payload() {
    let publish = Publish {
        topic: "plant/7/line/3/flow0",
        passed_on: &[],
        payload: &[0x55; 64],
        qos: 0,
        retain: false,
        expires_in_ms: None,
        publisher: None,
        exchange: None,
        to: To::Subscribers,
    };
    assert_eq!(encoded(&Item::Publish(publish)).len(), 20 + 64 + 5);
}

//! What a far broker refuses: subscriptions, messages, and the connection in favour of another client.

use std::sync::atomic::Ordering;

use super::*;
use crate::transport::bridge::Refusal;

/// SUBACK of the far broker.
fn suback(between: &mut Between, reasons: &[u8]) {
    let suback = Suback {
        packet_identifier: identifier(u16::MAX),
        user_properties: UserProperties::none(),
        reason_string: None,
        reasons,
    };
    assert_eq!(between.passes_in(&Packet::Suback(suback)), NOTHING);
}

/// The filters of SUBSCRIBE.
#[track_caller]
fn filters(bytes: &[u8], version: Version) -> Vec<String> {
    match one(bytes, version) {
        Packet::Subscribe(subscribe) => {
            subscribe.filters.iter().map(|(filter, _)| filter.to_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refused_filter_is_told_and_subscribed_to_again_until_it_is_granted() {
    for version in [Version::V5, Version::V311] {
        let mut between = Between::open(version);
        between.link.subscribe_again();
        assert_eq!(between.says(&[]), NOTHING, "the answer to SUBSCRIBE is due");
        assert!(matches!(between.events.try_recv(), Ok(Event::Connected { .. })));
        // Of 5.0 one that is not about No Local.
        let code = if version == Version::V5 { 0x87 } else { 0x80 };
        for _ in 0..2 {
            suback(&mut between, &[code]);
            let refused = vec![("cmd/#".to_owned(), code)];
            assert_eq!(between.events.try_recv(), Ok(Event::Subscribed { refused }));
            between.link.subscribe_again();
            assert_eq!(filters(&between.says(&[]), version), ["cmd/#"]);
        }
        suback(&mut between, &[1]);
        assert_eq!(between.events.try_recv(), Ok(Event::Subscribed { refused: Vec::new() }));
        between.link.subscribe_again();
        assert_eq!(between.says(&[]), NOTHING, "nothing is refused");
    }
}

#[test]
fn a_message_that_would_be_refused_again_is_dropped_counted_by_reason_and_told_with_its_topic_once()
{
    let mut between = Between::open(Version::V5);
    between.events.try_recv().expect("connected");
    for (number, reason) in
        [ReasonCode::NotAuthorized, ReasonCode::TopicNameInvalid, ReasonCode::PayloadFormatInvalid]
            .into_iter()
            .enumerate()
    {
        for round in 0..2 {
            let number = 10 * number as u16 + round + 1;
            between.passes_out(&Packet::Publish(publish("site/a", Qos::AtLeastOnce, number)));
            let refused = match round {
                0 => Packet::Puback(ack(number, reason)),
                _ => Packet::Pubrec(ack(number, reason)),
            };
            assert_eq!(between.passes_in(&refused), encoded(&refused, Version::V5));
        }
        let refusal = Refusal::of(reason);
        let topic = Some("plant7/a".to_owned());
        let told = between.events.try_recv();
        assert_eq!(told, Ok(Event::MessageRefused { refusal, topic }), "{reason:?}");
        assert!(between.events.try_recv().is_err(), "once");
        assert_eq!(between.counters.refused[refusal as usize].load(Ordering::Relaxed), 2);
    }
}

#[test]
fn a_message_for_which_the_far_broker_has_no_quota_stays_in_the_session_and_ends_the_connection() {
    for make in [Packet::Puback, Packet::Pubrec] {
        let mut between = Between::open(Version::V5);
        between.passes_out(&Packet::Publish(publish("site/a", Qos::ExactlyOnce, 7)));
        let mut plain = Vec::new();
        let refused = encoded(&make(ack(7, ReasonCode::QuotaExceeded)), Version::V5);
        let fault = between.link.receive(&refused, &mut plain).expect_err("the connection ends");
        assert!(fault.what.contains("no quota"), "{fault}");
        assert_eq!(plain, NOTHING, "the session does not hear of it");
        let count = &between.counters.refused[Refusal::QuotaExceeded as usize];
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_connection_that_another_client_takes_over_is_told_as_that() {
    for (reason, is_told) in
        [(ReasonCode::SessionTakenOver, true), (ReasonCode::ServerShuttingDown, false)]
    {
        let mut between = Between::open(Version::V5);
        let disconnect = Disconnect { reason, ..Disconnect::default() };
        let packet = encoded(&Packet::Disconnect(disconnect), Version::V5);
        between.hears(&packet).expect_err("the connection is over");
        let events: Vec<_> = between.events.try_iter().collect();
        assert_eq!(events.contains(&Event::TakenOver), is_told);
    }
}

#[test]
fn answers_to_a_far_broker_that_does_not_read_them_are_bounded() {
    let mut between = Between::open(Version::V311);
    let unmapped = encoded(&Packet::Publish(publish("other", Qos::AtLeastOnce, 4)), Version::V311);
    let many = unmapped.repeat(1_000);
    let rounds = (0..1_000).take_while(|_| between.link.receive(&many, &mut Vec::new()).is_ok());
    let rounds = rounds.count();
    assert!((10..100).contains(&rounds), "{rounds} rounds of 1,000 answers of 4 bytes");
    assert!(between.link.bytes_held() < 1024 * 1024, "{}", between.link.bytes_held());
}

#[test]
fn answers_that_a_far_broker_reads_may_be_any_number() {
    let mut between = Between::open(Version::V311);
    let unmapped = encoded(&Packet::Publish(publish("other", Qos::AtLeastOnce, 4)), Version::V311);
    let many = unmapped.repeat(1_000);
    for _ in 0..1_000 {
        between.hears(&many).expect("it reads");
        assert_eq!(between.says(&[]).len(), 4_000);
    }
}

#[test]
fn memory_that_grows_while_a_link_sends_is_counted_when_it_receives() {
    let mut between = Between::open(Version::V5);
    let before = between.link.bytes_held();
    between.passes_out(&Packet::Publish(publish("site/a", Qos::AtLeastOnce, 7)));
    between.passes_out(&Packet::Publish(publish("other", Qos::AtLeastOnce, 8)));
    assert_eq!(between.link.bytes_held(), before, "the engine does not look when it sends");
    between.hears(&[]).expect("nothing");
    assert!(between.link.bytes_held() > before);
}

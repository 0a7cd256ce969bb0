//! Lanes step by step; [`model`] has them under a carrier that fails in every way.

mod model;

use super::*;
use crate::cluster::limits::*;

const MS: u64 = 1_000;

/// Two lanes, and a carrier that the test plays.
struct Pair {
    now: Now,
    a: Lane,
    b: Lane,
}

impl Pair {
    fn new() -> Self {
        let now = Now(1_000_000);
        Self { now, a: Lane::new(1, 1, now), b: Lane::new(1, 1, now) }
    }

    fn push(&mut self, number: u64) -> u64 {
        self.a.push(self.now, &Item::Clock(number))
    }

    fn push_frames(&mut self, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            assert_eq!(self.push(number), number);
            self.a.flush();
        }
    }

    fn sent_by_a(&mut self) -> Vec<Bytes> {
        std::iter::from_fn(|| self.a.poll_transmit(self.now)).collect()
    }

    fn sent_by_b(&mut self) -> Vec<Bytes> {
        std::iter::from_fn(|| self.b.poll_transmit(self.now)).collect()
    }

    /// Gives frames to `b`, and returns the clocks in them.
    fn give_b(&mut self, frames: &[Bytes]) -> Vec<u64> {
        let mut clocks = Vec::new();
        for frame in frames {
            let taken = self.b.handle_frame(self.now, frame.clone()).expect("a good frame");
            clocks.extend(taken.content.iter().flat_map(Content::items).map(|item| match item {
                Ok(Item::Clock(clock)) => clock,
                other => panic!("{other:?}"),
            }));
        }
        clocks
    }

    fn give_a(&mut self, frames: &[Bytes]) {
        for frame in frames {
            self.a.handle_frame(self.now, frame.clone()).expect("a good frame");
        }
    }

    fn pass(&mut self, us: u64) {
        self.now.0 += us;
        self.a.handle_timeout(self.now);
        self.b.handle_timeout(self.now);
    }
}

fn number_of(frame: &Bytes) -> u64 {
    Header::read(frame).expect("a good frame").number
}

fn numbers(frames: &[Bytes]) -> Vec<u64> {
    frames.iter().map(number_of).collect()
}

#[test]
fn items_of_a_turn_share_a_frame_which_is_kept_until_its_receipt() {
    let mut pair = Pair::new();
    assert_eq!((pair.push(10), pair.push(11)), (1, 1));
    assert!(pair.sent_by_a().is_empty(), "the frame is open");
    pair.a.flush();
    let frames = pair.sent_by_a();
    assert_eq!(numbers(&frames), [1]);
    assert_eq!(pair.give_b(&frames), [10, 11]);
    pair.pass(REPORT_DELAY.as_micros() as u64);
    let report = pair.sent_by_b();
    pair.give_a(&report);
    assert_eq!((pair.a.taken_by_peer(), pair.a.receipted()), (1, 0));
    assert!(pair.a.load_bytes() > 0);
    pair.b.set_receipt(1);
    let receipt = pair.sent_by_b();
    assert_eq!(numbers(&receipt), [0], "a frame for a receipt has no number");
    pair.give_a(&receipt);
    assert_eq!((pair.a.receipted(), pair.a.load_bytes()), (1, 0));
}

#[test]
fn a_gap_is_asked_for_once_and_at_once() {
    let mut pair = Pair::new();
    pair.push_frames(1..=4);
    let frames = pair.sent_by_a();
    assert_eq!(pair.give_b(&frames[..1]), [1]);
    assert!(pair.give_b(&frames[2..]).is_empty(), "nothing out of order");
    let asks = pair.sent_by_b();
    assert_eq!(asks.len(), 1);
    pair.give_a(&asks);
    let again = pair.sent_by_a();
    assert_eq!(numbers(&again), [2, 3, 4]);
    pair.give_a(&asks);
    assert!(pair.sent_by_a().is_empty(), "a repeated request changes nothing");
    assert_eq!(pair.give_b(&again), [2, 3, 4]);
    assert_eq!(pair.a.counters().frames_repeated, 3);
    assert_eq!(pair.b.counters().gaps, 1);
}

#[test]
fn after_a_silence_the_first_frame_is_repeated_ever_more_rarely_and_the_others_follow_it() {
    let mut pair = Pair::new();
    pair.push_frames(1..=3);
    let first = pair.sent_by_a();
    let mut repeated_after = Vec::new();
    let begin = pair.now.0;
    while pair.now.0 < begin + 8_000 * MS {
        pair.pass(MS);
        let frames: Vec<_> =
            pair.sent_by_a().into_iter().filter(|frame| number_of(frame) > 0).collect();
        if !frames.is_empty() {
            assert_eq!(numbers(&frames), [1], "a stopped node is not flooded");
            repeated_after.push((pair.now.0 - begin) / MS);
        }
    }
    assert_eq!(repeated_after, [200, 600, 1400, 3000, 5000, 7000]);
    assert_eq!(pair.give_b(&first[..1]), [1]);
    pair.pass(REPORT_DELAY.as_micros() as u64);
    let report = pair.sent_by_b();
    pair.give_a(&report);
    let frames = pair.sent_by_a();
    assert_eq!(numbers(&frames), [2, 3]);
    assert_eq!(pair.give_b(&frames), [2, 3]);
}

#[test]
fn a_repeated_frame_is_answered_with_what_was_taken_and_brings_nothing_twice() {
    let mut pair = Pair::new();
    pair.push_frames(1..=1);
    let frames = pair.sent_by_a();
    assert_eq!(pair.give_b(&frames), [1]);
    pair.b.set_receipt(1);
    // The receipt is lost.
    assert_eq!(pair.sent_by_b().len(), 1);
    assert!(pair.give_b(&frames).is_empty());
    let report = pair.sent_by_b();
    pair.give_a(&report);
    assert_eq!(pair.a.receipted(), 1);
    assert_eq!(pair.b.counters().frames_duplicate, 1);
}

#[test]
fn a_lost_receipt_is_repeated_within_a_second_on_a_lane_without_traffic() {
    let mut pair = Pair::new();
    pair.push_frames(1..=1);
    let frames = pair.sent_by_a();
    pair.give_b(&frames);
    pair.pass(REPORT_DELAY.as_micros() as u64);
    let report = pair.sent_by_b();
    pair.give_a(&report);
    pair.b.set_receipt(1);
    pair.sent_by_b();
    pair.pass(KEEP_ALIVE.as_micros() as u64);
    let report = pair.sent_by_b();
    pair.give_a(&report);
    assert_eq!(pair.a.receipted(), 1);
    assert_eq!(pair.a.last_heard(), pair.now);
}

#[test]
fn no_more_than_the_window_is_sent_before_some_of_it_is_taken() {
    let mut pair = Pair::new();
    let payload = vec![7; 100 * 1024];
    while !pair.a.is_loaded() {
        pair.a.push(pair.now, &publish(&payload));
    }
    for _ in 0..50 {
        pair.a.push(pair.now, &publish(&payload));
    }
    let last = pair.push(1);
    pair.a.flush();
    let frames = pair.sent_by_a();
    let bytes: usize = frames.iter().map(Bytes::len).sum();
    assert!(bytes <= WINDOW_BYTES && bytes > WINDOW_BYTES - FRAME_BYTES_MAX, "{bytes}");
    // Takes all of them: the next ones leave at the report, whether or not there is a receipt.
    let mut in_transit = frames;
    while pair.b.receiver.taken() < last {
        for frame in in_transit.drain(..) {
            pair.b.handle_frame(pair.now, frame).expect("a good frame");
        }
        pair.pass(REPORT_DELAY.as_micros() as u64);
        let report = pair.sent_by_b();
        pair.give_a(&report);
        in_transit = pair.sent_by_a();
        assert!(!in_transit.is_empty() || pair.b.receiver.taken() == last);
    }
    assert_eq!(pair.a.counters().frames_repeated, 0);
    assert!(pair.a.is_loaded(), "kept until the receipt");
    pair.b.set_receipt(last);
    let receipt = pair.sent_by_b();
    pair.give_a(&receipt);
    assert_eq!(pair.a.load_bytes(), 0);
    assert!(
        pair.a.heap_bytes() <= 2 * POOLED_FRAMES_MAX * FRAME_BYTES_MAX,
        "{}",
        pair.a.heap_bytes()
    );
    pair.pass(KEEP_ALIVE.as_micros() as u64);
    assert_eq!(pair.a.heap_bytes(), 0, "an idle lane holds nothing");
}

fn publish(payload: &[u8]) -> Item<'_> {
    Item::Publish(crate::cluster::codec::Publish {
        topic: "t",
        passed_on: &[],
        payload,
        qos: 1,
        retain: false,
        expires_in_ms: Some(60_000),
        publisher: None,
        exchange: None,
        to: crate::cluster::codec::To::Subscribers,
    })
}

#[test]
fn an_item_larger_than_a_frame_comes_in_one_piece_and_has_no_receipt_before() {
    let mut pair = Pair::new();
    let before = pair.push(1);
    let payload: Vec<u8> = (0..2_000_000u32).map(|number| (number % 251) as u8).collect();
    let number = pair.a.push(pair.now, &publish(&payload));
    let after = pair.push(2);
    pair.a.flush();
    assert_eq!((before, number, after), (1, 9, 10));
    pair.pass(5 * MS);
    let frames = pair.sent_by_a();
    assert!(frames.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX));
    assert_eq!(pair.give_b(&frames[..1]), [1]);
    for frame in &frames[1..8] {
        assert!(
            pair.b.handle_frame(pair.now, frame.clone()).expect("a good frame").content.is_none()
        );
        pair.b.set_receipt(number_of(frame));
        assert_eq!(pair.b.receiver.receipt(), 1, "a part of an item has no receipt");
    }
    assert!(pair.b.heap_bytes() <= payload.len() + 100, "{}", pair.b.heap_bytes());
    pair.pass(7 * MS);
    let content =
        pair.b.handle_frame(pair.now, frames[8].clone()).expect("good").content.expect("the item");
    assert_eq!((content.number, content.age_us), (9, 12 * MS));
    let items: Vec<_> = content.items().collect();
    assert_eq!(items, [Ok(publish(&payload))]);
    let Ok(Item::Publish(read)) = items[0] else { panic!("a message") };
    assert_eq!(content.share(read.payload), payload);
    assert_eq!(pair.b.heap_bytes(), 0);
    assert_eq!(pair.give_b(&frames[9..]), [2]);
}

#[test]
fn fragments_that_do_not_belong_together_are_errors_and_take_no_memory() {
    let mut pair = Pair::new();
    let frame = |number: u64, flags: u8, total: u32, part: usize| {
        let mut frame = vec![1; HEADER_BYTES];
        frame.extend_from_slice(&total.to_le_bytes());
        frame.resize(frame.len() + part, 2);
        let header = Header {
            version: 1,
            flags,
            sender: 1,
            receiver: 1,
            number,
            taken: 0,
            receipt: 0,
            age_us: 0,
        };
        header.write(&mut frame);
        Bytes::from(frame)
    };
    let mut error = |frame: Bytes| pair.b.handle_frame(Now(1), frame).expect_err("an error");
    assert!(error(frame(1, FRAGMENT, u32::MAX, 10)).is_final());
    assert!(error(frame(1, FRAGMENT, 10, 0)).is_final());
    assert!(error(frame(1, FRAGMENT, 10, 11)).is_final());
    assert!(
        pair.b
            .handle_frame(Now(1), frame(1, FRAGMENT, 1 << 28, 11))
            .expect("a fragment")
            .content
            .is_none()
    );
    assert!(pair.b.heap_bytes() <= 11, "memory grows with what has come");
    let mut error = |frame: Bytes| pair.b.handle_frame(Now(1), frame).expect_err("an error");
    assert!(error(frame(2, 0, 0, 0)).is_final());
    assert!(error(frame(2, FRAGMENT, (1 << 28) + 1, 11)).is_final());
    assert_eq!(pair.b.receiver.taken(), 1);
}

#[test]
fn damaged_frames_change_nothing() {
    let mut pair = Pair::new();
    pair.push_frames(1..=1);
    let frame = pair.sent_by_a().remove(0);
    for end in 0..frame.len() {
        let error = pair.b.handle_frame(pair.now, frame.slice(..end)).expect_err("an error");
        assert!(!error.is_final());
    }
    for bit in 0..frame.len() * 8 {
        let mut damaged = frame.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = pair.b.handle_frame(pair.now, damaged.into()).expect_err("an error");
        assert_eq!(error, FrameError::Damaged("its checksum is wrong"), "bit {bit}");
    }
    let long = vec![1; FRAME_BYTES_MAX + 1];
    assert!(!pair.b.handle_frame(pair.now, long.into()).expect_err("an error").is_final());
    assert_eq!(pair.give_b(&[frame]), [1]);
}

#[test]
fn a_frame_of_a_later_version_is_an_error_that_says_what_to_do() {
    let mut pair = Pair::new();
    let mut frame = vec![0; HEADER_BYTES];
    let header = Header {
        version: 9,
        flags: 0,
        sender: 1,
        receiver: 1,
        number: 0,
        taken: 0,
        receipt: 0,
        age_us: 0,
    };
    header.write(&mut frame);
    let error = pair.b.handle_frame(pair.now, frame.into()).expect_err("an error");
    assert_eq!(error, FrameError::Version(9));
    assert!(error.is_final() && error.to_string().contains("upgrade the older node"), "{error}");
}

#[test]
fn a_later_incarnation_starts_the_lane_anew_and_returns_what_had_no_receipt() {
    let mut pair = Pair::new();
    let payload = vec![7; 600 * 1024];
    pair.push_frames(1..=3);
    let large = pair.a.push(pair.now, &publish(&payload));
    assert_eq!(large, 6);
    let frames = pair.sent_by_a();
    pair.give_b(&frames[..2]);
    pair.b.set_receipt(1);
    let receipt = pair.sent_by_b();
    pair.give_a(&receipt);
    pair.push(4);
    // `b` starts again, and says something.
    pair.pass(3 * MS);
    let mut later = Lane::new(2, 1, pair.now);
    later.push(pair.now, &Item::HelloDone);
    later.flush();
    let frame = later.poll_transmit(pair.now).expect("a frame");
    let taken = pair.a.handle_frame(pair.now, frame).expect("a good frame");
    assert_eq!(taken.content.map(|content| content.items().count()), Some(1));
    let left: Vec<_> = taken.restarted.expect("a restart").collect();
    assert_eq!(left.iter().map(|content| content.number).collect::<Vec<_>>(), [2, 3, 6, 7]);
    assert!(left.iter().all(|content| content.age_us == 3 * MS));
    assert_eq!(left[0].items().collect::<Vec<_>>(), [Ok(Item::Clock(2))]);
    assert_eq!(left[2].items().collect::<Vec<_>>(), [Ok(publish(&payload))]);
    assert_eq!(left[3].items().collect::<Vec<_>>(), [Ok(Item::Clock(4))]);
    assert_eq!((pair.a.peer_incarnation(), pair.a.load_bytes()), (2, 0));
    // What the earlier one still says, and what was meant for it, is ignored.
    pair.b.set_receipt(2);
    let outdated = pair.sent_by_b();
    pair.give_a(&outdated);
    assert_eq!((pair.a.receipted(), pair.a.counters().frames_outdated), (0, 1));
    let taken = later.handle_frame(pair.now, frames[2].clone()).expect("a good frame");
    assert!(taken.content.is_none() && taken.restarted.is_none());
    assert!(pair.a.restart(2, pair.now).is_none());
    assert_eq!(pair.push(5), 1);
    pair.a.flush();
    let frames = pair.sent_by_a();
    let taken = later.handle_frame(pair.now, frames[0].clone()).expect("a good frame");
    assert_eq!(taken.content.map(|content| content.number), Some(1));
}

#[test]
fn a_node_that_the_others_know_a_later_incarnation_of_is_told() {
    let mut pair = Pair::new();
    let mut informed = Lane::new(1, 2, pair.now);
    informed.push(pair.now, &Item::HelloDone);
    informed.flush();
    let frame = informed.poll_transmit(pair.now).expect("a frame");
    let error = pair.b.handle_frame(pair.now, frame).expect_err("an error");
    assert!(error.is_final());
    assert_eq!(error, FrameError::Superseded(2));
}

#[test]
fn reports_that_cannot_be_are_errors() {
    let mut pair = Pair::new();
    pair.push_frames(1..=1);
    pair.sent_by_a();
    let report = |taken, receipt| {
        let mut frame = vec![0; HEADER_BYTES];
        let header = Header {
            version: 1,
            flags: 0,
            sender: 1,
            receiver: 1,
            number: 0,
            taken,
            receipt,
            age_us: 0,
        };
        header.write(&mut frame);
        Bytes::from(frame)
    };
    assert!(pair.a.handle_frame(pair.now, report(2, 0)).expect_err("not sent").is_final());
    assert!(pair.a.handle_frame(pair.now, report(0, 1)).expect_err("not taken").is_final());
    assert_eq!((pair.a.taken_by_peer(), pair.a.receipted()), (0, 0));
    assert!(pair.a.handle_frame(pair.now, report(1, 1)).is_ok());
}

#[test]
fn ages_count_from_the_oldest_item_also_when_a_frame_is_repeated() {
    let mut pair = Pair::new();
    pair.push(1);
    pair.pass(4 * MS);
    pair.push(2);
    pair.a.flush();
    let frames = pair.sent_by_a();
    assert_eq!(Header::read(&frames[0]).expect("good").age_us, 4 * MS);
    pair.pass(200 * MS);
    let frames = pair.sent_by_a();
    let content =
        pair.b.handle_frame(pair.now, frames[0].clone()).expect("good").content.expect("new");
    assert_eq!(content.age_us, 204 * MS);
}

#[test]
fn a_lane_is_stuck_from_the_first_frame_that_has_no_receipt() {
    let mut pair = Pair::new();
    pair.pass(500 * MS);
    assert_eq!(pair.a.stuck_us(pair.now), 0);
    pair.push_frames(1..=1);
    let frames = pair.sent_by_a();
    pair.pass(300 * MS);
    assert_eq!(pair.a.stuck_us(pair.now), 300 * MS);
    pair.give_b(&frames);
    pair.b.set_receipt(1);
    let receipt = pair.sent_by_b();
    pair.give_a(&receipt);
    assert_eq!(pair.a.stuck_us(pair.now), 0);
}

#[test]
fn the_windows_of_all_lanes_together_are_bounded() {
    assert_eq!(
        (window_of(0), window_of(1), window_of(6)),
        (WINDOW_BYTES, WINDOW_BYTES, WINDOW_BYTES)
    );
    for others in 7..64 {
        assert!(
            window_of(others) * others <= WINDOWS_BYTES && window_of(others) >= 2 * FRAME_BYTES_MAX
        );
    }
}

#[test]
fn small_frames_take_no_more_memory_than_they_count_for() {
    let mut pair = Pair::new();
    for number in 1..=1_000 {
        pair.push(number);
        pair.a.flush();
    }
    assert!(
        pair.a.heap_bytes() <= pair.a.load_bytes() + FRAME_BYTES_MIN + 1_000 * FRAME_OVERHEAD_BYTES
    );
}

//! A shipper on a stream that refuses by sequence, loses answers, commits after the answer was given up, fails to answer
//! looks, and is sealed; compared with what a reader finds in the stream. A seed decides everything, and every failure
//! names it.

use super::page::{Frames, Taken};
use super::*;

const STEPS: u64 = 600;

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A stream: messages from sequence 1 on, of which the first ones may have been purged.
#[derive(Default)]
struct Stream {
    messages: Vec<Bytes>,
    purged: u64,
}

impl Stream {
    fn last(&self) -> u64 {
        self.messages.len() as u64
    }

    fn append(&mut self, sequence: u64, message: &Bytes) -> Appended {
        if self.last() + 1 != sequence {
            return Appended::Refused;
        }
        self.messages.push(message.clone());
        Appended::Stored
    }

    fn look(&self, from: u64) -> Look {
        let shown = self.messages.iter().skip(from as usize - 1).take(LOOK_MAX);
        let header = |message: &Bytes| page::read(message).ok().map(|(header, _)| header);
        Look { last: self.last(), found: shown.map(header).collect() }
    }
}

enum Answer {
    Appended(u64, u64, Appended),
    Look(u64, Option<Look>),
}

struct Model {
    seed: u64,
    random: Random,
    now: Now,
    shipper: Shipper,
    stream: Stream,
    /// Orders that have not reached the stream, and may do so after their answer was given up.
    late: Vec<(u64, Bytes)>,
    answers: Vec<Answer>,
    /// In percent of what reaches the stream.
    faults: u64,
    frames: Vec<Vec<u8>>,
    is_sealed: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let faults = [0, 5, 30][random.below(3) as usize];
        Self {
            seed,
            random,
            now: Now(1),
            shipper: Shipper::new(7, seed, 0, 0),
            stream: Stream::default(),
            late: Vec::new(),
            answers: Vec::new(),
            faults,
            frames: Vec::new(),
            is_sealed: false,
        }
    }

    fn push(&mut self) {
        let length = match self.random.below(60) {
            0 => 300_000,
            _ => 1 + self.random.below(200) as usize,
        };
        let number = self.frames.len() as u64 + 1;
        let frame: Vec<u8> = (0..length).map(|at| (at as u64 + number) as u8).collect();
        self.shipper.push(self.now, number, &frame, number % 10 == 1);
        self.frames.push(frame);
    }

    fn carry(&mut self, order: Order) {
        let is_faulty = self.random.percent(self.faults);
        match order {
            Order::Append { epoch, sequence, page } => {
                let appended = match is_faulty.then(|| self.random.below(3)) {
                    // It never comes; it comes and its answer is lost; it comes after it was given up.
                    Some(0) => Appended::Unknown,
                    Some(1) => {
                        self.stream.append(sequence, &page);
                        Appended::Unknown
                    }
                    Some(_) => {
                        self.late.push((sequence, page));
                        Appended::Unknown
                    }
                    None => self.stream.append(sequence, &page),
                };
                self.answers.push(Answer::Appended(epoch, sequence, appended));
            }
            Order::Look { epoch, from } => {
                let look = (!is_faulty).then(|| self.stream.look(from));
                self.answers.push(Answer::Look(epoch, look));
            }
            Order::Purge { before } => self.stream.purged = before - 1,
        }
    }

    fn answer(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        // Answers overtake each other.
        let at = self.random.below(self.answers.len() as u64) as usize;
        match self.answers.swap_remove(at) {
            Answer::Appended(epoch, sequence, appended) => {
                self.shipper.handle_appended(self.now, epoch, sequence, appended);
            }
            Answer::Look(epoch, look) => self.shipper.handle_look(self.now, epoch, look),
        }
    }

    fn step(&mut self) {
        self.now = Now(self.now.0 + self.random.below(40_000));
        match self.random.below(10) {
            0 => self.push(),
            1 if !self.late.is_empty() => {
                let (sequence, page) = self.late.remove(0);
                self.stream.append(sequence, &page);
            }
            2 if self.random.percent(self.faults) => self.shipper.handle_reconnected(),
            3 if self.random.percent(5) => self.shipper.check(),
            4 if self.random.percent(20) && self.frames.len() > 20 => {
                // As after a checkpoint: the frames before a segment are dropped once all is released.
                let first = (self.frames.len() as u64 - 1) / 10 * 10 + 1;
                self.shipper.forget_before(first);
            }
            5..=7 => self.answer(),
            _ => {
                if let Some(order) = self.shipper.poll(self.now) {
                    self.carry(order);
                }
            }
        }
        self.verify();
    }

    /// What was released is in the stream before a seal: each frame once, in order.
    fn verify(&self) {
        let mut frames = Frames::default();
        let mut last = None;
        for message in self.stream.messages.iter().skip(self.stream.purged as usize) {
            match frames.take(message) {
                Ok(Taken::Frame { number, bytes }) => {
                    let follows = last.is_none_or(|last| number == last + 1);
                    assert!(follows, "seed {}: {number} after {last:?}", self.seed);
                    // A purge leaves whole segments.
                    assert!(last.is_some() || number % 10 == 1, "seed {}: {number}", self.seed);
                    assert_eq!(bytes, self.frames[number as usize - 1], "seed {}", self.seed);
                    last = Some(number);
                }
                Ok(Taken::Nothing) => {}
                Ok(Taken::Sealed(_)) => break,
                Err(error) => panic!("seed {}: {error}", self.seed),
            }
        }
        let released = self.shipper.released();
        assert!(released <= last.unwrap_or(0), "seed {}: {released} {last:?}", self.seed);
    }

    fn seal(&mut self) {
        let seal = Seal { node: 1, incarnation: 2, revision: 3 }.write();
        let at = self.stream.last() + 1;
        assert_eq!(self.stream.append(at, &seal), Appended::Stored);
        self.is_sealed = true;
    }

    /// Without faults from here on.
    fn come_to_rest(&mut self) {
        self.faults = 0;
        for (sequence, page) in std::mem::take(&mut self.late) {
            self.stream.append(sequence, &page);
        }
        for _ in 0..20_000 {
            self.now = Now(self.now.0 + 10_000);
            if self.shipper.end_reason().is_some() {
                return;
            }
            match self.shipper.poll(self.now) {
                Some(order) => self.carry(order),
                None if self.answers.is_empty() && self.shipper.poll_timeout().is_none() => return,
                None => self.answer(),
            }
            self.verify();
        }
        panic!("seed {}: it does not come to rest: {:?}", self.seed, self.shipper.state);
    }
}

fn seeds() -> u64 {
    std::env::var("RINGMQ_TEST_SHIP_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

#[test]
fn what_is_released_is_in_the_stream_before_any_seal_once_and_in_order() {
    let mut ends = 0;
    for seed in 0..seeds() {
        let mut model = Model::new(seed);
        let seals_at = (seed % 2 == 1).then(|| model.random.below(STEPS));
        for step in 0..STEPS {
            if seals_at == Some(step) {
                model.seal();
            }
            model.step();
        }
        model.push();
        model.come_to_rest();
        match model.is_sealed {
            true => {
                let end = model.shipper.end_reason();
                assert!(matches!(end, Some(End::Sealed(_))), "seed {seed}: {end:?}");
                ends += 1;
            }
            false => {
                assert_eq!(model.shipper.end_reason(), None, "seed {seed}");
                assert_eq!(model.shipper.released(), model.frames.len() as u64, "seed {seed}");
                assert_eq!(model.shipper.bytes_waiting(), 0, "seed {seed}");
            }
        }
    }
    assert!(ends > 0);
}

/// Pages behind a seal expect the sequence that the seal has not: they are in the stream, and must not be released.
#[test]
fn pages_that_were_accepted_behind_a_seal_are_not_released() {
    let (mut shipper, mut stream) = (Shipper::new(7, 1, 0, 0), Stream::default());
    let now = Now(1);
    (1..=3).for_each(|frame| shipper.push(now, frame, b"frame", false));
    let orders: Vec<Order> = std::iter::from_fn(|| shipper.poll(now)).collect();
    stream.append(1, &Seal { node: 1, incarnation: 2, revision: 3 }.write());
    for order in orders {
        let Order::Append { epoch, sequence, page } = order else { panic!("{order:?}") };
        let appended = stream.append(sequence, &page);
        assert_eq!(appended == Appended::Refused, sequence == 1);
        shipper.handle_appended(now, epoch, sequence, appended);
    }
    let Some(Order::Look { epoch, from }) = shipper.poll(now) else { panic!("no look") };
    shipper.handle_look(now, epoch, Some(stream.look(from)));
    assert!(matches!(shipper.end_reason(), Some(End::Sealed(_))));
    assert_eq!(shipper.released(), 0);
}

#[test]
fn another_process_that_writes_to_the_stream_ends_this_one() {
    let (mut shipper, mut stream) = (Shipper::new(7, 1, 0, 0), Stream::default());
    stream.append(1, &pages(7, 2, 1, b"frame")[0].1);
    shipper.check();
    let now = Now(1);
    let Some(Order::Look { epoch, from }) = shipper.poll(now) else { panic!("no look") };
    shipper.handle_look(now, epoch, Some(stream.look(from)));
    assert_eq!(shipper.end_reason(), Some(End::Foreign));
}

#[test]
fn a_stream_without_what_it_confirmed_ends_the_node_once_that_has_lasted() {
    let mut shipper = Shipper::new(7, 1, 5, 2);
    shipper.check();
    let mut now = Now(1);
    let mut looks = 0;
    while shipper.end_reason().is_none() {
        now = Now(now.0 + 500_000);
        if let Some(Order::Look { epoch, .. }) = shipper.poll(now) {
            shipper.handle_look(now, epoch, Some(Look { last: 4, found: Vec::new() }));
            looks += 1;
        }
    }
    assert_eq!(shipper.end_reason(), Some(End::Behind));
    assert!(now.0 >= 10_000_000 && looks > 5, "{looks} looks in {now:?}");
}

#[test]
fn pages_of_dropped_segments_are_purged_once_what_was_pushed_is_released() {
    let (mut shipper, now) = (Shipper::new(7, 1, 0, 0), Now(1));
    shipper.push(now, 1, b"frame", true);
    shipper.push(now, 2, b"frame", true);
    shipper.push(now, 3, b"frame", false);
    shipper.forget_before(2);
    for sequence in 1..=3 {
        assert!(matches!(shipper.poll(now), Some(Order::Append { .. })));
        shipper.handle_appended(now, 0, sequence, Appended::Stored);
    }
    assert_eq!(shipper.poll(now), Some(Order::Purge { before: 2 }));
    assert_eq!(shipper.poll(now), None);
}

#[test]
fn no_more_than_sixteen_pages_are_under_way() {
    let (mut shipper, now) = (Shipper::new(7, 1, 0, 0), Now(1));
    (1..=40).for_each(|frame| shipper.push(now, frame, b"frame", false));
    assert_eq!(std::iter::from_fn(|| shipper.poll(now)).count(), UNDER_WAY_MAX);
}

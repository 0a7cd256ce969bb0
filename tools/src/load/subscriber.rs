//! A receiving client: the publishers it receives from, and its progress with each.

use crate::{
    scenario::Workload,
    stamp::Stamp,
    verify::{Arrival, Stream},
};

/// A receiving client.
#[derive(Debug)]
pub struct Subscriber {
    first_publisher: u32,
    streams: Vec<Stream>,
}

impl Subscriber {
    /// Subscriber `index` of the workload.
    pub fn new(workload: &Workload, index: u32) -> Self {
        let heard = workload.heard(index);
        Self { first_publisher: heard.start, streams: heard.map(|_| Stream::default()).collect() }
    }

    /// Records the arrival of a message; `None` if it is not for this subscriber.
    #[inline]
    pub fn accept(&mut self, stamp: &Stamp) -> Option<Arrival> {
        let index = stamp.publisher.wrapping_sub(self.first_publisher) as usize;
        self.streams.get_mut(index).map(|stream| stream.accept(stamp.sequence))
    }

    /// Messages missing after the last one received, given how many each publisher sent.
    pub fn tail(&self, sent_by: impl Fn(u32) -> u64) -> u64 {
        let publishers = self.first_publisher..;
        self.streams.iter().zip(publishers).map(|(stream, index)| stream.tail(sent_by(index))).sum()
    }

    /// Messages expected in total, given how many each publisher sent.
    pub fn expected(&self, sent: &[u64]) -> u64 {
        let first = self.first_publisher as usize;
        sent[first..first + self.streams.len()].iter().sum()
    }
}

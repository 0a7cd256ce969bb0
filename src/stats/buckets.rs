//! Latencies since the start in few buckets, as monitoring systems take them: each is twice as wide as the one before.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Number of buckets with an upper bound.
pub const BUCKETS: usize = 24;

/// Upper bound of the first bucket, in nanoseconds.
const FIRST_NS: u64 = 1_000;

/// Latencies in buckets that double from 1 µs to 8.4 s, and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Number of latencies in each bucket; the last has no upper bound.
    counts: [u64; BUCKETS + 1],
    sum_ns: u128,
}

impl Buckets {
    /// Adds the latencies of a histogram of nanoseconds. A latency moves to the neighbouring bucket if it differs from
    /// the bound by less than the histogram resolves, a thousandth.
    pub fn add(&mut self, histogram: &Histogram<u64>) {
        for step in histogram.iter_recorded() {
            let (ns, count) = (step.value_iterated_to(), step.count_at_value());
            // The value of a step is the highest that the histogram does not tell apart.
            let lowest_ns = histogram.lowest_equivalent(ns);
            self.counts[bucket(lowest_ns)] += count;
            self.sum_ns += u128::from(lowest_ns.midpoint(ns)) * u128::from(count);
        }
    }

    /// The upper bound of each bucket in seconds, and how many latencies are in it; the last bound is infinite.
    pub fn each(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.counts.iter().enumerate().map(|(bucket, &count)| (bound_s(bucket), count))
    }

    /// Number of latencies.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of the latencies in seconds, to a thousandth.
    pub fn sum_s(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }
}

/// The bucket of a latency: the first whose bound is not below the latency.
fn bucket(ns: u64) -> usize {
    let firsts = ns.div_ceil(FIRST_NS).max(1);
    (firsts.next_power_of_two().trailing_zeros() as usize).min(BUCKETS)
}

fn bound_s(bucket: usize) -> f64 {
    match bucket {
        BUCKETS.. => f64::INFINITY,
        _ => Duration::from_nanos(FIRST_NS << bucket).as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(latencies: &[(u64, u64)]) -> Buckets {
        let mut histogram = Histogram::new(3).expect("digits");
        for &(ns, times) in latencies {
            histogram.record_n(ns, times).expect("it grows");
        }
        let mut buckets = Buckets::default();
        buckets.add(&histogram);
        buckets
    }

    #[test]
    fn bounds_double_from_a_microsecond_to_8_seconds() {
        let bounds: Vec<f64> = Buckets::default().each().map(|(bound, _)| bound).collect();
        assert_eq!((bounds[0], bounds[1], bounds[10]), (1e-6, 2e-6, 0.001_024));
        assert_eq!((bounds[23], bounds[24], bounds.len()), (8.388_608, f64::INFINITY, 25));
    }

    #[test]
    fn a_latency_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        assert_eq!([0, 1, 1_000, 1_001, 2_000, 2_001].map(bucket), [0, 0, 0, 1, 1, 2]);
        assert_eq!([8_388_608_000, 8_388_608_001, u64::MAX].map(bucket), [23, 24, 24]);
    }

    #[test]
    fn no_latency_is_lost_and_the_sum_is_right_to_a_thousandth() {
        let buckets = buckets(&[(500, 3), (1_500, 2), (3_000_000, 4), (60_000_000_000, 1)]);
        let counts: Vec<u64> = buckets.each().map(|(_, count)| count).collect();
        assert_eq!((counts[0], counts[1], counts[12], counts[24]), (3, 2, 4, 1));
        assert_eq!(buckets.count(), 10);
        let sum_s = 3.0 * 500e-9 + 2.0 * 1_500e-9 + 4.0 * 0.003 + 60.0;
        assert!((buckets.sum_s() / sum_s - 1.0).abs() < 0.001, "{} {sum_s}", buckets.sum_s());
    }

    #[test]
    fn what_is_added_later_is_added() {
        let mut twice = buckets(&[(700, 5)]);
        let mut histogram = Histogram::new(3).expect("digits");
        histogram.record_n(700, 2).expect("it grows");
        twice.add(&histogram);
        assert_eq!(twice, buckets(&[(700, 7)]));
    }
}

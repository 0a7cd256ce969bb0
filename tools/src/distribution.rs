//! A histogram of durations that can be serialized, deserialized and merged.

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanoseconds from 1 µs to a minute with three digits, in 140 KB regardless of the count. Longer
/// durations are recorded as a minute.
#[derive(Clone, Debug)]
pub struct Distribution(Histogram<u64>);

impl Default for Distribution {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1_000, 60_000_000_000, 3)
                .expect("the bounds are in order and three digits are allowed"),
        )
    }
}

impl Distribution {
    /// Records a value.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Clears the histogram.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// Merges another histogram.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all of them have the same bounds");
    }

    /// Number of recorded values.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The quantile in microseconds.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    /// The maximum in microseconds.
    pub fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }

    /// The mean in microseconds.
    pub fn mean_us(&self) -> f64 {
        self.0.mean() / 1e3
    }
}

/// Pairs of a value and its count.
impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let recorded = self.0.iter_recorded();
        serializer
            .collect_seq(recorded.map(|value| (value.value_iterated_to(), value.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut distribution = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            distribution.0.saturating_record_n(value, count);
        }
        Ok(distribution)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serialized_and_merged_histograms_equal_a_single_one() {
        let (mut one, mut other, mut both) =
            (Distribution::default(), Distribution::default(), Distribution::default());
        for ns in (0..10_000).map(|step| step * 977) {
            (if ns % 3 == 0 { &mut one } else { &mut other }).record(ns);
            both.record(ns);
        }
        let text = serde_json::to_string(&other).expect("numbers");
        one.add(&serde_json::from_str(&text).expect("as written"));
        assert_eq!(one.count(), both.count());
        for quantile in [0.0, 0.5, 0.99, 1.0] {
            assert_eq!(one.quantile_us(quantile), both.quantile_us(quantile), "{quantile}");
        }
    }
}

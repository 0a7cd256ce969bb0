//! How long things took: a histogram that can be written down, read again and added to others.

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanoseconds from 1 µs to a minute in three digits, 140 KB however many are recorded. What is
/// longer counts as a minute.
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
    /// Add one.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Forget all.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// Add all that another one has.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all of them have the same bounds");
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Microseconds that this part of them took at most.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Microseconds that the longest took.
    pub fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }

    /// Microseconds they took on average.
    pub fn mean_us(&self) -> f64 {
        self.0.mean() / 1e3
    }
}

/// As pairs of a value and how often it was recorded.
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
    fn what_is_written_down_and_added_is_as_if_recorded_together() {
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

//! Numbers with bounds.

use serde::{Deserialize, Deserializer, de};

/// A whole number within bounds, so that the error names them.
pub(super) fn between<'de, D, T, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let number = i64::deserialize(deserializer)?;
    let value = within(number, MIN, MAX).and_then(|value| T::try_from(value).ok());
    value.ok_or_else(|| de::Error::custom(outside(number, MIN, MAX)))
}

/// The number, if it is within bounds. No generic function: there are a hundred numbers.
fn within(number: i64, min: u64, max: u64) -> Option<u64> {
    u64::try_from(number).ok().filter(|value| (min..=max).contains(value))
}

#[cold]
fn outside(number: i64, min: u64, max: u64) -> String {
    format!("{number} is not from {min} to {max}")
}

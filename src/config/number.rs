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
    let number = i128::from(i64::deserialize(deserializer)?);
    let fits = (i128::from(MIN)..=i128::from(MAX)).contains(&number);
    let value = u64::try_from(number).ok().filter(|_| fits).and_then(|n| T::try_from(n).ok());
    value.ok_or_else(|| de::Error::custom(format!("{number} is not from {MIN} to {MAX}")))
}

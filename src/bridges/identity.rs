//! The name of this broker.

use std::fs;
use std::path::Path;

/// File in the folder of the store.
const FILE: &str = "broker-id";
/// Hexadecimal digits of an identifier.
const DIGITS: usize = 8;

/// The identifier of this broker in the path of messages: made at the first start, and kept beside the store. Without
/// a store it is another one at each start.
pub(super) fn of_broker(folder: Option<&Path>) -> String {
    let file = folder.map(|folder| folder.join(FILE));
    let kept = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
    let is_valid = |text: &str| text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(kept) = kept.map(|text| text.trim().to_owned()).filter(|text| is_valid(text)) {
        return kept;
    }
    let identifier = format!("{:08x}", random());
    if let Some(file) = file
        && let Err(error) = fs::write(&file, format!("{identifier}\n"))
    {
        tracing::warn!(
            file = %file.display(),
            %error,
            "cannot keep the identifier of this broker; a message that comes back by a loop of bridges after a restart \
             is not recognised"
        );
    }
    identifier
}

/// A random number.
pub(super) fn random() -> u32 {
    getrandom::u32().unwrap_or_else(|_| std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_of_a_broker_outlasts_a_restart() {
        let folder = std::env::temp_dir().join(format!("ringmq-broker-id-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let first = of_broker(Some(&folder));
        assert_eq!(first.len(), DIGITS);
        assert_eq!(of_broker(Some(&folder)), first);
        fs::write(folder.join(FILE), "damaged, too long").expect("a file");
        assert_eq!(of_broker(Some(&folder)).len(), DIGITS);
        fs::remove_dir_all(&folder).expect("it is there");
    }
}

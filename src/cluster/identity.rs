//! The number of a node's store, by which a broker that starts again is told from another one with the same name.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// The file in the folder of the store.
const FILE: &str = "cluster.id";

/// The number of a store, a random one that is kept in its folder; without a store, a new one each time. The folder must be
/// locked by this process.
///
/// # Errors
///
/// The file cannot be read or written, or does not hold a number.
pub fn store_number(folder: Option<&Path>) -> io::Result<u64> {
    let Some(folder) = folder else { return random() };
    let path = folder.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => u64::from_str_radix(text.trim(), 16).map_err(|_| {
            let what =
                format!("{}: expected 16 hexadecimal digits; remove the file", path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let number = random()?;
            let draft = folder.join("cluster.id.new");
            let mut file = fs::File::create(&draft)?;
            writeln!(file, "{number:016x}")?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            Ok(number)
        }
        Err(error) => Err(error),
    }
}

/// A random number.
///
/// # Errors
///
/// The system gives none.
pub fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_its_number() {
        let folder = std::env::temp_dir().join(format!("ringmq-identity-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let number = store_number(Some(&folder)).expect("a number");
        assert_eq!(store_number(Some(&folder)).expect("a number"), number);
        assert_ne!(store_number(None).expect("a number"), number);
        fs::write(folder.join(FILE), "no number").expect("it is written");
        let error = store_number(Some(&folder)).expect_err("no number").to_string();
        assert!(error.contains("cluster.id") && error.contains("remove"), "{error}");
        fs::remove_dir_all(&folder).expect("it is removed");
    }
}

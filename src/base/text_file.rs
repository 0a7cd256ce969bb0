//! Text files from any editor on any system.

use std::io;
use std::path::Path;

/// The byte order mark that some editors write at the start of UTF-8.
const MARK: char = '\u{FEFF}';

/// Reads a text file, without its byte order mark.
pub fn read(path: &Path) -> io::Result<String> {
    let bytes = std::fs::read(path)?;
    let is_utf_16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
    let text = String::from_utf8(bytes).map_err(|error| {
        let what = match is_utf_16 {
            true => "the file is UTF-16; save it as UTF-8".to_owned(),
            false => {
                let at = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
                format!("line {line}: invalid UTF-8; save the file as UTF-8")
            }
        };
        io::Error::new(io::ErrorKind::InvalidData, what)
    })?;
    Ok(match text.strip_prefix(MARK) {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_skipped_and_other_encodings_are_rejected() {
        let path = std::env::temp_dir().join(format!("ringmq-text-{}", std::process::id()));
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            read(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"\xEF\xBB\xBFa\r\n"), Ok("a\r\n".to_owned()));
        assert_eq!(read("é".as_bytes()), Ok("é".to_owned()));
        assert!(read(b"\xFF\xFEa\0").is_err_and(|error| error.contains("UTF-16")));
        assert!(read(b"a\nb\xE9").is_err_and(|error| error.contains("line 2")));
        std::fs::remove_file(&path).expect("the file exists");
    }
}

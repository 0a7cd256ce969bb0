//! Text files that people write, with whatever editor and on whatever system.

use std::io;
use std::path::Path;

/// Byte order mark, which some editors begin UTF-8 with.
const MARK: char = '\u{FEFF}';

/// The text of a file, without a byte order mark.
pub fn read(path: &Path) -> io::Result<String> {
    let bytes = std::fs::read(path)?;
    let is_utf_16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
    let text = String::from_utf8(bytes).map_err(|error| {
        let what = match is_utf_16 {
            true => "it is UTF-16, as Windows writes it; save it as UTF-8".to_owned(),
            false => {
                let at = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
                format!("line {line}: there is something that is no UTF-8; save it as UTF-8")
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
    fn a_byte_order_mark_is_no_text_and_other_encodings_are_named() {
        let path = std::env::temp_dir().join(format!("ringmq-text-{}", std::process::id()));
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            read(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"\xEF\xBB\xBFa\r\n"), Ok("a\r\n".to_owned()));
        assert_eq!(read("é".as_bytes()), Ok("é".to_owned()));
        assert!(read(b"\xFF\xFEa\0").is_err_and(|error| error.contains("UTF-16")));
        assert!(read(b"a\nb\xE9").is_err_and(|error| error.contains("line 2")));
        std::fs::remove_file(&path).expect("it is there");
    }
}

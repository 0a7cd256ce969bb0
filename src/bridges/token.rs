//! SAS tokens as passwords: the connection is made anew before the token ends, with what the file has by then.

use std::time::Duration;

use crate::config::bridge::end_of_token;

/// How long before the end of its token a connection is made anew.
const BEFORE_END: u64 = 120;

/// Why a connection ends before its token does.
pub(super) const ENDS: &str =
    "the token in password_file is about to end; connecting again with what the file has now";

/// How long a connection with this token lasts; `now_s` is in seconds since 1970. Up to two minutes before the end of the
/// token, or up to its end if that is nearer.
pub(super) fn lasts(password: Option<&[u8]>, now_s: u64) -> Result<Duration, String> {
    let text = password.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    let Some(end) = end_of_token(text) else {
        return Err("password_file: not a SAS token: SharedAccessSignature sr=…&sig=…&se=SECONDS"
            .to_owned());
    };
    match end.saturating_sub(now_s) {
        0 => Err("password_file: the SAS token has ended; write a new one".to_owned()),
        left if left > BEFORE_END => Ok(Duration::from_secs(left - BEFORE_END)),
        left => Ok(Duration::from_secs(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_ends_two_minutes_before_its_token() {
        let lasts = |end: u64| {
            let token = format!("SharedAccessSignature sr=h&sig=s&se={end}");
            lasts(Some(token.as_bytes()), 1_000)
        };
        assert_eq!(lasts(4_600), Ok(Duration::from_secs(3_480)));
        assert_eq!(lasts(1_121), Ok(Duration::from_secs(1)));
        assert_eq!(lasts(1_120), Ok(Duration::from_secs(120)), "not renewed: as long as it goes");
        assert!(lasts(1_000).is_err_and(|why| why.contains("has ended")));
    }

    #[test]
    fn a_password_that_is_no_token_is_refused_and_not_repeated() {
        for password in
            [None, Some(&b"hush"[..]), Some(b"SharedAccessSignature sig=hush"), Some(b"\xff")]
        {
            let why = lasts(password, 0).expect_err("no token");
            assert!(why.contains("not a SAS token") && !why.contains("hush"), "{why}");
        }
    }
}

//! Errors of TLS with the broker at the far end of a bridge, with remedies.

use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};
use x509_parser::time::ASN1Time;

use super::judge::utc;

/// What has failed, and what to do.
pub(super) fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(wrong) => {
            format!("the certificate of the far broker {}", explain_certificate(wrong, error))
        }
        Error::AlertReceived(alert) => {
            let what_to_do = match alert {
                AlertDescription::CertificateExpired => "; renew tls.certificate",
                AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
                    "; it may ask for a client certificate: tls.certificate and tls.key"
                }
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied => {
                    "; check tls.certificate, and which authorities it accepts"
                }
                AlertDescription::NoApplicationProtocol => {
                    "; it knows none of the protocols in tls.alpn"
                }
                AlertDescription::ProtocolVersion => "; it knows none of tls.versions",
                AlertDescription::UnrecognisedName => "; it does not know tls.server_name",
                _ => "",
            };
            format!("the far broker has refused TLS ({alert:?}){what_to_do}")
        }
        _ => error.to_string(),
    }
}

fn explain_certificate(wrong: &CertificateError, error: &Error) -> String {
    match wrong {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("has expired ({}); it has to be renewed there", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("is not valid before {}; is this machine's clock right?", date(*not_before))
        }
        CertificateError::UnknownIssuer => {
            "is signed by none of the authorities in tls.ca, or an intermediate certificate is missing, which the far \
             broker has to send with its own"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "is not signed by the authority of that name in tls.ca, which may have been created again since".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = presented.join(", ");
            let expected = expected.to_str();
            format!("is not for {expected} but for {names}; set tls.server_name to one of these")
        }
        _ => format!("is refused: {error}"),
    }
}

/// A time as in RFC 3339.
fn date(time: UnixTime) -> String {
    date_of(time.as_secs())
}

/// A time in seconds since 1970 as in RFC 3339.
pub(super) fn date_of(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).ok();
    let time = seconds.and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    time.map_or_else(|| format!("{seconds:?} s"), |time| utc(&time))
}

/// The seconds since 1970 of now.
pub(super) fn now_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_failed_is_said_with_dates_and_what_to_do() {
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = CertificateError::ExpiredContext { time: time(2), not_after: time(86_400) };
        for (error, expected) in [
            (Error::InvalidCertificate(expired), "has expired (1970-01-02T00:00:00Z); it has"),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "authorities in tls.ca"),
            (Error::AlertReceived(AlertDescription::CertificateExpired), "renew tls.certificate"),
            (Error::AlertReceived(AlertDescription::NoApplicationProtocol), "in tls.alpn"),
        ] {
            let what = explain(&error);
            assert!(what.contains(expected), "{what}");
        }
    }
}

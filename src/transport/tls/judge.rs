//! Errors of certificates, with remedies: of certificates in files, and of client certificates in handshakes.

use rustls::{CertificateError, Error};
use x509_parser::certificate::X509Certificate;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

/// Keys that the broker supports.
const GOOD_KEYS: &str = "ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits";

/// Use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Signs handshakes.
    Signs,
    /// Verifies signatures.
    Verifies,
}

/// Reason and remedy for certificates of X.509 version 1.
const VERSION_1: &str = "is an X.509 certificate of version 1, which TLS clients and this broker do not \
                         accept; `openssl x509 -req` makes these without extensions: sign the \
                         request again with -extfile EXT, a file with the line subjectAltName=DNS:NAME \
                         for a server or extendedKeyUsage=clientAuth for a client";

/// Checks the X.509 version of a server certificate.
pub(super) fn version(certificate: &X509Certificate<'_>) -> Result<(), String> {
    match certificate.version() {
        X509Version::V3 => Ok(()),
        X509Version::V1 => Err(format!("the first certificate {VERSION_1}")),
        X509Version(other) => Err(format!(
            "the first certificate is an X.509 certificate of version {}; TLS needs version 3",
            u64::from(other) + 1
        )),
    }
}

/// Checks that the broker supports the key of a certificate.
pub(super) fn key_kind(certificate: &X509Certificate<'_>, what_for: Use) -> Result<(), String> {
    let key = certificate.public_key();
    let bits_max = if what_for == Use::Signs { 4_096 } else { 8_192 };
    let identifier = key.algorithm.algorithm.to_id_string();
    let kind = match (&*identifier, key.parsed()) {
        ("1.3.101.112", _) => return Ok(()),
        (_, Ok(PublicKey::RSA(rsa))) => match rsa.key_size() {
            bits if (2_048..=bits_max).contains(&bits) => return Ok(()),
            bits => format!("RSA of {bits} bits"),
        },
        ("1.2.840.10045.2.1", _) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            match curve.map(|curve| curve.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7" | "1.3.132.0.34") => return Ok(()),
                Some("1.3.132.0.35") => "ECDSA on P-521".to_owned(),
                Some("1.3.132.0.10") => "ECDSA on secp256k1".to_owned(),
                Some(other) => format!("ECDSA on the curve {other}"),
                None => "ECDSA on a curve without a name".to_owned(),
            }
        }
        ("1.3.101.113", _) => "Ed448".to_owned(),
        ("1.2.840.113549.1.1.10", _) => "RSA for RSA-PSS alone".to_owned(),
        ("1.2.840.10040.4.1", _) => "DSA".to_owned(),
        (other, _) => format!("of the unknown type {other}"),
    };
    Err(format!("its key is {kind}, which is not supported; use {GOOD_KEYS}"))
}

/// Error of a private key that cannot be loaded, if its certificate does not show the reason.
pub(super) fn unreadable_key(error: &Error) -> String {
    format!("{error}; use {GOOD_KEYS}")
}

/// A time as in RFC 3339. The general formatting of `time` takes 26 kB of a router's binary.
pub(super) fn utc(time: &ASN1Time) -> String {
    let time = time.to_datetime().to_utc();
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Problems that clients may have with a usable certificate chain. `now_s` is the Unix time.
pub(super) fn doubts_about_chain(chain: &[X509Certificate<'_>], now_s: u64) -> Vec<String> {
    let mut doubts = Vec::new();
    for (place, certificate) in chain.iter().enumerate() {
        let number = place + 1;
        let validity = certificate.validity();
        if validity.not_after.timestamp() < now_s as i64 {
            doubts.push(format!("certificate {number} has expired ({})", utc(&validity.not_after)));
        }
        if validity.not_before.timestamp() > now_s as i64 {
            doubts.push(format!(
                "certificate {number} is not valid before {}; is this machine's clock right?",
                utc(&validity.not_before)
            ));
        }
        if let Some(next) = chain.get(place + 1)
            && certificate.issuer().as_raw() != next.subject().as_raw()
        {
            doubts.push(format!(
                "certificate {} ({}) is not the one that signed certificate {number}, whose issuer \
                 is {}; TLS 1.2 requires each certificate to be followed by the one that signed it",
                number + 1,
                next.subject(),
                certificate.issuer()
            ));
        }
    }
    if chain.first().is_some_and(is_authority) {
        doubts.push(
            "the server certificate says CA:TRUE, the default of `openssl req -x509`; clients that \
             check this, such as those with rustls, refuse it. Create it with \
             -addext basicConstraints=critical,CA:FALSE"
                .to_owned(),
        );
    }
    doubts
}

fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let constraints = certificate.basic_constraints().ok().flatten();
    constraints.is_some_and(|constraints| constraints.value.ca)
}

/// Whether an error is about the client certificate.
pub(super) fn is_about_certificate(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(_)
            | Error::InvalidCertRevocationList(_)
            | Error::NoCertificatesPresented
    )
}

/// The error of the library about a certificate, with a remedy.
pub(super) fn explain(error: &Error) -> String {
    if *error == Error::NoCertificatesPresented {
        return "the client sent no certificate, but tls.client_certificate is \"required\""
            .to_owned();
    }
    let Error::InvalidCertificate(wrong) = error else { return error.to_string() };
    let what_to_do = match wrong {
        // Other errors of the verifier have only a name.
        CertificateError::Other(other) => match &*other.to_string() {
            "UnsupportedCertVersion" => return format!("it {VERSION_1}"),
            "CaUsedAsEndEntity" => {
                "it says CA:TRUE, like a certificate authority; create it with \
                 basicConstraints=critical,CA:FALSE (CA:TRUE is the default of `openssl req -x509`)"
            }
            "EndEntityUsedAsCa" => "an intermediate certificate says CA:FALSE",
            _ => return error.to_string(),
        },
        CertificateError::UnknownIssuer => {
            "none of the authorities in tls.client_ca has signed it, or an intermediate certificate \
             is missing, which the client has to send with its own"
        }
        CertificateError::BadSignature => {
            "an authority in tls.client_ca has the name of its issuer but another key; it may have \
             been created again since"
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            return format!(
                "it is signed with an unsupported algorithm or key; use {GOOD_KEYS} \
                 with SHA-256 or SHA-384"
            );
        }
        // The message of the library would list all values of the certificate.
        CertificateError::InvalidPurposeContext { .. } => {
            return "its Extended Key Usage does not include clientAuth; create one with \
                    extendedKeyUsage=clientAuth"
                .to_owned();
        }
        CertificateError::UnknownRevocationStatus => {
            "no list in tls.client_crl is from its authority"
        }
        _ => return error.to_string(),
    };
    format!("{error}: {what_to_do}")
}

//! PEM files as found in practice. The library skips unknown content; the checks here reject it, so
//! that no part of a file is ignored silently.

use rustls::pki_types::pem::{self, PemObject};

/// The expected content of a file.
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only certificates are read then"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Certificates.
    Certificates,
    /// One private key.
    Key,
    /// Revocation lists.
    RevocationLists,
}

/// Start of a section's first line.
const BEGIN: &str = "-----BEGIN ";
/// Start of a section's last line.
const END: &str = "-----END ";

/// Sections that are allowed in files of certificates and keys, and ignored.
const HARMLESS: [&str; 4] = ["EC PARAMETERS", "DH PARAMETERS", "X9.42 DH PARAMETERS", "PUBLIC KEY"];
/// Sections with a private key that TLS supports.
const KEYS: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];

impl Kind {
    /// The label of the expected section.
    fn label(self) -> &'static str {
        match self {
            Self::Certificates => "CERTIFICATE",
            Self::Key => "PRIVATE KEY",
            Self::RevocationLists => "X509 CRL",
        }
    }

    /// The OpenSSL command that converts another encoding to PEM.
    fn conversion(self) -> &'static str {
        match self {
            Self::Certificates => "openssl x509 -inform DER -in FILE -out FILE.pem",
            Self::Key => "openssl pkey -inform DER -in FILE -out FILE.pem",
            Self::RevocationLists => "openssl crl -inform DER -in FILE -out FILE.pem",
        }
    }

    fn is_wanted(self, label: &str) -> bool {
        match self {
            Self::Key => KEYS.contains(&label),
            _ => label == self.label(),
        }
    }

    /// The error for an unexpected section; `None` if it is allowed and ignored.
    fn objection(self, label: &str) -> Option<String> {
        let is_key = KEYS.contains(&label) || label == "ENCRYPTED PRIVATE KEY";
        match (self, label) {
            (Self::Key, "ENCRYPTED PRIVATE KEY") => Some(ENCRYPTED.to_owned()),
            (Self::Key, "OPENSSH PRIVATE KEY") => Some(
                "is a key in OpenSSH's own format; `ssh-keygen -p -m PKCS8 -f FILE` rewrites it"
                    .to_owned(),
            ),
            (Self::Key, "DSA PRIVATE KEY") => {
                Some("is a DSA key; TLS needs an ECDSA, RSA or Ed25519 key".to_owned())
            }
            // A file may hold both the certificate and its key.
            (Self::Certificates, _) if is_key => None,
            (Self::Key, "CERTIFICATE") => None,
            (_, label) if HARMLESS.contains(&label) => None,
            (Self::Certificates, "X509 CRL") => Some(
                "is a revocation list, which is not used here; set tls.client_crl to its file"
                    .to_owned(),
            ),
            (Self::Certificates, "TRUSTED CERTIFICATE" | "X509 CERTIFICATE") => Some(format!(
                "is a {label}; `openssl x509 -in FILE -out FILE.pem` converts it to a CERTIFICATE"
            )),
            (Self::Certificates, "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => Some(
                "is a certificate request; use the certificate that the authority issued for it"
                    .to_owned(),
            ),
            (Self::Certificates, "PKCS7" | "CMS") => Some(format!(
                "is {label}; `openssl pkcs7 -print_certs -in FILE -out FILE.pem` extracts the certificates"
            )),
            _ => Some(format!("is an unexpected section {label}; expected {}", self.label())),
        }
    }
}

const ENCRYPTED: &str = "is an encrypted key, which the broker cannot decrypt without a passphrase; \
                         `openssl pkey -in FILE -out FILE.plain` decrypts it (chmod 600 the result)";

/// Reads all sections of a kind from a PEM file, in order. An error states the problem, the line
/// and the remedy.
pub(crate) fn read<T: PemObject>(file: &[u8], kind: Kind) -> Result<Vec<T>, String> {
    // Editors on Windows write a byte order mark, which hides the first section from the library.
    let text = file.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(file);
    check_encoding(text, kind)?;
    let wanted = check_sections(&String::from_utf8_lossy(text), kind)?;
    let items: Result<Vec<T>, pem::Error> = T::pem_slice_iter(text).collect();
    let items = items.map_err(|error| format!("is not valid PEM: {error:?}"))?;
    match (items.len(), kind) {
        (0, _) => Err(format!(
            "contains no {label}; PEM is text with lines like {BEGIN}{label}-----",
            label = kind.label()
        )),
        (2.., Kind::Key) => Err(format!(
            "contains {} private keys; keep only the one that belongs to the certificate",
            items.len()
        )),
        (read, _) if read != wanted => {
            Err(format!("contains {wanted} sections, of which only {read} can be read"))
        }
        _ => Ok(items),
    }
}

/// Checks that the file is text.
fn check_encoding(text: &[u8], kind: Kind) -> Result<(), String> {
    if text.starts_with(b"\xFF\xFE") || text.starts_with(b"\xFE\xFF") {
        return Err("is UTF-16 text; save it as UTF-8 or ASCII".to_owned());
    }
    // An ASN.1 SEQUENCE; the second byte gives the size of its length field.
    let &[0x30, length, ref rest @ ..] = text else { return Ok(()) };
    let length_bytes = if length & 0x80 == 0 { 0 } else { usize::from(length & 0x7F) };
    if rest.get(length_bytes..).is_some_and(|content| content.starts_with(&[2, 1, 3])) {
        return Err(
            "is PKCS#12, not PEM; `openssl pkcs12 -in FILE -out FILE.pem -nodes` extracts \
                    certificates and key"
                .to_owned(),
        );
    }
    Err(format!("is DER, not PEM; `{}` converts it to PEM", kind.conversion()))
}

/// Checks every line that begins or ends a section; returns the number of expected sections.
fn check_sections(text: &str, kind: Kind) -> Result<usize, String> {
    let mut open: Option<(usize, &str)> = None;
    let mut wanted = 0;
    // The library takes all three kinds of line endings.
    let lines = text.split('\n').flat_map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        line.split('\r')
    });
    for (number, line) in lines.enumerate() {
        let number = number + 1;
        check_marks(line).map_err(|what| format!("line {number}: {what}"))?;
        if let Some(rest) = line.strip_prefix(BEGIN) {
            if let Some((begun, label)) = open {
                return Err(unfinished(begun, label));
            }
            let label = rest.trim_end().trim_end_matches('-');
            if kind.is_wanted(label) {
                wanted += 1;
            } else if let Some(what) = kind.objection(label) {
                return Err(format!("line {number}: {what}"));
            }
            open = Some((number, label));
        } else if let Some(rest) = line.strip_prefix(END) {
            let ended = rest.trim_end().trim_end_matches('-');
            match open.take() {
                Some((_, label)) if label == ended => {}
                Some((begun, label)) => return Err(unfinished(begun, label)),
                None => return Err(format!("line {number}: {END}{ended}----- ends no section")),
            }
        } else if kind == Kind::Key
            && line.starts_with("Proc-Type:")
            && line.contains("ENCRYPTED")
            && open.is_some_and(|(_, label)| KEYS.contains(&label))
        {
            return Err(format!("line {number}: {ENCRYPTED}"));
        }
    }
    match open {
        Some((begun, label)) => Err(unfinished(begun, label)),
        None => Ok(wanted),
    }
}

fn unfinished(begun: usize, label: &str) -> String {
    format!("line {begun}: section {label} has no line {END}{label}-----; the file is truncated")
}

/// Checks that each marker is at the beginning of its line; the library does not see others.
fn check_marks(line: &str) -> Result<(), String> {
    let Some(place) = [BEGIN, END].into_iter().filter_map(|mark| line.rfind(mark)).max() else {
        return Ok(());
    };
    let before = &line[..place];
    match () {
        () if before.is_empty() => Ok(()),
        () if before.contains(END) => Err(format!(
            "{END}…----- and {BEGIN}…----- are on one line; insert a line break between them"
        )),
        () if before.trim_start_matches('\u{FEFF}').trim().is_empty() => Err(format!(
            "an invisible character, such as a blank or a byte order mark, precedes \
             {}; remove it",
            line[place..].trim_end()
        )),
        () => Err(format!("{} is not at the beginning of its line", line[place..].trim_end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

    fn certificates(text: impl AsRef<[u8]>) -> Result<usize, String> {
        read::<CertificateDer<'_>>(text.as_ref(), Kind::Certificates).map(|items| items.len())
    }

    fn keys(text: &str) -> Result<usize, String> {
        read::<PrivateKeyDer<'_>>(text.as_bytes(), Kind::Key).map(|items| items.len())
    }

    #[test]
    fn certificates_are_found_behind_a_byte_order_mark_and_with_any_line_ends() {
        for text in [
            format!("{ONE}{ONE}"),
            format!("\u{FEFF}{ONE}{ONE}"),
            format!("{ONE}{ONE}").replace('\n', "\r\n"),
            format!("{ONE}{ONE}").replace('\n', "\r"),
            format!("output of openssl x509 -text\n{ONE}{KEY}{ONE}"),
        ] {
            assert_eq!(certificates(&text), Ok(2), "{text:?}");
        }
    }

    #[test]
    fn nothing_in_a_pem_file_is_ignored_silently() {
        let glued = format!("{}{ONE}", ONE.trim_end());
        let within = ONE.replace("-----END", "AAAA-----END");
        let wrong = ONE.replace("END CERTIFICATE", "END CERT");
        let of = |label: &str| ONE.replace("CERTIFICATE", label);
        let utf_16: Vec<u8> = "\u{FEFF}x".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (text, says) in [
            (glued.as_bytes(), "line 3: -----END …----- and -----BEGIN …----- are on one line"),
            (format!("{ONE} {ONE}").as_bytes(), "line 4: an invisible character"),
            (format!("{ONE}\u{FEFF}{ONE}").as_bytes(), "line 4: an invisible character"),
            (
                format!("x{ONE}").as_bytes(),
                "line 1: -----BEGIN CERTIFICATE----- is not at the beginning",
            ),
            (within.as_bytes(), "line 3: -----END CERTIFICATE----- is not at the beginning"),
            (&ONE.as_bytes()[..40], "line 1: section CERTIFICATE has no line -----END"),
            (wrong.as_bytes(), "line 1: section CERTIFICATE has no line -----END"),
            (format!("{ONE}{}", of("X509 CRL")).as_bytes(), "line 4: is a revocation list"),
            (of("TRUSTED CERTIFICATE").as_bytes(), "openssl x509 -in"),
            (of("CERTIFICATE REQUEST").as_bytes(), "line 1: is a certificate request"),
            (of("PKCS7").as_bytes(), "openssl pkcs7 -print_certs"),
            (of("SOMETHING").as_bytes(), "expected CERTIFICATE"),
            (KEY.as_bytes(), "contains no CERTIFICATE"),
            (b"", "contains no CERTIFICATE"),
            (&utf_16, "is UTF-16"),
            (b"\x30\x82\x02\x01\x30\x82", "is DER, not PEM; `openssl x509 -inform DER"),
            (b"\x30\x82\x02\x01\x02\x01\x03", "is PKCS#12"),
            (ONE.replace("AAAA", "!!!!").as_bytes(), "is not valid PEM"),
        ] {
            let error = certificates(text).expect_err(says);
            assert!(error.contains(says), "{:?}: {error}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn an_encrypted_key_and_several_keys_are_rejected() {
        let of = |label: &str| KEY.replace("PRIVATE KEY", label);
        let old = of("RSA PRIVATE KEY").replace("AAAA", "Proc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nA");
        assert_eq!(keys(KEY), Ok(1));
        assert_eq!(keys(&format!("{}{}{ONE}", of("EC PARAMETERS"), of("EC PRIVATE KEY"))), Ok(1));
        for (text, says) in [
            (of("ENCRYPTED PRIVATE KEY"), "line 1: is an encrypted key"),
            (old, "line 2: is an encrypted key"),
            (of("OPENSSH PRIVATE KEY"), "ssh-keygen -p -m PKCS8"),
            (of("DSA PRIVATE KEY"), "is a DSA key"),
            (format!("{KEY}{KEY}"), "contains 2 private keys"),
            (ONE.to_owned(), "contains no PRIVATE KEY"),
        ] {
            let error = keys(&text).expect_err(says);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}

//! Certificates of a listener, and the certificate authorities of its clients: read from files, checked against
//! what clients and this broker's TLS support, and chosen by SNI.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name};

use super::judge;
use crate::base::identity::{AlternativeName, CertificateIdentity};
use crate::base::pem;
use crate::base::pem::Kind;
use crate::config::listener::{self, ExpiredList, IdentityFrom};
use crate::transport::tls::server_config::Read;

/// Formats an error about a file.
pub(super) fn wrong(key: &str, file: &Path, what: impl std::fmt::Display) -> String {
    format!("tls.{key} {}: {what}", file.display())
}

/// Reads all PEM sections of a kind from a file. Errors name the key of the configuration and the file.
pub(super) fn read_pem<T: PemObject>(
    key: &str,
    file: &Path,
    read: Read<'_>,
    kind: Kind,
) -> Result<Vec<T>, String> {
    let text = read(file).map_err(|error| {
        wrong(key, file, format!("{error}; name a PEM file that the broker's user may read"))
    })?;
    let named = |what: String| wrong(key, file, what.replace("FILE", &file.display().to_string()));
    pem::read(&text, kind).map_err(named)
}

/// Reads the certificate authorities of clients. Authorities whose signatures cannot be verified here are logged,
/// and are an error if there is no other.
pub(super) fn read_authorities(file: &Path, read: Read<'_>) -> Result<Arc<RootCertStore>, String> {
    let mut certificates: Vec<CertificateDer<'_>> = Vec::new();
    for file in files_of("client_ca", file)? {
        certificates.extend(read_pem("client_ca", &file, read, Kind::Certificates)?);
    }
    let parsed = parse_chain(&certificates).map_err(|what| wrong("client_ca", file, what))?;
    let mut roots = RootCertStore::empty();
    let mut objection = String::new();
    for (place, (certificate, parsed)) in certificates.iter().zip(&parsed).enumerate() {
        let usable = judge::key_kind(parsed, judge::Use::Verifies)
            .and_then(|()| roots.add(certificate.clone()).map_err(|error| judge::explain(&error)));
        if let Err(what) = usable {
            objection = format!("certificate {} ({}): {what}", place + 1, parsed.subject());
            tracing::warn!(file = %file.display(), "a certificate authority cannot be used: {objection}");
        }
    }
    match roots.is_empty() {
        true => Err(wrong("client_ca", file, objection)),
        false => Ok(Arc::new(roots)),
    }
}

/// The file that a key names itself, or the files `*.pem` and `*.crt` of a folder.
pub(super) fn files_of(key: &str, path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let about = |error: std::io::Error| wrong(key, path, error.to_string());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(about)? {
        let file = entry.map_err(about)?.path();
        if file.extension().is_some_and(|of| of == "pem" || of == "crt") {
            files.push(file);
        }
    }
    if files.is_empty() || files.len() > AUTHORITY_FILES_MAX {
        let what = format!(
            "the folder has {} files *.pem and *.crt; from 1 to {AUTHORITY_FILES_MAX} are read",
            files.len()
        );
        return Err(wrong(key, path, what));
    }
    files.sort();
    Ok(files)
}

/// Files of a folder of certificate authorities.
const AUTHORITY_FILES_MAX: usize = 1_000;

/// Reads the revocation lists of these authorities. Logs lists that are past their `nextUpdate`.
pub(super) fn read_lists(
    settings: &listener::Tls,
    read: Read<'_>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let mut all = Vec::new();
    for file in &settings.client_crl {
        let lists: Vec<CertificateRevocationListDer<'static>> =
            read_pem("client_crl", file, read, Kind::RevocationLists)?;
        for list in &lists {
            let (_, list) = CertificateRevocationList::from_der(list)
                .map_err(|error| wrong("client_crl", file, format!("cannot be read: {error}")))?;
            let is_past = |until: &ASN1Time| until.timestamp() < UnixTime::now().as_secs() as i64;
            let Some(until) = list.next_update().filter(is_past) else { continue };
            let what_follows = match settings.client_crl_expired {
                ExpiredList::Accept => "clients that it does not name are still admitted",
                ExpiredList::Refuse => "clients with a certificate of this authority are refused",
            };
            tracing::warn!(
                file = %file.display(),
                "the revocation list of {} has expired ({}); {what_follows}. Install a newer \
                 list and send SIGHUP",
                list.issuer(),
                judge::utc(&until)
            );
        }
        all.extend(lists);
    }
    Ok(all)
}

/// Certificates, by the host names of SNI.
#[derive(Debug)]
pub(super) struct Certificates {
    default: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    pub(super) fn read(
        settings: &listener::Tls,
        provider: &CryptoProvider,
        read: Read<'_>,
    ) -> Result<Self, String> {
        let default = read_key(&settings.certificate, &settings.key, provider, read)?;
        let mut by_name = HashMap::new();
        for files in &settings.names {
            let key = Arc::new(read_key(&files.certificate, &files.key, provider, read)?);
            let names = host_names(&key.cert[0]);
            if names.is_empty() {
                let what = "has no host name in its Subject Alternative Names, so that SNI can never choose it";
                return Err(wrong("names certificate", &files.certificate, what));
            }
            for name in names {
                if by_name.insert(name.clone(), Arc::clone(&key)).is_some() {
                    tracing::warn!(
                        file = %files.certificate.display(),
                        "another certificate of tls.names has the name {name} too; this one is used"
                    );
                }
            }
        }
        Ok(Self { default: Arc::new(default), by_name })
    }

    /// When the first of the certificates expires, in seconds since 1970.
    pub(super) fn expire_s(&self) -> Option<i64> {
        let keys = std::iter::once(&self.default).chain(self.by_name.values());
        let end = |key: &Arc<CertifiedKey>| {
            let (_, own) = X509Certificate::from_der(&key.cert[0]).ok()?;
            Some(own.validity().not_after.timestamp())
        };
        keys.filter_map(end).min()
    }

    /// The certificate of a host: one with its name, or with a wildcard for the first label.
    fn of(&self, host: &str) -> &Arc<CertifiedKey> {
        let host = host.to_ascii_lowercase();
        let found = self.by_name.get(&host).or_else(|| {
            let (_, domain) = host.split_once('.')?;
            self.by_name.get(&format!("*.{domain}"))
        });
        found.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = hello.server_name().map_or(&self.default, |host| self.of(host));
        Some(Arc::clone(key))
    }
}

/// Reads a certificate with its intermediate certificates, and its key.
fn read_key(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
    read: Read<'_>,
) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> =
        read_pem("certificate", certificate, read, Kind::Certificates)?;
    let mut keys: Vec<PrivateKeyDer<'static>> = read_pem("key", key, read, Kind::Key)?;
    crate::base::secret_file::warn_if_open(key, "a private key of TLS");
    let parsed = parse_chain(&chain).map_err(|what| wrong("certificate", certificate, what))?;
    let own = &parsed[0];
    judge::version(own).map_err(|what| wrong("certificate", certificate, what))?;
    let private = provider.key_provider.load_private_key(keys.swap_remove(0)).map_err(|error| {
        let of_certificate = judge::key_kind(own, judge::Use::Signs).err();
        wrong("key", key, of_certificate.unwrap_or_else(|| judge::unreadable_key(&error)))
    })?;
    let certified = CertifiedKey::new(chain.clone(), private);
    if let Some(public) = certified.key.public_key() {
        let fits = |of: &X509Certificate<'_>| of.public_key().raw == public.as_ref();
        match parsed.iter().position(fits) {
            Some(0) => {}
            Some(place) => {
                let what = format!(
                    "certificate {} of the file belongs to the key, not the first one; the server \
                     certificate comes first, then the one that signed it, and so on",
                    place + 1
                );
                return Err(wrong("certificate", certificate, what));
            }
            None => {
                let what = format!("it must be the key of {}", certificate.display());
                return Err(wrong("key", key, what));
            }
        }
    }
    for what in judge::doubts_about_chain(&parsed, UnixTime::now().as_secs()) {
        tracing::warn!(file = %certificate.display(), "certificates of a listener: {what}");
    }
    Ok(certified)
}

fn parse_chain<'a>(chain: &'a [CertificateDer<'_>]) -> Result<Vec<X509Certificate<'a>>, String> {
    let parse = |(place, certificate): (usize, &'a CertificateDer<'_>)| {
        let parsed = X509Certificate::from_der(certificate);
        parsed.map(|(_, certificate)| certificate).map_err(|error| {
            format!("certificate {} of the file cannot be read: {error}", place + 1)
        })
    };
    chain.iter().enumerate().map(parse).collect()
}

fn host_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let names = alternative_names(certificate);
    let hosts = names.into_iter().filter_map(|name| match name {
        AlternativeName::Dns(host) => Some(host.to_ascii_lowercase()),
        _ => None,
    });
    hosts.collect()
}

fn alternative_names(certificate: &CertificateDer<'_>) -> Vec<AlternativeName> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| names.value.general_names.iter());
    let known = names.filter_map(|name| match name {
        GeneralName::DNSName(host) => Some(AlternativeName::Dns((*host).into())),
        GeneralName::RFC822Name(address) => Some(AlternativeName::Email((*address).into())),
        GeneralName::URI(uri) => Some(AlternativeName::Uri((*uri).into())),
        _ => None,
    });
    known.collect()
}

/// A subject as a text (RFC 2253): the last relative name first.
fn subject(name: &X509Name<'_>) -> String {
    let names: Vec<_> = name.iter_rdn().collect();
    let attribute = |attribute: &AttributeTypeAndValue<'_>| {
        let oid = attribute.attr_type();
        let kind = match oid2abbrev(oid, oid_registry()) {
            Ok(kind) => kind.to_owned(),
            Err(_) => oid.to_id_string(),
        };
        let value = attribute.as_str().unwrap_or_default();
        let last = value.chars().count().saturating_sub(1);
        let mut text = format!("{kind}=");
        for (place, character) in value.chars().enumerate() {
            let is_edge = character == ' ' && (place == 0 || place == last);
            if is_edge || ",+\"\\<>;".contains(character) || place == 0 && character == '#' {
                text.push('\\');
            }
            text.push(character);
        }
        text
    };
    let relative = |name: &RelativeDistinguishedName<'_>| {
        name.iter().map(attribute).collect::<Vec<_>>().join("+")
    };
    names.into_iter().rev().map(relative).collect::<Vec<_>>().join(",")
}

/// Identity and remaining validity of a verified certificate; none if it cannot be parsed.
pub(super) fn identity_of(
    certificate: &CertificateDer<'_>,
    from: IdentityFrom,
) -> Option<(CertificateIdentity, Duration)> {
    let alternative_names = alternative_names(certificate);
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let common_name = certificate.subject().iter_common_name().next();
    let common_name = common_name.and_then(|name| name.as_str().ok()).map(Box::<str>::from);
    let first = |is_wanted: fn(&AlternativeName) -> bool| {
        let name = alternative_names.iter().find(|name| is_wanted(name))?;
        let (AlternativeName::Dns(name)
        | AlternativeName::Email(name)
        | AlternativeName::Uri(name)) = name;
        Some(name.clone())
    };
    let name = match from {
        IdentityFrom::None => None,
        IdentityFrom::Cn => common_name.clone(),
        IdentityFrom::Subject => Some(subject(certificate.subject()).into()),
        IdentityFrom::San => first(|_| true),
        IdentityFrom::SanDns => first(|name| matches!(name, AlternativeName::Dns(_))),
        IdentityFrom::SanEmail => first(|name| matches!(name, AlternativeName::Email(_))),
        IdentityFrom::SanUri => first(|name| matches!(name, AlternativeName::Uri(_))),
    };
    let identity = CertificateIdentity { common_name, alternative_names, name, valid_until: None };
    // notAfter is inclusive (RFC 5280, 4.1.2.5).
    let not_after_s = certificate.validity().not_after.timestamp().saturating_add(1);
    let end = Duration::from_secs(not_after_s.try_into().unwrap_or(0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some((identity, end.saturating_sub(now)))
}

//! A certificate authority, and a broker certificate issued by it, for loads over TLS on this
//! machine.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::error::{Error, Result};

/// The file of the authority's certificate.
pub const AUTHORITY: &str = "ca.pem";
/// The file of the broker's certificate.
const CERTIFICATE: &str = "server.pem";
/// The file of the broker's key.
const KEY: &str = "server-key.pem";
/// The names in the broker's certificate.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// Writes all three files into `folder`, which is created if necessary, for the key in `key`, or
/// for a new ECDSA P-256 key. The authority's key is not stored, as it issues no other certificate.
pub fn write(folder: &Path, key: Option<&Path>) -> Result<()> {
    let key = match key {
        None => KeyPair::generate().map_err(|error| failed(&error))?,
        Some(path) => read_key(path)?,
    };
    let (authority, certificate) = sign(&key).map_err(|error| failed(&error))?;
    let doing = || format!("write certificates to {}", folder.display());
    let write = || {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(AUTHORITY), authority)?;
        fs::write(folder.join(CERTIFICATE), certificate)?;
        fs::write(folder.join(KEY), key.serialize_pem())
    };
    write().map_err(|source| Error::io(doing(), source))
}

/// A broker certificate by an untrusted authority, and its key, as PEM.
pub fn fresh() -> Result<[String; 2]> {
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let (_, certificate) = sign(&key).map_err(|error| failed(&error))?;
    Ok([certificate, key.serialize_pem()])
}

fn read_key(path: &Path) -> Result<KeyPair> {
    let text = fs::read_to_string(path)
        .map_err(|source| Error::io(format!("read {}", path.display()), source))?;
    KeyPair::from_pem(&text).map_err(|error| {
        Error::Usage(format!(
            "--key {}: {error}; expected a PEM file with a PKCS #8 key",
            path.display()
        ))
    })
}

/// The certificates of an authority and of a broker with this key.
fn sign(key: &KeyPair) -> std::result::Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "ringmq-bench authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut params = CertificateParams::new(NAMES.map(String::from))?;
    params.distinguished_name.push(DnType::CommonName, "broker");
    let certificate = params.signed_by(key, &authority)?;
    Ok((authority.as_ref().pem(), certificate.pem()))
}

fn failed(error: &rcgen::Error) -> Error {
    Error::Broker(format!("cannot create a certificate: {error}"))
}

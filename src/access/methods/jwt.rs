//! Clients with a JSON Web Token: HS256 to 512, RS and PS 256 to 512, ES256, ES384 and EdDSA, with keys
//! from a JSON Web Key Set. `jsonwebtoken` reads tokens and checks claims, `ring` verifies signatures.
//! The key determines the permitted algorithms, so that a token cannot choose.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey, Validation};
use ring::{hmac, signature as by_ring};

use super::{Known, Method, Step, Workers, job};
use crate::access::password_file::Passwords;
use crate::access::{AccessError, configured, warn_about};
use crate::config::{Jwt, TokenIn};
use crate::engine::{Cause, Credentials, Rejection};
use crate::wire::ReasonCode;

mod claims;
#[cfg(feature = "http-hook")]
mod remote;
#[cfg(not(feature = "http-hook"))]
#[path = "jwt/remote_absent.rs"]
mod remote;
#[cfg(test)]
mod tests;

pub(in crate::access) use remote::Fetched;
use remote::Remote;

/// Longest token accepted.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Number of keys tried for a token that does not name its key.
const KEYS_TRIED_MAX: usize = 8;

struct Tokens {
    keys: Source,
    settings: Jwt,
}

/// Where keys are from.
enum Source {
    File(Arc<Keys>),
    Url(Arc<Remote>),
}

/// None if no key set is configured.
pub(super) fn open(
    settings: &Jwt,
    fetched: Option<Arc<Fetched>>,
) -> Result<Option<Arc<dyn Method>>, AccessError> {
    let keys = match (configured(&settings.key_set), settings.key_set_url.is_empty()) {
        (None, true) => return Ok(None),
        (Some(_), false) => {
            let what = "access.jwt: key_set and key_set_url are both set; use one of them";
            return Err(AccessError(what.to_owned()));
        }
        (None, false) => Source::Url(Remote::open(settings, fetched).map_err(AccessError)?),
        (Some(path), true) => {
            let keys = Keys::read(path, settings).map_err(AccessError)?;
            for what in &keys.ignored {
                warn_about(path, &format_args!("a key of the key set is ignored: {what}"));
            }
            Source::File(Arc::new(keys))
        }
    };
    Ok(Some(Arc::new(Tokens { keys, settings: settings.clone() })))
}

impl Method for Tokens {
    fn begin(&self, who: &Credentials<'_>, _: &Arc<Passwords>) -> Option<Step> {
        let token = token_of(who, self.settings.token_in)?.to_vec();
        let job = match &self.keys {
            Source::File(keys) => {
                let keys = Arc::clone(keys);
                job(move || keys.verify(&token).map_err(Rejection::from))
            }
            Source::Url(remote) => Arc::clone(remote).verify_later(token),
        };
        Some(Step::Pending(Workers::Processor, job))
    }

    fn start(self: Arc<Self>) {
        if let Source::Url(remote) = &self.keys {
            Arc::clone(remote).start();
        }
    }

    fn fetched(&self) -> Option<Arc<Fetched>> {
        match &self.keys {
            Source::Url(remote) => Some(remote.fetched()),
            Source::File(_) => None,
        }
    }

    fn reload(&self, _: &Passwords) -> Result<Option<Arc<dyn Method>>, AccessError> {
        open(&self.settings, self.fetched())
    }
}

/// Keys that tokens may be signed with, and the required claims.
struct Keys {
    keys: Vec<Key>,
    /// Keys of the set that cannot be used, with the reason.
    ignored: Vec<String>,
    validation: Validation,
    of: Jwt,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Why a token is invalid.
#[derive(Debug)]
struct Invalid {
    cause: Cause,
    detail: String,
}

impl From<Error> for Invalid {
    fn from(error: Error) -> Self {
        let cause = match error.kind() {
            ErrorKind::ExpiredSignature => Cause::TokenExpired,
            ErrorKind::ImmatureSignature => Cause::TokenNotYetValid,
            ErrorKind::InvalidSignature => Cause::TokenSignature,
            ErrorKind::InvalidAudience
            | ErrorKind::InvalidIssuer
            | ErrorKind::InvalidSubject
            | ErrorKind::MissingRequiredClaim(_) => Cause::TokenClaims,
            _ => Cause::TokenMalformed,
        };
        Self { cause, detail: error.to_string() }
    }
}

/// The client hears the same, whatever the cause is.
impl From<Invalid> for Rejection {
    fn from(Invalid { cause, detail }: Invalid) -> Self {
        Self::new(ReasonCode::BadUserNameOrPassword, cause).with_detail(detail)
    }
}

/// The token of a client, in the configured field of CONNECT.
fn token_of<'a>(who: &Credentials<'a>, place: TokenIn) -> Option<&'a [u8]> {
    let password = who.password.filter(|_| place != TokenIn::Username);
    let username = who.username.filter(|_| place != TokenIn::Password).map(str::as_bytes);
    [password, username].into_iter().flatten().find(|text| looks_like_token(text))
}

/// Whether a text has the form of a token: three parts in the alphabet of base64url.
fn looks_like_token(password: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    password.starts_with(b"ey")
        && password.len() <= TOKEN_BYTES_MAX
        && password.split(|&byte| byte == b'.').count() == 3
        && password.iter().all(|byte| is_letter(byte) || *byte == b'.')
}

impl Keys {
    /// Reads a key set; errors name the file and the key.
    fn read(path: &Path, of: &Jwt) -> Result<Self, String> {
        let error = |what: String| format!("access.jwt.key_set: {}: {what}", path.display());
        let text = crate::base::text_file::read(path).map_err(|e| error(e.to_string()))?;
        let keys = Self::parse(&text, of).map_err(error)?;
        // Only keys of type oct are secret.
        let set: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let mut all = set["keys"].as_array().into_iter().flatten();
        if all.any(|key| key["kty"] == "oct") {
            crate::base::secret_file::warn_if_open(
                path,
                "the key set, which has a secret key (oct)",
            );
        }
        Ok(keys)
    }

    fn parse(text: &str, of: &Jwt) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_str(text).map_err(|error| {
            format!("{error}; a JSON Web Key Set is expected: {{\"keys\": […]}}")
        })?;
        // Fails if a test has installed another provider.
        let _ = PROVIDER.install_default();
        let (mut keys, mut ignored) = (Vec::new(), Vec::new());
        for (number, jwk) in set.keys.iter().enumerate() {
            let id = jwk["kid"].as_str().unwrap_or("without kid");
            let named = |what: &str| format!("key {} ({id}): {what}", number + 1);
            match Key::read(jwk) {
                Ok(key) => keys.push(key),
                Err(NoKey::Unusable(what)) => ignored.push(named(&what)),
                Err(NoKey::Weak(what)) => return Err(named(&what)),
            }
        }
        if keys.is_empty() {
            let why: String = ignored.iter().map(|what| format!("; {what}")).collect();
            return Err(format!("no key for signatures in it{why}"));
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        let mut required = vec!["exp"];
        validation.leeway = of.leeway_s.into();
        validation.validate_nbf = true;
        validation.validate_aud = !of.audience.is_empty();
        if !of.audience.is_empty() {
            validation.set_audience(&[&of.audience]);
            required.push("aud");
        }
        if !of.issuer.is_empty() {
            validation.set_issuer(&[&of.issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Ok(Self { keys, ignored, validation, of: of.clone() })
    }

    /// Verifies a token; returns its user and validity. Slow: never called on the thread of a core.
    fn verify(&self, token: &[u8]) -> Result<Known, Invalid> {
        let invalid = |cause, detail: String| Invalid { cause, detail };
        let header = jsonwebtoken::decode_header(token)?;
        if header.crit.is_some() {
            let detail = "it requires an unknown extension (crit)".to_owned();
            return Err(invalid(Cause::TokenMalformed, detail));
        }
        let fits = |key: &&Key| {
            key.algorithms.contains(&header.alg)
                && header.kid.as_ref().is_none_or(|id| key.id.as_ref() == Some(id))
        };
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let kid = header.kid.as_deref().map_or(String::new(), |kid| format!("kid {kid}, "));
        let detail = format!("no key for {kid}alg {:?}", header.alg);
        let mut outcome = Err(invalid(Cause::TokenKeyUnknown, detail));
        for key in self.keys.iter().filter(fits).take(KEYS_TRIED_MAX) {
            type Claims = serde_json::Map<String, serde_json::Value>;
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(decoded) => return self.known(&decoded.claims),
                Err(error) => outcome = Err(error.into()),
            }
        }
        outcome
    }

    fn known(&self, claims: &serde_json::Map<String, serde_json::Value>) -> Result<Known, Invalid> {
        let user = claims.get(&self.of.user_claim).and_then(|name| name.as_str());
        let user = user.filter(|user| !user.is_empty() && !user.contains('\0'));
        let Some(user) = user else {
            let detail = format!("its claim {:?} has no user name", self.of.user_claim);
            return Err(Invalid { cause: Cause::TokenClaims, detail });
        };
        let expires_s = claims.get("exp").and_then(|exp| exp.as_f64()).unwrap_or(0.0);
        let now_s = jsonwebtoken::get_current_timestamp() as f64;
        let left_s = expires_s + self.validation.leeway as f64 - now_s;
        // At most 136 years.
        let left = Duration::from_secs_f64(left_s.clamp(0.0, f64::from(u32::MAX)));
        let name = &self.of.acl_claim;
        let claim = claims.get(name).filter(|_| !name.is_empty());
        let grants = claim.map(|claim| claims::read(claim, self.of.acl_rules_max)).transpose();
        let grants = grants.map_err(|what| Invalid {
            cause: Cause::TokenClaims,
            detail: format!("its claim {name:?}: {what}"),
        })?;
        Ok(Known { user: Some(user.into()), valid_for: Some(left), entry: None, grants })
    }
}

/// Reason why a key of a set is not used.
enum NoKey {
    /// The key is not understood, or not for signatures: it is ignored (RFC 7517, 5).
    Unusable(String),
    /// The key is so weak that others could sign tokens: the whole set is refused.
    Weak(String),
}

impl Key {
    fn read(value: &serde_json::Value) -> Result<Self, NoKey> {
        let unusable = |what: &str| NoKey::Unusable(what.to_owned());
        let jwk: Jwk =
            serde_json::from_value(value.clone()).map_err(|error| unusable(&error.to_string()))?;
        let operations = jwk.common.key_operations.as_deref();
        if jwk.common.public_key_use == Some(PublicKeyUse::Encryption)
            || operations.is_some_and(|all| !all.contains(&KeyOperations::Verify))
        {
            return Err(unusable("its use or key_ops does not permit verifying signatures"));
        }
        let mut algorithms = algorithms_of(&jwk).map_err(unusable)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| unusable(&error.to_string()))?;
        match key.kind() {
            DecodingKeyKind::SecretOrDer(secret)
                if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) =>
            {
                let bits = secret.len() * 8;
                algorithms.retain(|algorithm| hash_bits(*algorithm) <= bits);
                if algorithms.is_empty() {
                    return Err(NoKey::Weak(format!(
                        "its secret has {bits} bits; HS256 needs 256 at least, HS384 384 and HS512 \
                         512 (RFC 7518, 3.2)"
                    )));
                }
            }
            DecodingKeyKind::SecretOrDer(point) => {
                let bytes = match algorithms[..] {
                    [Algorithm::ES256] => 1 + 2 * 32,
                    [Algorithm::ES384] => 1 + 2 * 48,
                    _ => 32,
                };
                if point.len() != bytes {
                    return Err(unusable("its point does not have the length of its curve"));
                }
            }
            DecodingKeyKind::RsaModulusExponent { n, .. } => {
                let leading = n.iter().take_while(|byte| **byte == 0).count();
                let first = n.get(leading).map_or(0, |byte| byte.leading_zeros() as usize);
                let bits = ((n.len() - leading) * 8).saturating_sub(first);
                if !(2_048..=8_192).contains(&bits) {
                    return Err(NoKey::Unusable(format!(
                        "its modulus has {bits} bits; 2048 to 8192 are accepted"
                    )));
                }
            }
        }
        Ok(Self { id: jwk.common.key_id, algorithms, key })
    }
}

/// Length of an algorithm's hash in bits.
fn hash_bits(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS512 => 512,
        Algorithm::HS384 => 384,
        _ => 256,
    }
}

/// Algorithms that a key may be used with: its own, or all of its type.
fn algorithms_of(jwk: &Jwk) -> Result<Vec<Algorithm>, &'static str> {
    use Algorithm::{
        ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
    };
    let of_kind = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => vec![HS256, HS384, HS512],
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P256 => vec![ES256],
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P384 => vec![ES384],
        AlgorithmParameters::OctetKeyPair(of) if of.curve == EllipticCurve::Ed25519 => vec![EdDSA],
        _ => {
            return Err(
                "a member is missing, or the type or curve is unknown: expected oct, RSA, EC P-256, \
                        EC P-384 or OKP Ed25519",
            );
        }
    };
    let Some(said) = jwk.common.key_algorithm else { return Ok(of_kind) };
    match Algorithm::from_str(&said.to_string()) {
        Ok(said) if of_kind.contains(&said) => Ok(vec![said]),
        _ => Err("its alg does not fit its type"),
    }
}

/// Verifies signatures with `ring`; signs nothing.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(Box::new(ByRing { algorithm: *algorithm, key: key.clone() }))
}

struct ByRing {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for ByRing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for ByRing {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let by_mac = |algorithm| {
            let key = self.key.try_get_as_bytes().ok()?;
            hmac::verify(&hmac::Key::new(algorithm, key), message, signature).ok()
        };
        let by_key = |algorithm: &'static dyn by_ring::VerificationAlgorithm| {
            let key = self.key.try_get_as_bytes().ok()?;
            by_ring::UnparsedPublicKey::new(algorithm, key).verify(message, signature).ok()
        };
        let by_rsa = |algorithm: &'static by_ring::RsaParameters| match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let key = by_ring::RsaPublicKeyComponents { n, e };
                key.verify(algorithm, message, signature).ok()
            }
            DecodingKeyKind::SecretOrDer(_) => None,
        };
        let verified = match self.algorithm {
            Algorithm::HS256 => by_mac(hmac::HMAC_SHA256),
            Algorithm::HS384 => by_mac(hmac::HMAC_SHA384),
            Algorithm::HS512 => by_mac(hmac::HMAC_SHA512),
            Algorithm::RS256 => by_rsa(&by_ring::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => by_rsa(&by_ring::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => by_rsa(&by_ring::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => by_rsa(&by_ring::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => by_rsa(&by_ring::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => by_rsa(&by_ring::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => by_key(&by_ring::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => by_key(&by_ring::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => by_key(&by_ring::ED25519),
            _ => None,
        };
        verified.ok_or_else(signature::Error::new)
    }
}

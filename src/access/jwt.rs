//! JSON Web Tokens: HS256 to 512, RS and PS 256 to 512, ES256, ES384 and EdDSA, with keys from a
//! JSON Web Key Set. The library reads tokens and judges claims; `ring` judges signatures. Each key
//! says by itself which algorithms it is for, so that a token cannot choose.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey, Validation};
use ring::{hmac, signature as by_ring};

use crate::access::core::Known;
use crate::config::{Jwt, TokenIn};
use crate::engine::Credentials;

/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Keys tried for a token that does not say which one it is signed with.
const KEYS_TRIED_MAX: usize = 8;

/// Keys that tokens may be signed with, and what is asked of tokens.
pub(super) struct Keys {
    keys: Vec<Key>,
    /// Keys of the set that are of no use here, with the reason.
    pub ignored: Vec<String>,
    validation: Validation,
    user_claim: String,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Why a token does not let in.
#[derive(Debug)]
pub(super) struct Invalid(#[expect(dead_code, reason = "for whoever debugs")] String);

/// The token that a client shows, where it is looked for.
pub(super) fn token_of<'a>(who: &Credentials<'a>, place: TokenIn) -> Option<&'a [u8]> {
    let password = who.password.filter(|_| place != TokenIn::Username);
    let username = who.username.filter(|_| place != TokenIn::Password).map(str::as_bytes);
    [password, username].into_iter().flatten().find(|text| looks_like_token(text))
}

/// Whether a text may be a token: three pieces of the letters that tokens are written in.
fn looks_like_token(password: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    password.starts_with(b"ey")
        && password.len() <= TOKEN_BYTES_MAX
        && password.split(|&byte| byte == b'.').count() == 3
        && password.iter().all(|byte| is_letter(byte) || *byte == b'.')
}

impl Keys {
    /// Reads a key set; what is wrong names the file and the key.
    pub fn read(path: &Path, of: &Jwt) -> Result<Self, String> {
        let error = |what: String| format!("access.jwt.key_set: {}: {what}", path.display());
        let text = crate::base::text_file::read(path).map_err(|e| error(e.to_string()))?;
        let keys = Self::parse(&text, of).map_err(error)?;
        // Those of other kinds are public.
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
        // Another one may have been made known already by a test.
        let _ = PROVIDER.install_default();
        let (mut keys, mut ignored) = (Vec::new(), Vec::new());
        for (number, jwk) in set.keys.iter().enumerate() {
            let id = jwk["kid"].as_str().unwrap_or("without kid");
            let named = |what: &str| format!("key {} ({id}): {what}", number + 1);
            match Key::read(jwk) {
                Ok(key) => keys.push(key),
                Err(NoKey::OfNoUse(what)) => ignored.push(named(&what)),
                Err(NoKey::Weak(what)) => return Err(named(&what)),
            }
        }
        if keys.is_empty() {
            let why: String = ignored.iter().map(|what| format!("; {what}")).collect();
            return Err(format!("there is no key for signatures in it{why}"));
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
        Ok(Self { keys, ignored, validation, user_claim: of.user_claim.clone() })
    }

    /// Whom a token names, and for how long. Takes a signature's time: not to be called on a core.
    pub fn verify(&self, token: &[u8]) -> Result<Known, Invalid> {
        let invalid = |error: &dyn std::fmt::Display| Invalid(error.to_string());
        let header = jsonwebtoken::decode_header(token).map_err(|error| invalid(&error))?;
        if header.crit.is_some() {
            return Err(invalid(&"it asks for extensions that are not known"));
        }
        let fits = |key: &&Key| {
            key.algorithms.contains(&header.alg)
                && header.kid.as_ref().is_none_or(|id| key.id.as_ref() == Some(id))
        };
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let mut outcome = Err(invalid(&"no key is for it"));
        for key in self.keys.iter().filter(fits).take(KEYS_TRIED_MAX) {
            type Claims = serde_json::Map<String, serde_json::Value>;
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(decoded) => return self.known(&decoded.claims),
                Err(error) => outcome = Err(invalid(&error)),
            }
        }
        outcome
    }

    fn known(&self, claims: &serde_json::Map<String, serde_json::Value>) -> Result<Known, Invalid> {
        let user = claims.get(&self.user_claim).and_then(|name| name.as_str());
        let user = user.filter(|user| !user.is_empty() && !user.contains('\0'));
        let Some(user) = user else {
            return Err(Invalid(format!("it names nobody in {:?}", self.user_claim)));
        };
        let expires_s = claims.get("exp").and_then(|exp| exp.as_f64()).unwrap_or(0.0);
        let now_s = jsonwebtoken::get_current_timestamp() as f64;
        let left_s = expires_s + self.validation.leeway as f64 - now_s;
        // Nobody stays for longer than 136 years.
        let left = Duration::from_secs_f64(left_s.clamp(0.0, f64::from(u32::MAX)));
        Ok(Known { user: Some(user.into()), valid_for: Some(left), entry: None })
    }
}

/// Why a key of a set is not taken.
enum NoKey {
    /// It is not understood, or not for this; the others are taken all the same (RFC 7517, 5).
    OfNoUse(String),
    /// Tokens could be made by others than its owner: nothing of the set is.
    Weak(String),
}

impl Key {
    fn read(value: &serde_json::Value) -> Result<Self, NoKey> {
        let of_no_use = |what: &str| NoKey::OfNoUse(what.to_owned());
        let jwk: Jwk =
            serde_json::from_value(value.clone()).map_err(|error| of_no_use(&error.to_string()))?;
        let operations = jwk.common.key_operations.as_deref();
        if jwk.common.public_key_use == Some(PublicKeyUse::Encryption)
            || operations.is_some_and(|all| !all.contains(&KeyOperations::Verify))
        {
            return Err(of_no_use("it is not for checking signatures, as its use or key_ops says"));
        }
        let mut algorithms = algorithms_of(&jwk).map_err(of_no_use)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| of_no_use(&error.to_string()))?;
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
                    return Err(of_no_use("its point is not as long as those of its curve"));
                }
            }
            DecodingKeyKind::RsaModulusExponent { n, .. } => {
                let leading = n.iter().take_while(|byte| **byte == 0).count();
                let first = n.get(leading).map_or(0, |byte| byte.leading_zeros() as usize);
                let bits = ((n.len() - leading) * 8).saturating_sub(first);
                if !(2_048..=8_192).contains(&bits) {
                    return Err(NoKey::OfNoUse(format!(
                        "its modulus has {bits} bits; 2048 to 8192 are taken"
                    )));
                }
            }
        }
        Ok(Self { id: jwk.common.key_id, algorithms, key })
    }
}

/// Bits of what the hash of an algorithm makes.
fn hash_bits(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS512 => 512,
        Algorithm::HS384 => 384,
        _ => 256,
    }
}

/// What a key may be used with: what it says, or all that keys of its kind can do.
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
                "it lacks a member, or is of a kind or curve that is not known: oct, RSA, EC P-256, \
                        EC P-384 or OKP Ed25519 is expected",
            );
        }
    };
    let Some(said) = jwk.common.key_algorithm else { return Ok(of_kind) };
    match Algorithm::from_str(&said.to_string()) {
        Ok(said) if of_kind.contains(&said) => Ok(vec![said]),
        _ => Err("its alg is none that keys of its kind sign with"),
    }
}

/// Judges signatures by `ring`; signs nothing.
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

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use ring::signature::KeyPair;

    /// A key set, and tokens signed with its keys by another program, for `alice` until 2100.
    const MADE_ELSEWHERE: &str = include_str!("tests/tokens.json");

    const YEAR_2100: u64 = 4_102_444_800;

    fn keys(set: &str) -> Keys {
        Keys::parse(set, &Jwt::default()).expect("they are read")
    }

    fn user(outcome: Result<Known, Invalid>) -> Option<String> {
        outcome.ok().and_then(|known| known.user).map(Into::into)
    }

    /// A key set of one shared secret, and a way to sign with it.
    fn shared(more: &str) -> (String, impl Fn(&str, &str) -> String) {
        let secret = b"a secret of at least thirty-two bytes";
        let set =
            format!(r#"{{"keys": [{{"kty": "oct", "k": "{}"{more}}}]}}"#, BASE64.encode(secret));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let sign = move |header: &str, claims: &str| {
            let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
            let signature = BASE64.encode(hmac::sign(&key, message.as_bytes()));
            format!("{message}.{signature}")
        };
        (set, sign)
    }

    const HS256: &str = r#"{"alg":"HS256"}"#;

    fn claims(exp: u64) -> String {
        format!(r#"{{"sub":"alice","exp":{exp}}}"#)
    }

    #[test]
    fn tokens_signed_by_another_program_are_verified_and_changed_ones_are_not() {
        let made: serde_json::Value = serde_json::from_str(MADE_ELSEWHERE).expect("JSON");
        let keys = keys(&made["key_set"].to_string());
        for (algorithm, token) in made["tokens"].as_object().expect("tokens by algorithm") {
            let token = token.as_str().expect("a token");
            assert!(looks_like_token(token.as_bytes()), "{algorithm}");
            assert_eq!(
                user(keys.verify(token.as_bytes())).as_deref(),
                Some("alice"),
                "{algorithm}"
            );
            let (message, signature) = token.rsplit_once('.').expect("three pieces");
            let (header, _) = message.split_once('.').expect("three pieces");
            let eve = BASE64.encode(r#"{"sub":"eve","exp":4102444800}"#);
            let forged = format!("{header}.{eve}.{signature}");
            assert_eq!(user(keys.verify(forged.as_bytes())), None, "{algorithm}");
            let none = format!(
                "{}.{}.",
                BASE64.encode(r#"{"alg":"none"}"#),
                BASE64.encode(claims(YEAR_2100))
            );
            assert_eq!(user(keys.verify(none.as_bytes())), None, "unsigned");
        }
    }

    #[test]
    fn es256_and_eddsa_are_verified_with_the_key_of_their_curve_alone() {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = by_ring::Ed25519KeyPair::generate_pkcs8(&random).expect("made");
        let ed = by_ring::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("made");
        let kind = &by_ring::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = by_ring::EcdsaKeyPair::generate_pkcs8(kind, &random).expect("made");
        let ec = by_ring::EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).expect("made");
        let (x, y) = ec.public_key().as_ref()[1..].split_at(32);
        let of_ed = format!(
            r#"{{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"{}"}}"#,
            BASE64.encode(ed.public_key())
        );
        let of_ec = format!(
            r#"{{"kty":"EC","crv":"P-256","kid":"ec","x":"{}","y":"{}"}}"#,
            BASE64.encode(x),
            BASE64.encode(y)
        );
        let both = keys(&format!(r#"{{"keys": [{of_ed}, {of_ec}]}}"#));
        let message = |algorithm: &str| {
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            format!("{}.{}", BASE64.encode(header), BASE64.encode(claims(YEAR_2100)))
        };
        let signed =
            |message: &str, signature: &[u8]| format!("{message}.{}", BASE64.encode(signature));
        let by_ed = message("EdDSA");
        let by_ed = signed(&by_ed, ed.sign(by_ed.as_bytes()).as_ref());
        let by_ec = message("ES256");
        let by_ec = signed(&by_ec, ec.sign(&random, by_ec.as_bytes()).expect("signed").as_ref());
        for token in [&by_ed, &by_ec] {
            assert_eq!(user(both.verify(token.as_bytes())).as_deref(), Some("alice"));
        }
        let ed_alone = keys(&format!(r#"{{"keys": [{of_ed}]}}"#));
        assert_eq!(user(ed_alone.verify(by_ec.as_bytes())), None);
    }

    #[test]
    fn a_token_is_good_until_it_expires_and_for_whom_it_is_meant() {
        let (set, sign) = shared("");
        let now_s = jsonwebtoken::get_current_timestamp();
        let of = Jwt {
            issuer: "us".to_owned(),
            audience: "broker".to_owned(),
            user_claim: "name".to_owned(),
            leeway_s: 0,
            ..Jwt::default()
        };
        let keys = Keys::parse(&set, &of).expect("they are read");
        let verify = |claims: &str| keys.verify(sign(HS256, claims).as_bytes());
        let exp = now_s + 100;
        let good = format!(r#"{{"iss":"us","aud":["broker","x"],"name":"alice","exp":{exp}}}"#);
        let known = verify(&good).expect("it is good");
        assert_eq!(known.user.as_deref(), Some("alice"));
        let left_s = known.valid_for.expect("it expires").as_secs();
        assert!((95..=100).contains(&left_s), "{left_s}");
        for (from, to) in [
            (format!("{exp}"), format!("{}", now_s - 1)),
            (format!(r#","exp":{exp}"#), String::new()),
            (r#""iss":"us","#.to_owned(), String::new()),
            (r#""us""#.to_owned(), r#""them""#.to_owned()),
            (r#""broker""#.to_owned(), r#""other""#.to_owned()),
            (r#""aud":["broker","x"],"#.to_owned(), String::new()),
            (r#""alice""#.to_owned(), r#""""#.to_owned()),
            (r#""alice""#.to_owned(), "7".to_owned()),
            (r#""name""#.to_owned(), r#""sub""#.to_owned()),
            (r#""name""#.to_owned(), format!(r#""nbf":{},"name""#, now_s + 50)),
        ] {
            let changed = good.replace(&from, &to);
            assert_ne!(changed, good, "{from}");
            assert!(verify(&changed).is_err(), "{changed}");
        }
    }

    #[test]
    fn a_token_chooses_neither_its_algorithm_nor_its_key() {
        let (set, sign) = shared(r#", "kid": "one", "alg": "HS256""#);
        let keys = keys(&set);
        let claims = claims(YEAR_2100);
        assert!(keys.verify(sign(HS256, &claims).as_bytes()).is_ok());
        assert!(keys.verify(sign(r#"{"alg":"HS256","kid":"one"}"#, &claims).as_bytes()).is_ok());
        for header in [
            r#"{"alg":"HS256","kid":"two"}"#,
            r#"{"alg":"HS384"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"HS256","crit":["exp"]}"#,
            r#"{"kid":"one"}"#,
        ] {
            assert!(keys.verify(sign(header, &claims).as_bytes()).is_err(), "{header}");
        }
        // A public key is no secret to sign with.
        let made: serde_json::Value = serde_json::from_str(MADE_ELSEWHERE).expect("JSON");
        let of_rsa = self::keys(&made["key_set"].to_string());
        let n = made["key_set"]["keys"][0]["n"].as_str().expect("a modulus");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(n).expect("bytes"));
        let message = format!("{}.{}", BASE64.encode(HS256), BASE64.encode(&claims));
        let signature = BASE64.encode(hmac::sign(&key, message.as_bytes()));
        assert!(of_rsa.verify(format!("{message}.{signature}").as_bytes()).is_err());
    }

    #[test]
    fn a_wrong_key_set_is_told_with_the_key_that_is_wrong() {
        for (set, part) in [
            ("{}", "a JSON Web Key Set is expected"),
            (r#"{"keys": []}"#, "no key for signatures"),
            (r#"{"keys": [{"kty": "oct", "k": "QQ", "use": "enc"}]}"#, "no key for signatures"),
            (
                r#"{"keys": [{"kty": "oct", "k": "QQ", "kid": "x", "alg": "RS256"}]}"#,
                "key 1 (x): its alg is none",
            ),
            (
                r#"{"keys": [{"kty": "EC", "crv": "P-521", "x": "QQ", "y": "QQ"}]}"#,
                "key 1 (without kid)",
            ),
        ] {
            let error = Keys::parse(set, &Jwt::default()).err().expect(set);
            assert!(error.contains(part), "{set}: {error}");
        }
    }

    #[test]
    fn keys_of_unknown_kinds_are_passed_over_and_those_that_are_known_are_taken() {
        let (set, sign) = shared(r#", "kid": "good""#);
        let good = &set[r#"{"keys": ["#.len()..set.len() - 2];
        for (other, why) in [
            (r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AAAA","kid":"new"}"#, "key 1 (new): "),
            (r#"{"kty":"OKP","crv":"Ed448","x":"AAAA"}"#, "key 1 (without kid): "),
            (r#"{"kty":"OKP","crv":"X25519","x":"AAAA"}"#, "key 1 (without kid): "),
            (r#"{"kty":"EC","crv":"secp256k1","x":"AAAA","y":"AAAA"}"#, "key 1 (without kid): "),
            (r#"{"kty":"EC","crv":"P-521","x":"AAAA","y":"AAAA"}"#, "P-384"),
            (r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#, "its point is not"),
            (r#"{"kty":"RSA","e":"AQAB"}"#, "it lacks a member"),
            (r#"{"kty":"RSA","n":"AIAA","e":"AQAB"}"#, "its modulus has 16 bits"),
            (r#"{"kty":"RSA","n":"AAAA","e":"AQAB","alg":"RSA-OAEP-512"}"#, "its alg is none"),
            (r#"{"kty":"oct","k":"AA","key_ops":["sign"]}"#, "key_ops"),
            (r#"{"kty":"oct","k":"!"}"#, "key 1 (without kid): "),
            ("7", "key 1 (without kid): "),
        ] {
            let keys = keys(&format!(r#"{{"keys": [{other}, {good}]}}"#));
            let token = sign(HS256, &claims(YEAR_2100));
            assert_eq!(user(keys.verify(token.as_bytes())).as_deref(), Some("alice"), "{other}");
            assert!(keys.ignored.len() == 1 && keys.ignored[0].contains(why), "{:?}", keys.ignored);
        }
    }

    #[test]
    fn a_shared_secret_shorter_than_its_hash_is_refused_at_load() {
        let of = |bytes: usize, alg: &str| {
            let k = BASE64.encode(vec![7; bytes]);
            let set = format!(r#"{{"keys": [{{"kty":"oct","k":"{k}"{alg}}}]}}"#);
            Keys::parse(&set, &Jwt::default())
        };
        for (bytes, alg) in [
            (0, ""),
            (1, ""),
            (31, ""),
            (31, r#","alg":"HS256""#),
            (47, r#","alg":"HS384""#),
            (63, r#","alg":"HS512""#),
        ] {
            let error = of(bytes, alg).err().expect("it is too short");
            let says = format!("key 1 (without kid): its secret has {} bits", bytes * 8);
            assert!(error.contains(&says), "{error}");
        }
        for (bytes, alg, count) in
            [(32, "", 1), (48, "", 2), (64, "", 3), (48, r#","alg":"HS384""#, 1)]
        {
            let keys = of(bytes, alg).expect("it is long enough");
            assert_eq!(keys.keys[0].algorithms.len(), count);
        }
    }

    #[test]
    fn what_is_no_token_is_taken_for_a_password() {
        for password in ["", "secret", "a.b.c", "eyJh.eyJh", "eyJ!.eyJh.x", "eyJh.eyJh.x.y"] {
            assert!(!looks_like_token(password.as_bytes()), "{password}");
        }
        assert!(
            looks_like_token(b"eyJh.eyJh.x") && !looks_like_token(&[b'e'; TOKEN_BYTES_MAX + 1])
        );
    }
}

//! Tokens signed here and by another program, and key sets that cannot be used.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::KeyPair;

/// A key set, and tokens signed with its keys by another program, for `alice` until 2100.
const MADE_ELSEWHERE: &str = include_str!("tokens.json");

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
    let set = format!(r#"{{"keys": [{{"kty": "oct", "k": "{}"{more}}}]}}"#, BASE64.encode(secret));
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
        assert_eq!(user(keys.verify(token.as_bytes())).as_deref(), Some("alice"), "{algorithm}");
        let (message, signature) = token.rsplit_once('.').expect("three pieces");
        let (header, _) = message.split_once('.').expect("three pieces");
        let eve = BASE64.encode(r#"{"sub":"eve","exp":4102444800}"#);
        let forged = format!("{header}.{eve}.{signature}");
        assert_eq!(user(keys.verify(forged.as_bytes())), None, "{algorithm}");
        let none =
            format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(claims(YEAR_2100)));
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
            "key 1 (x): its alg does not fit",
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
        (r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#, "its point does not"),
        (r#"{"kty":"RSA","e":"AQAB"}"#, "a member is missing"),
        (r#"{"kty":"RSA","n":"AIAA","e":"AQAB"}"#, "its modulus has 16 bits"),
        (r#"{"kty":"RSA","n":"AAAA","e":"AQAB","alg":"RSA-OAEP-512"}"#, "its alg does not fit"),
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
    for (bytes, alg, count) in [(32, "", 1), (48, "", 2), (64, "", 3), (48, r#","alg":"HS384""#, 1)]
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
    assert!(looks_like_token(b"eyJh.eyJh.x") && !looks_like_token(&[b'e'; TOKEN_BYTES_MAX + 1]));
}

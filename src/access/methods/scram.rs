//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side: a client shows that it knows its password
//! without telling it, and the server that it knows the client. No channel binding. Knows no file.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;

/// The Authentication Method's name.
pub const METHOD: &str = "SCRAM-SHA-256";

const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 18;

/// Longest nonce that is taken from a client.
const CLIENT_NONCE_BYTES_MAX: usize = 256;

type Key = [u8; KEY_BYTES];

/// What answers to names that are not there are made of: they look like the others, and are the
/// same each time.
#[derive(Clone, Debug)]
pub struct Secret {
    key: Key,
    iterations: u32,
}

impl Secret {
    /// A fresh one; `iterations` are those of the users who are there.
    pub fn new(iterations: u32) -> Result<Self, getrandom::Error> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key)?;
        Ok(Self { key, iterations })
    }
}

/// What is kept of a password: enough to check a client, not to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    /// Of a password. Takes time: `iterations` hashes.
    pub fn new(password: &str, iterations: u32) -> Result<Self, String> {
        let mut salt = vec![0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
        let password = stringprep::saslprep(password)
            .map_err(|_| "SCRAM takes no control characters in a password".to_owned())?;
        let salted = salted_password(&password, &salt, iterations);
        let client_key = hmac_of(&salted, b"Client Key");
        let server_key = hmac_of(&salted, b"Server Key");
        Ok(Self { iterations, salt, stored_key: hash(&client_key), server_key })
    }

    /// One that nobody has the password of, the same for the same name and `secret`.
    fn of_nobody(name: &str, secret: &Secret) -> Self {
        let Secret { key: secret, iterations } = secret;
        let salt = hmac_of(secret, name.as_bytes())[..SALT_BYTES].to_vec();
        let server_key = hmac_of(secret, &salt);
        Self { iterations: *iterations, salt, stored_key: [0; KEY_BYTES], server_key }
    }

    /// Hashes that a client does for it.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// From the text that [`fmt::Display`] makes of it.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(METHOD)?.strip_prefix('$')?;
        let (numbers, keys) = rest.split_once('$')?;
        let ((iterations, salt), (stored, server)) =
            (numbers.split_once(':')?, keys.split_once(':')?);
        let iterations = iterations.parse().ok().filter(|&iterations: &u32| iterations > 0)?;
        let key = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self { iterations, salt, stored_key: key(stored)?, server_key: key(server)? })
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| BASE64.encode(bytes));
        write!(f, "{METHOD}${}:{salt}${stored}:{server}", self.iterations)
    }
}

/// An exchange of which the first half is done.
#[derive(Debug)]
pub struct Exchange {
    user: Box<str>,
    verifier: Verifier,
    is_known: bool,
    /// The client's nonce and ours.
    nonce: String,
    /// What the client has to repeat.
    gs2_header: String,
    /// What both sides sign, up to the client's last message.
    signed: String,
}

/// Why an exchange fails: the client does not know the password, or does not speak SCRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

impl Exchange {
    /// Takes the client's first message; the exchange, and what to answer. `find` gives a user's
    /// verifier. For names that are not there an exchange goes on as for others, to its end.
    pub fn begin(
        message: &[u8],
        secret: &Secret,
        find: impl FnOnce(&str) -> Option<Verifier>,
    ) -> Result<(Self, Vec<u8>), Failed> {
        let mut random = [0; NONCE_BYTES];
        getrandom::fill(&mut random).map_err(|_| Failed)?;
        Self::begin_with(message, secret, find, &BASE64.encode(random))
    }

    fn begin_with(
        message: &[u8],
        secret: &Secret,
        find: impl FnOnce(&str) -> Option<Verifier>,
        own_nonce: &str,
    ) -> Result<(Self, Vec<u8>), Failed> {
        let message = std::str::from_utf8(message).map_err(|_| Failed)?;
        // gs2-header: n (no channel binding) or y (the client could, and sees that we cannot), then
        // an identity to act as, which is not to be had here.
        let bare = message.strip_prefix("n,,").or_else(|| message.strip_prefix("y,,"));
        let bare = bare.ok_or(Failed)?;
        let gs2_header = message[..message.len() - bare.len()].to_owned();
        let mut attributes = bare.split(',');
        let user = attributes.next().and_then(|text| text.strip_prefix("n=")).ok_or(Failed)?;
        let user = unescape(user).ok_or(Failed)?;
        let user = stringprep::saslprep(&user).map_err(|_| Failed)?;
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r=")).ok_or(Failed)?;
        if user.is_empty() || nonce.is_empty() || nonce.len() > CLIENT_NONCE_BYTES_MAX {
            return Err(Failed);
        }
        let found = find(&user);
        let is_known = found.is_some();
        let verifier = found.unwrap_or_else(|| Verifier::of_nobody(&user, secret));
        let nonce = format!("{nonce}{own_nonce}");
        let (salt, iterations) = (BASE64.encode(&verifier.salt), verifier.iterations);
        let answer = format!("r={nonce},s={salt},i={iterations}");
        let signed = format!("{bare},{answer}");
        let user = user.into();
        Ok((Self { user, verifier, is_known, nonce, gs2_header, signed }, answer.into_bytes()))
    }

    /// Takes the client's last message; its name, and what proves to it that we know it.
    pub fn finish(self, message: &[u8]) -> Result<(Box<str>, Vec<u8>), Failed> {
        let message = std::str::from_utf8(message).map_err(|_| Failed)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(Failed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|text| text.strip_prefix("c=")).ok_or(Failed)?;
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r=")).ok_or(Failed)?;
        if binding != BASE64.encode(&self.gs2_header) || nonce != self.nonce {
            return Err(Failed);
        }
        let proof: Key =
            BASE64.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(Failed)?;
        let signed = format!("{},{without_proof}", self.signed);
        let mut client_key = hmac_of(&self.verifier.stored_key, signed.as_bytes());
        client_key.iter_mut().zip(proof).for_each(|(byte, of_proof)| *byte ^= of_proof);
        let is_right = bool::from(hash(&client_key).ct_eq(&self.verifier.stored_key));
        if !is_right || !self.is_known {
            return Err(Failed);
        }
        let signature = hmac_of(&self.verifier.server_key, signed.as_bytes());
        Ok((self.user, format!("v={}", BASE64.encode(signature)).into_bytes()))
    }
}

/// A name as the client meant it: a comma came as `=2C`, an equals sign as `=3D`.
fn unescape(text: &str) -> Option<String> {
    let mut pieces = text.split('=');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let (character, rest) = match piece.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        name.push(character);
        name.push_str(rest);
    }
    Some(name)
}

fn salted_password(password: &str, salt: &[u8], iterations: u32) -> Key {
    let mut salted = [0; KEY_BYTES];
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted);
    salted
}

fn hmac_of(key: &[u8], message: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("SHA-256 gives so many bytes")
}

fn hash(bytes: &[u8]) -> Key {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("as above")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: Secret = Secret { key: [7; KEY_BYTES], iterations: 4_096 };

    /// The user of RFC 7677's example.
    fn of_rfc() -> Verifier {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("its salt");
        let salted = salted_password("pencil", &salt, 4_096);
        let (client_key, server_key) =
            (hmac_of(&salted, b"Client Key"), hmac_of(&salted, b"Server Key"));
        Verifier { iterations: 4_096, salt, stored_key: hash(&client_key), server_key }
    }

    fn begin(first: &str) -> Result<(Exchange, Vec<u8>), Failed> {
        let find = |user: &str| (user == "user").then(of_rfc);
        let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        Exchange::begin_with(first.as_bytes(), &SECRET, find, nonce)
    }

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn the_exchange_of_rfc_7677_comes_out_as_printed_there() {
        let (exchange, answer) = begin(FIRST).expect("it begins");
        assert_eq!(
            String::from_utf8(answer).expect("text"),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let (user, answer) = exchange.finish(LAST.as_bytes()).expect("the proof is right");
        assert_eq!(&*user, "user");
        assert_eq!(answer, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_wrong_proof_nonce_or_binding_fails() {
        for (from, to) in [("p=dHz", "p=dHy"), ("r=rOpr", "r=xOpr"), ("c=biws", "c=eSws")] {
            let (exchange, _) = begin(FIRST).expect("it begins");
            let changed = LAST.replace(from, to);
            assert_ne!(changed, LAST);
            assert_eq!(exchange.finish(changed.as_bytes()), Err(Failed), "{from}");
        }
        for last in ["", "c=biws", ",p=", "c=biws,r=x,p=AAAA"] {
            let (exchange, _) = begin(FIRST).expect("it begins");
            assert_eq!(exchange.finish(last.as_bytes()), Err(Failed), "{last}");
        }
    }

    #[test]
    fn what_is_no_first_message_fails() {
        let firsts = ["", "n,,", "n,,n=user", "p=tls-unique,,n=user,r=x", "n,a=eve,n=user,r=x"];
        for first in firsts.into_iter().chain(["n,,n=,r=x", "n,,n=a=2,r=x", "n,,m=x,n=user,r=x"]) {
            assert!(begin(first).is_err(), "{first}");
        }
        assert!(Exchange::begin(&[0xFF], &SECRET, |_| None).is_err());
    }

    #[test]
    fn an_unknown_user_gets_an_answer_like_a_known_one_and_the_same_each_time() {
        let first = FIRST.replace("n=user", "n=nobody");
        let (exchange, answer) = begin(&first).expect("it begins");
        let (_, again) = begin(&first).expect("it begins");
        assert_eq!(answer, again);
        let (_, other) = begin(&first.replace("nobody", "someone")).expect("it begins");
        assert_ne!(answer, other);
        assert_eq!(exchange.finish(LAST.as_bytes()), Err(Failed));
    }

    #[test]
    fn a_verifier_comes_back_from_its_text_and_holds_no_password() {
        let verifier = Verifier::new("pencil", 4_096).expect("it is made");
        let text = verifier.to_string();
        assert_eq!(Verifier::parse(&text), Some(verifier));
        assert!(!text.contains("pencil"));
        for wrong in ["", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:AA==$AA==:AA=="] {
            assert_eq!(Verifier::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_with_commas_and_equals_signs_are_read_as_they_were_meant() {
        assert_eq!(unescape("a=2Cb=3Dc").as_deref(), Some("a,b=c"));
        assert_eq!(unescape("plain").as_deref(), Some("plain"));
        assert!(["=", "a=2", "a=2c", "=41"].into_iter().all(|text| unescape(text).is_none()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_a_client_sends_it_is_answered_or_refused_and_never_harms(
            first in proptest::collection::vec(any::<u8>(), 0..60),
            text in "(n,,|y,,)?(n=[a-z=,C23D]{0,8})?(,r=[a-z]{0,8})?",
            last in "(c=[a-zA-Z=]{0,6})?(,r=[a-z]{0,8})?(,p=[a-zA-Z=]{0,50})?",
        ) {
            let _ = Exchange::begin(&first, &SECRET, |_| Some(of_rfc()));
            if let Ok((exchange, _)) = Exchange::begin(text.as_bytes(), &SECRET, |_| Some(of_rfc())) {
                prop_assert_eq!(exchange.finish(last.as_bytes()), Err(Failed));
            }
        }
    }
}

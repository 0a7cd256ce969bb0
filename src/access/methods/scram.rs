//! Enhanced authentication by SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, without channel
//! binding: client and server prove to each other that they know the password without sending it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Admission, Known, Method, Step};
use crate::access::AccessError;
use crate::access::password_file::{Passwords, User};
use crate::access::scram_verifier::{METHOD, Secret, Verifier};
use crate::config::{Access, Hashing};
use crate::engine::{Cause, Credentials, Rejection};
use crate::wire::ReasonCode;

const NONCE_BYTES: usize = 18;

/// Longest nonce accepted from a client.
const CLIENT_NONCE_BYTES_MAX: usize = 256;

struct Scram {
    secret: Secret,
    hashing: Hashing,
}

/// None without users with passwords.
pub(super) fn open(
    access: &Access,
    listeners: &[Admission],
    passwords: &Passwords,
) -> Result<Option<Arc<dyn Method>>, AccessError> {
    let has_own = |listener: &Admission| !listener.password_file.as_os_str().is_empty();
    let is_used = access.has_passwords() || listeners.iter().any(has_own);
    is_used.then(|| make(access.hashing, passwords)).transpose()
}

fn make(hashing: Hashing, passwords: &Passwords) -> Result<Arc<dyn Method>, AccessError> {
    let mut verifiers = passwords.verifiers().filter_map(Verifier::parse);
    let iterations = verifiers.next().map_or(hashing.scram_iterations, |of| of.iterations());
    let secret = Secret::new(iterations).map_err(|error| AccessError(error.to_string()))?;
    Ok(Arc::new(Scram { secret, hashing }))
}

impl Method for Scram {
    fn name(&self) -> Option<&'static str> {
        Some(METHOD)
    }

    fn begin(&self, who: &Credentials<'_>, passwords: &Arc<Passwords>) -> Option<Step> {
        let (_, data) = who.method?;
        let mut entry = None;
        let find = |user: &str| {
            entry = passwords.user(user).cloned();
            Verifier::parse(entry.as_ref()?.verifier.as_deref()?)
        };
        Some(match Exchange::begin(data, &self.secret, find) {
            Ok((exchange, answer)) => Step::Continue(answer, Box::new(Begun { exchange, entry })),
            Err(failed) => Step::Refused(failed.rejection(None)),
        })
    }

    fn reload(&self, passwords: &Passwords) -> Result<Option<Arc<dyn Method>>, AccessError> {
        make(self.hashing, passwords).map(Some)
    }
}

/// An exchange, and the user's entry.
struct Begun {
    exchange: Exchange,
    entry: Option<Arc<User>>,
}

impl super::Exchange for Begun {
    fn proceed(self: Box<Self>, data: &[u8]) -> Step {
        let claimed = self.exchange.user.clone();
        match self.exchange.finish(data) {
            Ok((user, answer)) => {
                Step::Granted(Known { entry: self.entry, ..Known::user(user) }, answer)
            }
            Err(failed) => Step::Refused(failed.rejection(Some(claimed))),
        }
    }
}

/// An exchange after its first message, waiting for the last.
#[derive(Debug)]
struct Exchange {
    user: Box<str>,
    verifier: Verifier,
    is_known: bool,
    /// Nonce of the client, followed by that of the server.
    nonce: String,
    /// The gs2-header of the first message, which the last message repeats.
    gs2_header: String,
    /// The AuthMessage of RFC 5802, except for the client's last message.
    signed: String,
}

/// Why authentication failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    /// A message is malformed, or not the one expected.
    Message,
    /// The user is unknown, or has no verifier for SCRAM.
    UnknownUser,
    /// The client does not know the password.
    Proof,
}

impl Failed {
    /// The client hears the same, whatever the cause is.
    fn rejection(self, user: Option<Box<str>>) -> Rejection {
        let cause = match self {
            Self::Message => Cause::AuthenticationData,
            Self::UnknownUser => Cause::UnknownUser,
            Self::Proof => Cause::WrongPassword,
        };
        Rejection::new(ReasonCode::NotAuthorized, cause).of_user(user)
    }
}

impl Exchange {
    /// Processes the client's first message; returns the exchange and the answer. `find` looks up the
    /// verifier of a user. The exchange of an unknown user looks like any other, up to its end.
    fn begin(
        message: &[u8],
        secret: &Secret,
        find: impl FnOnce(&str) -> Option<Verifier>,
    ) -> Result<(Self, Vec<u8>), Failed> {
        let mut random = [0; NONCE_BYTES];
        getrandom::fill(&mut random).map_err(|_| Failed::Message)?;
        Self::begin_with(message, secret, find, &BASE64.encode(random))
    }

    fn begin_with(
        message: &[u8],
        secret: &Secret,
        find: impl FnOnce(&str) -> Option<Verifier>,
        own_nonce: &str,
    ) -> Result<(Self, Vec<u8>), Failed> {
        let message = std::str::from_utf8(message).map_err(|_| Failed::Message)?;
        // gs2-header: n (the client supports no channel binding) or y (the server offered none), then
        // the authorization identity, which must be empty here.
        let bare = message.strip_prefix("n,,").or_else(|| message.strip_prefix("y,,"));
        let bare = bare.ok_or(Failed::Message)?;
        let gs2_header = message[..message.len() - bare.len()].to_owned();
        let mut attributes = bare.split(',');
        let user =
            attributes.next().and_then(|text| text.strip_prefix("n=")).ok_or(Failed::Message)?;
        let user = unescape(user).ok_or(Failed::Message)?;
        let user = stringprep::saslprep(&user).map_err(|_| Failed::Message)?;
        let nonce =
            attributes.next().and_then(|text| text.strip_prefix("r=")).ok_or(Failed::Message)?;
        if user.is_empty() || nonce.is_empty() || nonce.len() > CLIENT_NONCE_BYTES_MAX {
            return Err(Failed::Message);
        }
        let found = find(&user);
        let is_known = found.is_some();
        let verifier = found.unwrap_or_else(|| Verifier::of_unknown(&user, secret));
        let nonce = format!("{nonce}{own_nonce}");
        let (salt, iterations) = (BASE64.encode(verifier.salt()), verifier.iterations());
        let answer = format!("r={nonce},s={salt},i={iterations}");
        let signed = format!("{bare},{answer}");
        let user = user.into();
        Ok((Self { user, verifier, is_known, nonce, gs2_header, signed }, answer.into_bytes()))
    }

    /// Processes the client's last message; returns the user name and the server's signature.
    fn finish(self, message: &[u8]) -> Result<(Box<str>, Vec<u8>), Failed> {
        let message = std::str::from_utf8(message).map_err(|_| Failed::Message)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(Failed::Message)?;
        let mut attributes = without_proof.split(',');
        let binding =
            attributes.next().and_then(|text| text.strip_prefix("c=")).ok_or(Failed::Message)?;
        let nonce =
            attributes.next().and_then(|text| text.strip_prefix("r=")).ok_or(Failed::Message)?;
        if binding != BASE64.encode(&self.gs2_header) || nonce != self.nonce {
            return Err(Failed::Message);
        }
        let proof = BASE64.decode(proof).map_err(|_| Failed::Message)?;
        let signed = format!("{},{without_proof}", self.signed);
        let is_proven = self.verifier.proves(&proof, signed.as_bytes());
        match (self.is_known, is_proven) {
            (true, true) => {}
            (true, false) => return Err(Failed::Proof),
            (false, _) => return Err(Failed::UnknownUser),
        }
        let signature = self.verifier.sign(signed.as_bytes());
        Ok((self.user, format!("v={}", BASE64.encode(signature)).into_bytes()))
    }
}

/// Decodes a user name of SCRAM, in which `=2C` is a comma and `=3D` an equals sign.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::LazyLock;

    use super::*;

    static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::new(4_096).expect("random bytes"));

    /// The user of RFC 7677's example.
    fn of_rfc() -> Verifier {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("its salt");
        Verifier::with_salt("pencil", salt, 4_096)
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
        for (from, to, why) in [
            ("p=dHz", "p=dHy", Failed::Proof),
            ("r=rOpr", "r=xOpr", Failed::Message),
            ("c=biws", "c=eSws", Failed::Message),
        ] {
            let (exchange, _) = begin(FIRST).expect("it begins");
            let changed = LAST.replace(from, to);
            assert_ne!(changed, LAST);
            assert_eq!(exchange.finish(changed.as_bytes()), Err(why), "{from}");
        }
        for last in ["", "c=biws", ",p=", "c=biws,r=x,p=AAAA"] {
            let (exchange, _) = begin(FIRST).expect("it begins");
            assert_eq!(exchange.finish(last.as_bytes()), Err(Failed::Message), "{last}");
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
        let nonce = exchange.nonce.clone();
        let last = LAST.replace("rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", &nonce);
        assert_eq!(exchange.finish(last.as_bytes()), Err(Failed::UnknownUser));
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
                prop_assert!(exchange.finish(last.as_bytes()).is_err());
            }
        }
    }
}

//! Questions to servers made for Mosquitto's plugin go-auth, and their answers. Source: the documentation of the plugin
//! (github.com/iegomez/mosquitto-go-auth).

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::access::server::Answered;
use crate::config::{Params, ServerAnswer};

/// What a client wants to do with a topic, by the numbers of Mosquitto's plugins.
pub(super) const WRITE: u8 = 2;

/// See [`WRITE`].
pub(super) const SUBSCRIBE: u8 = 4;

/// The type of the body of a form.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// The type of a body of JSON.
pub(super) const JSON: &str = "application/json";

/// A field of a question.
pub(super) enum Field<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Number(u8),
}

/// The type of the body of a question with these fields, and the body.
pub(super) fn question(params: Params, fields: &[(&str, Field<'_>)]) -> (&'static str, String) {
    match params {
        Params::Form => (FORM, form(fields)),
        Params::Json | Params::Ringmq => {
            let value = |field: &Field<'_>| match field {
                Field::Text(text) => Value::from(*text),
                Field::Bytes(bytes) => Value::from(String::from_utf8_lossy(bytes)),
                Field::Number(number) => Value::from(*number),
            };
            let fields = fields.iter().map(|(name, field)| ((*name).to_owned(), value(field)));
            (JSON, Value::Object(fields.collect::<Map<_, _>>()).to_string())
        }
    }
}

fn form(fields: &[(&str, Field<'_>)]) -> String {
    let mut form = String::new();
    for (name, field) in fields {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        match field {
            Field::Text(text) => escape(text.as_bytes(), &mut form),
            Field::Bytes(bytes) => escape(bytes, &mut form),
            Field::Number(number) => form.push_str(&number.to_string()),
        }
    }
    form
}

/// Appends bytes as a form has them (WHATWG, URL Standard, section 5.2).
fn escape(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[derive(Deserialize)]
struct Said {
    ok: bool,
}

/// Whether an answer is a yes; the error says why it is no answer.
pub(super) fn is_yes(answer: ServerAnswer, answered: &Answered) -> Result<bool, String> {
    match answered.status {
        200 => match answer {
            ServerAnswer::Status | ServerAnswer::Ringmq => Ok(true),
            ServerAnswer::Text => Ok(answered.text.trim() == "ok"),
            ServerAnswer::Json => serde_json::from_str(&answered.text)
                .map(|Said { ok }| ok)
                .map_err(|error| format!("the answer is not in the expected form: {error}")),
        },
        400..=499 => Ok(false),
        status => Err(format!("the server answered with status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_have_the_names_and_forms_of_go_auth() {
        let fields = || {
            [
                ("username", Field::Text("zo\u{eb} b")),
                ("password", Field::Bytes(b"a&b=%")),
                ("acc", Field::Number(SUBSCRIBE)),
            ]
        };
        let (kind, body) = question(Params::Form, &fields());
        assert_eq!((kind, &*body), (FORM, "username=zo%C3%AB+b&password=a%26b%3D%25&acc=4"));
        let (kind, body) = question(Params::Json, &fields());
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(kind, JSON);
        assert_eq!(
            body,
            serde_json::json!({"username": "zo\u{eb} b", "password": "a&b=%", "acc": 4})
        );
    }

    #[test]
    fn an_answer_is_a_yes_by_its_status_its_json_or_its_text() {
        let answered = |status, text: &str| Answered {
            status,
            headers: Default::default(),
            text: text.to_owned(),
        };
        for (answer, status, text, expected) in [
            (ServerAnswer::Status, 200, "", Some(true)),
            (ServerAnswer::Status, 401, "", Some(false)),
            (ServerAnswer::Status, 500, "", None),
            (ServerAnswer::Json, 200, "{\"ok\": true, \"error\": \"\"}", Some(true)),
            (ServerAnswer::Json, 200, "{\"ok\": false}", Some(false)),
            (ServerAnswer::Json, 200, "yes", None),
            (ServerAnswer::Json, 403, "", Some(false)),
            (ServerAnswer::Text, 200, "ok\n", Some(true)),
            (ServerAnswer::Text, 200, "no", Some(false)),
        ] {
            assert_eq!(is_yes(answer, &answered(status, text)).ok(), expected, "{answer:?} {text}");
        }
    }
}

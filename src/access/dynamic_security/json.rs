//! Members of JSON objects. Mosquitto does not distinguish upper case and lower case in their names, and its tools write
//! `textName` where it reads `textname`.

use serde_json::{Map, Value};

pub(super) type Object = Map<String, Value>;

/// A member with this name, in any case.
pub(super) fn member<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| {
        object.iter().find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    })
}

/// A text; none if there is no such member. The error: the member is no text.
pub(super) fn text<'a>(object: &'a Object, name: &str) -> Result<Option<&'a str>, NotText> {
    match member(object, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(NotText),
    }
}

/// A member is no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotText;

/// A whole number; none if there is no such member, or no number.
pub(super) fn number(object: &Object, name: &str) -> Option<i32> {
    // Larger numbers are cut to the largest one.
    member(object, name)?.as_f64().map(|number| number as i32)
}

/// A truth value; none if there is no such member, or something else.
pub(super) fn truth(object: &Object, name: &str) -> Option<bool> {
    member(object, name)?.as_bool()
}

/// A list of objects; none if there is no such member, or something else. Other things in it are left out.
pub(super) fn objects<'a>(
    object: &'a Object,
    name: &str,
) -> Option<impl Iterator<Item = &'a Object>> {
    member(object, name)?.as_array().map(|list| list.iter().filter_map(Value::as_object))
}

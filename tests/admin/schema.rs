//! Checks JSON against the JSON Schemas of the OpenAPI document. Every keyword that the schemas use is checked; an
//! unknown one fails the test.

use serde_json::{Map, Value};

/// What is wrong with a value, if anything is.
pub fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let Some(schema) = schema.as_object() else {
        return match schema {
            Value::Bool(true) => Ok(()),
            _ => Err(format!("nothing is allowed, but there is {value}")),
        };
    };
    for (keyword, of) in schema {
        check_keyword(document, schema, keyword, of, value)
            .map_err(|what| format!("{keyword}: {what}"))?;
    }
    Ok(())
}

fn check_keyword(
    document: &Value,
    schema: &Map<String, Value>,
    keyword: &str,
    of: &Value,
    value: &Value,
) -> Result<(), String> {
    let ensure = |holds: bool| if holds { Ok(()) } else { Err(format!("{value} is not {of}")) };
    match keyword {
        "title" | "description" | "default" | "format" | "examples" => Ok(()),
        "$ref" => {
            let path = of.as_str().and_then(|path| path.strip_prefix('#')).expect("a path");
            let schema = document.pointer(path).unwrap_or_else(|| panic!("{path} is missing"));
            check(document, schema, value)
        }
        "type" => match of {
            Value::Array(types) => ensure(types.iter().any(|one| is_of_type(one, value))),
            one => ensure(is_of_type(one, value)),
        },
        "required" => {
            let names = of.as_array().expect("names").iter().filter_map(Value::as_str);
            let missing: Vec<_> = names.filter(|name| value.get(name).is_none()).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} in {value}")) }
        }
        "properties" => {
            // The interface says everything that it sends.
            let properties = of.as_object().expect("properties");
            for (name, value) in value.as_object().into_iter().flatten() {
                match properties.get(name) {
                    Some(schema) => {
                        check(document, schema, value).map_err(|what| format!("{name}: {what}"))?
                    }
                    None if schema.contains_key("additionalProperties") => {}
                    None => return Err(format!("{name} is not in the document")),
                }
            }
            Ok(())
        }
        "additionalProperties" => {
            let known = schema.get("properties").and_then(Value::as_object);
            let is_other = |name: &str| known.is_none_or(|known| !known.contains_key(name));
            let mut others =
                value.as_object().into_iter().flatten().filter(|(name, _)| is_other(name));
            others.try_for_each(|(_, value)| check(document, of, value))
        }
        "items" => {
            let mut items = value.as_array().into_iter().flatten();
            items.try_for_each(|one| check(document, of, one))
        }
        "prefixItems" => {
            let mut pairs =
                of.as_array().expect("schemas").iter().zip(value.as_array().into_iter().flatten());
            pairs.try_for_each(|(schema, value)| check(document, schema, value))
        }
        "minItems" => ensure(
            value.as_array().is_none_or(|all| all.len() as u64 >= of.as_u64().expect("a number")),
        ),
        "maxItems" => ensure(
            value.as_array().is_none_or(|all| all.len() as u64 <= of.as_u64().expect("a number")),
        ),
        "enum" => ensure(of.as_array().expect("values").contains(value)),
        "const" => ensure(of == value),
        "minimum" => ensure(value.as_f64().is_none_or(|number| Some(number) >= of.as_f64())),
        "maximum" => ensure(value.as_f64().is_none_or(|number| Some(number) <= of.as_f64())),
        "anyOf" | "oneOf" => {
            let all = of.as_array().expect("schemas");
            let right = all.iter().filter(|one| check(document, one, value).is_ok()).count();
            ensure(if keyword == "oneOf" { right == 1 } else { right > 0 })
        }
        "allOf" => {
            let mut schemas = of.as_array().expect("schemas").iter();
            schemas.try_for_each(|one| check(document, one, value))
        }
        _ => Err("this keyword is not known to the test".to_owned()),
    }
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is not a type"),
    }
}

#[test]
fn wrong_values_are_found() {
    let document = serde_json::json!({ "a": { "type": "object", "required": ["n"],
        "properties": { "n": { "type": ["integer", "null"], "minimum": 1 } } } });
    let check = |value: &str| {
        let value = serde_json::from_str(value).expect("JSON");
        check(&document, &serde_json::json!({ "$ref": "#/a" }), &value).is_ok()
    };
    assert!(check(r#"{"n": 1}"#) && check(r#"{"n": null}"#));
    for wrong in [r#"{}"#, r#"{"n": 0}"#, r#"{"n": "1"}"#, r#"{"n": 1, "m": 1}"#, "[]"] {
        assert!(!check(wrong), "{wrong}");
    }
}

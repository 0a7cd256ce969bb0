//! Telemetry by OTLP: metrics, and spans of sampled messages.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::number::between;

/// Telemetry by OTLP.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// URL of the collector, such as `http://127.0.0.1:4318`; empty for none.
    pub endpoint: String,
    /// Seconds between two exports of all metrics; 0 for none.
    #[serde(deserialize_with = "between::<_, _, 0, 86_400>")]
    pub metrics_interval_s: u32,
    /// The messages of which spans are exported.
    pub traces: Sampling,
}

/// Which messages are sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sampling {
    /// None.
    #[default]
    Off,
    /// Those whose `traceparent` says so.
    Asked,
    /// Besides, this share of the others.
    Share(f64),
}

impl<'de> Deserialize<'de> for Sampling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl de::Visitor<'_> for Written {
            type Value = Sampling;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"off\", \"asked\" or a share from 0 to 1")
            }

            fn visit_i64<E: de::Error>(self, share: i64) -> Result<Sampling, E> {
                self.visit_f64(share as f64)
            }

            fn visit_f64<E: de::Error>(self, share: f64) -> Result<Sampling, E> {
                match (0.0..=1.0).contains(&share) {
                    true => Ok(Sampling::Share(share)),
                    false => Err(E::custom(format!("{share} is not a share from 0 to 1"))),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Sampling, E> {
                match text {
                    "off" => Ok(Sampling::Off),
                    "asked" => Ok(Sampling::Asked),
                    _ => Err(E::custom(format!("{text:?} is not \"off\", \"asked\" or a share"))),
                }
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl Serialize for Sampling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::Asked => serializer.serialize_str("asked"),
            Self::Share(share) => serializer.serialize_f64(*share),
        }
    }
}

/// A collector's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path before `/v1/traces`, without a slash at its end.
    pub path: String,
}

impl Telemetry {
    /// The collector; none if nothing is exported.
    pub fn collector(&self) -> Result<Option<Endpoint>, String> {
        if self.endpoint.is_empty() {
            return Ok(None);
        }
        let wrong = |why: &str| format!("endpoint: {:?}: {why}", self.endpoint);
        let Some(rest) = self.endpoint.strip_prefix("http://") else {
            return Err(wrong(
                "expected http://HOST:PORT; for TLS, use a collector on this machine",
            ));
        };
        let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (place, Some(4318)),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_host = !host.is_empty()
            && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
        let is_path = path.chars().all(|c| c.is_ascii_graphic() && !"?#".contains(c));
        match port.filter(|port| *port > 0 && is_host && is_path) {
            Some(port) => {
                let path = path.trim_end_matches('/').to_owned();
                Ok(Some(Endpoint { host: host.to_owned(), port, path }))
            }
            None => Err(wrong("expected http://HOST:PORT")),
        }
    }

    /// Checks the keys together.
    pub(super) fn check(&self) -> Result<(), String> {
        let collector = self.collector().map_err(|what| format!("telemetry.{what}"))?;
        if collector.is_some() && !cfg!(feature = "otlp") {
            return Err("telemetry.endpoint: this broker was built without OTLP; build it with \
                 `cargo build --release --features otlp`"
                .to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Result<Option<Endpoint>, String> {
        Telemetry { endpoint: text.to_owned(), ..Telemetry::default() }.collector()
    }

    #[test]
    fn an_endpoint_is_a_url_with_or_without_a_port_and_a_path() {
        let of = |host: &str, port, path: &str| {
            Ok(Some(Endpoint { host: host.to_owned(), port, path: path.to_owned() }))
        };
        assert_eq!(endpoint(""), Ok(None));
        assert_eq!(endpoint("http://collector"), of("collector", 4318, ""));
        assert_eq!(endpoint("http://127.0.0.1:99/"), of("127.0.0.1", 99, ""));
        assert_eq!(endpoint("http://[::1]:99/a/b/"), of("::1", 99, "/a/b"));
        assert_eq!(endpoint("http://[::1]"), of("::1", 4318, ""));
        for wrong in
            ["collector:4318", "https://c", "http://", "http://c:0", "http://u@c", "http://c/?x"]
        {
            let error = endpoint(wrong).expect_err(wrong);
            assert!(error.contains("http://HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn a_share_is_between_0_and_1() {
        let sampling = |text: &str| toml::from_str::<Telemetry>(text).map(|of| of.traces);
        assert_eq!(sampling("traces = \"asked\"").expect("valid"), Sampling::Asked);
        assert_eq!(sampling("traces = 0.25").expect("valid"), Sampling::Share(0.25));
        assert_eq!(sampling("traces = 1").expect("valid"), Sampling::Share(1.0));
        for wrong in ["traces = 1.5", "traces = -1", "traces = \"all\"", "traces = true"] {
            assert!(sampling(wrong).is_err(), "{wrong}");
        }
    }
}

//! The conformance suite: one test per normative statement of MQTT 5.0, and of 3.1.1 where it
//! differs, over real sockets against the `broker` command. `clauses.tsv` lists every statement;
//! `coverage.rs` checks the tests against it and generates `tests/CONFORMANCE.md`.
//!
//! A test is named after its statement: `mqtt_3_3_2_2_topic_name_has_no_wildcard` is
//! `[MQTT-3.3.2-2]`; `mqtt_311_3_1_3_8_…` is `[MQTT-3.1.3-8]` of MQTT 3.1.1. A test of behaviour
//! without a numbered statement is named after that behaviour.

mod bridges;
mod coverage;
mod support;

mod section_1_5_data;
mod section_2_format;
mod section_3_01_connect;
mod section_3_01_connect_payload;
mod section_3_01_will;
mod section_3_02_connack;
mod section_3_03_publish;
mod section_3_03_publish_properties;
mod section_3_04_to_07_acknowledgements;
mod section_3_08_subscribe;
mod section_3_10_unsubscribe;
mod section_3_12_ping;
mod section_3_14_disconnect;
mod section_3_15_auth;
mod section_4_7_topics;
mod section_4_8_subscriptions;
mod section_4_operation;
mod section_6_websocket;

//! Kernel TLS, where the kernel supports it; elsewhere the same clients see the same behaviour from
//! TLS in user space. All brokers of these tests enable it, so that `tests/ktls/run`, which boots a
//! kernel that supports it, runs all of them on kernel TLS.

use std::process::Command;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore, SupportedCipherSuite};
use serde_json::Value;

use super::support::{Broker, Client, EXECUTORS, Tls};
use super::talks;

/// Whether connections of a broker with these flags are expected to use kernel TLS.
fn uses_kernel_tls(flags: &str) -> bool {
    let report = Command::new(env!("CARGO_BIN_EXE_broker")).args(["platform", "--json"]).output();
    let report: Value =
        serde_json::from_slice(&report.expect("the command runs").stdout).expect("valid JSON");
    let has_tls = report["kernel_tls"]["state"] == "usable";
    let is_expected = std::env::var_os("RINGMQ_TEST_KERNEL_TLS").is_some();
    assert!(has_tls || !is_expected, "{}", report["kernel_tls"]);
    has_tls && !flags.contains("monoio") && !flags.contains("glommio")
}

/// A listener configuration with counters published every second.
const COUNTED: &str = "[mqtt]\nsys_interval_s = 1\n";

/// Waits until a counter has this value.
fn await_counter(broker: &Broker, counter: &str, value: usize) {
    let topic = format!("$SYS/broker/tls/kernel/{counter}");
    let mut reader = broker.client("tcp");
    reader.connect(&format!("reader of {counter}"));
    reader.waits_for_counter(&topic, value);
}

/// A client that offers a single cipher suite.
fn speaking(broker: &Broker, suite: SupportedCipherSuite) -> Tls {
    let provider =
        CryptoProvider { cipher_suites: vec![suite], ..rustls::crypto::ring::default_provider() };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(broker.authority.certificates());
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[suite.version()])
        .expect("a supported suite")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

#[test]
fn every_cipher_suite_moves_to_kernel_tls_if_supported() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, COUNTED);
        let suites = rustls::crypto::ring::default_provider().cipher_suites;
        // The server has a single kind of key.
        let suites = suites.into_iter().filter(|suite| !format!("{suite:?}").contains("RSA"));
        let mut clients: Vec<Client> =
            suites.map(|suite| broker.client_with("tls", speaking(&broker, suite))).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.connect(&format!("{number}"));
            client.subscribe("all");
            // At least one turn, in which the connection is moved to the kernel.
            client.ping();
        }
        let expected = if uses_kernel_tls(flags) { clients.len() } else { 0 };
        await_counter(&broker, "taken", expected);
        for bytes in [1, 100, 65_536, 300_000] {
            let payload: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
            for from in 0..clients.len() {
                clients[from].publish("all", &payload);
                for client in &mut clients {
                    assert!(client.publish_received("all") == payload, "{flags}: {bytes} bytes");
                }
            }
        }
        let mut over_websocket = broker.client("wss");
        talks(&mut over_websocket);
        await_counter(&broker, "taken", expected + usize::from(expected > 0));
    }
}

#[test]
fn both_sides_send_close_notify() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, COUNTED);
        let mut clients: Vec<Client> = (0..4).map(|_| broker.client("tls")).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.connect(&format!("{number}"));
            client.subscribe("last");
            client.ping();
        }
        await_counter(&broker, "taken", if uses_kernel_tls(flags) { clients.len() } else { 0 });
        // Data sent before the client's close_notify is processed, and the close_notify is
        // answered.
        let mut first = clients.remove(0);
        first.publish("last", b"words");
        assert_eq!(first.publish_received("last"), b"words");
        let tls = first.tls();
        tls.conn.send_close_notify();
        tls.conn.complete_io(&mut tls.sock).expect("the data is sent");
        assert!(first.rest().expect("the broker says so").is_empty(), "{flags}");
        for client in &mut clients {
            assert_eq!(client.publish_received("last"), b"words");
        }
        broker.stop();
        for client in &mut clients {
            assert!(client.rest().expect("the broker says so").is_empty(), "{flags}");
        }
    }
}

#[test]
fn a_client_that_updates_its_keys_is_served_or_closed_with_close_notify() {
    for flags in EXECUTORS {
        let broker = Broker::start(flags, COUNTED);
        let mut client = broker.client("tls");
        client.connect("changes");
        client.subscribe("t");
        client.ping();
        let uses_kernel_tls = uses_kernel_tls(flags);
        await_counter(&broker, "taken", usize::from(uses_kernel_tls));
        client.tls().conn.refresh_traffic_keys().expect("TLS 1.3");
        client.publish("t", b"by new keys");
        match uses_kernel_tls {
            true => {
                assert!(client.rest().expect("the broker says so").is_empty(), "{flags}");
                await_counter(&broker, "ended/key-update", 1);
            }
            false => assert_eq!(client.publish_received("t"), b"by new keys"),
        }
    }
}

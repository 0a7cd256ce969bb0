//! Clients behind a proxy are limited by the address in the PROXY header; the proxy's own address
//! is not limited by its clients.

use std::net::SocketAddr;

use crate::support::reason::{BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED};
use crate::support::{Broker, Client, Connect, Subscribe, V5, V311};
use crate::{Files, as_user, await_metric, events};

pub const LISTENER: &str = "[[listeners]]\nbind = \"127.0.0.1:0\"\nanonymous = true\n\
                        proxy_protocol_from = [\"127.0.0.0/8\"]\n";

fn proxied(broker: &Broker) -> SocketAddr {
    broker.await_log("\"listening\"", 2);
    let mut listening = events(broker).into_iter().filter(|event| event["message"] == "listening");
    let address = listening.nth(1).expect("the second")["address"].clone();
    address.as_str().expect("text").parse().expect("an address")
}

/// A connection for a client at this address.
pub fn open_for(broker: &Broker, address: &str) -> Client {
    let mut client = Client::open_at(broker, proxied(broker), V5);
    client.raw(format!("PROXY TCP4 {address} 192.0.2.200 5000 1883\r\n").as_bytes());
    client
}

fn connect_for(broker: &Broker, address: &str, connect: Connect) -> Client {
    let mut client = open_for(broker, address);
    client.send(connect);
    assert_eq!(client.expect_connack().reason, 0);
    client
}

#[test]
fn the_connection_limit_applies_to_addresses_behind_a_proxy_and_not_to_the_proxy() {
    let bounds = "[protection]\nexempt = []\nconnections_per_address_max = 2\n";
    let broker = Broker::with_config(&format!("{bounds}[mqtt]\nsys_interval_s = 1\n{LISTENER}"));
    let mut first = connect_for(&broker, "192.0.2.1", Connect::v5("1"));
    let mut second = connect_for(&broker, "192.0.2.1", Connect::v5("2"));
    open_for(&broker, "192.0.2.1").expect_closed();
    // Other clients of the proxy are accepted, more than an address may have.
    let mut others: Vec<Client> = (2..9)
        .map(|n| connect_for(&broker, &format!("192.0.2.{n}"), Connect::v5(&format!("o-{n}"))))
        .collect();
    // Connections that have not sent their header yet are accepted as well.
    let silent: Vec<Client> =
        (0..5).map(|_| Client::open_at(&broker, proxied(&broker), V5)).collect();
    connect_for(&broker, "192.0.2.9", Connect::v5("9")).expect_alive();
    others.iter_mut().for_each(Client::expect_alive);
    // Connections of clients neither count for the proxy's address nor release its count when they
    // end.
    let _own = Client::connect(&broker, Connect::v5("own-1"));
    let asks = Client::connect(&broker, Connect::v5("own-2"));
    silent.into_iter().chain(others).for_each(Client::vanish);
    second.expect_alive();
    Client::open(&broker, V5).expect_closed();
    asks.disconnect();
    await_metric(&broker, Connect::v5("m"), "connections/turned-away", 2);
    first.expect_alive();
    first.disconnect();
    connect_for(&broker, "192.0.2.1", Connect::v5("1")).expect_alive();
}

#[test]
fn the_connection_rate_limit_applies_to_addresses_behind_a_proxy_and_not_to_the_proxy() {
    let bounds = "[protection]\nexempt = []\nconnections_per_address_per_second_max = 3\n";
    let broker = Broker::with_config(&format!("{bounds}{LISTENER}"));
    for number in 1..=9 {
        let name = format!("c-{number}");
        connect_for(&broker, &format!("192.0.2.{number}"), Connect::v5(&name)).expect_alive();
    }
    // Ten at a time: within one or two seconds, three each.
    let in_time = (0..10).filter(|_| {
        let mut client = open_for(&broker, "192.0.2.77");
        client.send(Connect::v5("crowd"));
        client.is_answered()
    });
    let in_time = in_time.count();
    assert!((3..10).contains(&in_time), "{in_time}");
}

#[test]
fn a_ban_of_an_address_behind_a_proxy_affects_neither_other_addresses_nor_the_proxy() {
    let files = Files::new("behind").with_users(&["alice"]);
    let bounds = "[protection]\nrefusals_max = 3\nexempt = []\n[mqtt]\nsys_interval_s = 1\n";
    let broker = files.broker(&format!("{bounds}{LISTENER}"));
    let guess = || Connect::v5("c").username("alice").password("guess");
    for _ in 0..3 {
        let mut client = open_for(&broker, "192.0.2.1");
        client.send(guess());
        client.expect_refusal(BAD_USER_NAME_OR_PASSWORD);
    }
    broker.await_log("\"address\":\"192.0.2.1\"", 1);
    open_for(&broker, "192.0.2.1").expect_closed();
    connect_for(&broker, "192.0.2.2", as_user(V5, "alice", "c")).expect_alive();
    Client::connect(&broker, as_user(V5, "alice", "d")).expect_alive();
    await_metric(&broker, as_user(V5, "alice", "m"), "access/bans", 1);
}

#[test]
fn exemptions_apply_to_addresses_behind_a_proxy_and_are_not_inherited_from_the_proxy() {
    // By default loopback, the address of the proxy, is exempt.
    let bounds = "[protection]\nconnections_per_address_max = 1\n";
    let broker = Broker::with_config(&format!("{bounds}{LISTENER}"));
    let _first = connect_for(&broker, "192.0.2.1", Connect::v5("1"));
    open_for(&broker, "192.0.2.1").expect_closed();
    let _here: Vec<Client> = (2..5)
        .map(|n| connect_for(&broker, "127.0.0.9", Connect::v5(&format!("here-{n}"))))
        .collect();
}

#[test]
fn a_proxys_own_connections_count_for_its_address() {
    let bounds = "[protection]\nexempt = []\nconnections_per_address_max = 1\n";
    let broker = Broker::with_config(&format!("{bounds}{LISTENER}"));
    let unknown = || {
        let mut client = Client::open_at(&broker, proxied(&broker), V5);
        client.raw(b"PROXY UNKNOWN\r\n");
        client
    };
    let mut first = unknown();
    first.send(Connect::v5("1"));
    assert_eq!(first.expect_connack().reason, 0);
    unknown().expect_closed();
    first.disconnect();
    let mut again = unknown();
    again.send(Connect::v5("1"));
    assert_eq!(again.expect_connack().reason, 0);
}

#[test]
fn proxy_headers_from_other_addresses_are_not_trusted() {
    // Not from the configured network: the header is not valid MQTT.
    let listener = LISTENER.replace("127.0.0.0/8", "192.0.2.0/24");
    let broker = Broker::with_config(&listener);
    let mut client = open_for(&broker, "192.0.2.1");
    client.send(Connect::v5("c"));
    client.expect_closed();
}

#[cfg(feature = "http-hook")]
#[test]
fn the_http_hook_receives_the_address_behind_the_proxy() {
    use std::io::{BufRead, BufReader};
    let asked = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = asked.local_addr().expect("the server listens");
    let broker =
        Broker::with_config(&format!("[access.http]\nurl = \"http://{url}/\"\n{LISTENER}"));
    let mut client = open_for(&broker, "192.0.2.1");
    client.send(Connect::v5("c").username("zoe").password("zoe"));
    let (stream, _) = asked.accept().expect("a connection");
    let mut question = Vec::new();
    let mut reader = BufReader::new(&stream);
    while !question.ends_with(b"}") {
        reader.read_until(b'}', &mut question).expect("the data is sent");
    }
    let question = String::from_utf8_lossy(&question);
    assert!(question.contains("\"address\":\"192.0.2.1\""), "{question}");
    std::io::Write::write_all(&mut &stream, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        .expect("the response is sent");
    client.expect_refusal(BAD_USER_NAME_OR_PASSWORD);
}

/// A version 2 header for a client at 192.0.2.1 that has presented a certificate with this name.
fn header_of(common_name: &str, verify: u8) -> Vec<u8> {
    let extension =
        |kind: u8, value: &[u8]| [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat();
    let name = extension(0x22, common_name.as_bytes());
    let tls = extension(0x20, &[&[7, 0, 0, 0, verify], &name[..]].concat());
    let body = [&[192, 0, 2, 1, 192, 0, 2, 200, 0x13, 0x88, 0x07, 0x5B][..], &tls].concat();
    let length = (body.len() as u16).to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &length, &body].concat()
}

fn may_subscribe(client: &mut Client) -> bool {
    client.send(Subscribe::new(1, "its/1", 0));
    client.expect_suback().reasons == [0]
}

#[test]
fn the_certificate_name_in_a_proxy_header_identifies_the_client_if_configured() {
    let files = Files::new("proxied-names").with_rules("for user pump-7\n allow all its/#\n");
    let named = format!("{LISTENER}proxy_protocol_identity = \"cn\"\n");
    let unnamed = named.replace("anonymous = true\n", "");
    let is_sync =
        std::env::var("RINGMQ_TEST_FLAGS").is_ok_and(|flags| flags.contains("--mode sync"));
    // Sync mode has one core.
    let several = if is_sync { 1 } else { 3 };
    for cores in [1, several] {
        let config = |listener: &str| format!("cores = {cores}\n{}", files.access(listener));
        let broker = Broker::with_config(&config(&named));
        let knows = |header: Vec<u8>, version, identifier: &str| {
            let mut client = Client::open_at(&broker, proxied(&broker), version);
            client.raw(&header);
            client.send(Connect::new(version, identifier));
            assert_eq!(client.expect_connack().reason, 0);
            let is_let = may_subscribe(&mut client);
            client.disconnect();
            is_let
        };
        // Client Identifiers determine home cores: some clients stay, some move.
        for number in 0..6 {
            for version in [V311, V5] {
                let identifier = format!("c-{number}");
                assert!(knows(header_of("pump-7", 0), version, &identifier));
                assert!(!knows(header_of("pump-7", 1), version, &format!("n-{number}")));
                assert!(!knows(header_of("pump-8", 0), version, &format!("o-{number}")));
            }
        }
        let broker = Broker::with_config(&config(LISTENER));
        let mut client = Client::open_at(&broker, proxied(&broker), V5);
        client.raw(&header_of("pump-7", 0));
        client.send(Connect::v5("c"));
        client.expect_connack();
        assert!(!may_subscribe(&mut client), "this listener ignores the certificate's name");
        let broker = Broker::with_config(&config(&unnamed));
        for (verify, reason) in [(0, 0), (1, NOT_AUTHORIZED)] {
            let mut client = Client::open_at(&broker, proxied(&broker), V5);
            client.raw(&header_of("pump-7", verify));
            client.send(Connect::v5("c"));
            match reason {
                0 => assert_eq!(client.expect_connack().reason, 0),
                _ => drop(client.expect_refusal(reason)),
            }
        }
    }
}

#[test]
fn where_a_proxy_has_to_say_that_its_clients_use_tls_others_are_not_served() {
    let broker = Broker::with_config(&format!("{LISTENER}proxy_protocol_requires_tls = true\n"));
    let mut client = Client::open_at(&broker, proxied(&broker), V5);
    client.raw(&header_of("pump-7", 0));
    client.send(Connect::v5("c"));
    assert_eq!(client.expect_connack().reason, 0);
    for without in [&b"PROXY TCP4 192.0.2.1 192.0.2.2 5 1883\r\n"[..], b"PROXY UNKNOWN\r\n"] {
        let mut client = Client::open_at(&broker, proxied(&broker), V5);
        client.raw(without);
        client.send(Connect::v5("d"));
        client.expect_closed();
    }
}

#[test]
fn clients_behind_a_local_proxy_are_not_anonymous_by_default() {
    let broker = Broker::with_config(&LISTENER.replace("anonymous = true\n", ""));
    let mut client = open_for(&broker, "192.0.2.1");
    client.send(Connect::v5("c"));
    client.expect_refusal(NOT_AUTHORIZED);
}

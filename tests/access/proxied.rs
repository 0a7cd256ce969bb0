//! Clients behind a proxy are judged by the address that its PROXY header names, and the proxy by none
//! of theirs.

use std::net::SocketAddr;

use crate::support::reason::{BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED};
use crate::support::{Broker, Client, Connect, Subscribe, V5, V311};
use crate::{Files, as_user, await_metric, events};

pub const LISTENER: &str = "[[listeners]]\nbind = \"127.0.0.1:0\"\nanonymous = true\n\
                        proxy_protocol_from = [\"127.0.0.0/8\"]\n";

fn proxied(broker: &Broker) -> SocketAddr {
    broker.await_log("\"listening\"", 2);
    let listening = events(broker).into_iter().map(|event| event["fields"].clone());
    let mut listening = listening.filter(|fields| fields["message"] == "listening");
    let address = listening.nth(1).expect("the second")["address"].clone();
    address.as_str().expect("text").parse().expect("an address")
}

/// A connection for a client of this address.
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
fn an_address_behind_a_proxy_has_so_many_connections_and_the_proxy_as_many_as_it_likes() {
    let bounds = "[protection]\nexempt = []\nconnections_per_address_max = 2\n";
    let broker = Broker::with_config(&format!("{bounds}[mqtt]\nsys_interval_s = 1\n{LISTENER}"));
    let mut first = connect_for(&broker, "192.0.2.1", Connect::v5("1"));
    let mut second = connect_for(&broker, "192.0.2.1", Connect::v5("2"));
    open_for(&broker, "192.0.2.1").expect_closed();
    // Others of the same proxy come in, more of them than an address may have.
    let mut others: Vec<Client> = (2..9)
        .map(|n| connect_for(&broker, &format!("192.0.2.{n}"), Connect::v5(&format!("o-{n}"))))
        .collect();
    // So do those who have not said yet where they are.
    let silent: Vec<Client> =
        (0..5).map(|_| Client::open_at(&broker, proxied(&broker), V5)).collect();
    connect_for(&broker, "192.0.2.9", Connect::v5("9")).expect_alive();
    others.iter_mut().for_each(Client::expect_alive);
    // And the proxy's own place is neither taken by theirs nor given back by their leaving.
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
fn an_address_behind_a_proxy_makes_so_many_connections_in_a_second_and_the_proxy_more() {
    let bounds = "[protection]\nexempt = []\nconnections_per_address_per_second_max = 3\n";
    let broker = Broker::with_config(&format!("{bounds}{LISTENER}"));
    for number in 1..=9 {
        let name = format!("c-{number}");
        connect_for(&broker, &format!("192.0.2.{number}"), Connect::v5(&name)).expect_alive();
    }
    // Ten at once: within a second or two, three each.
    let in_time = (0..10).filter(|_| {
        let mut client = open_for(&broker, "192.0.2.77");
        client.send(Connect::v5("crowd"));
        client.is_answered()
    });
    let in_time = in_time.count();
    assert!((3..10).contains(&in_time), "{in_time}");
}

#[test]
fn who_guesses_passwords_behind_a_proxy_is_banned_and_its_neighbours_and_the_proxy_are_not() {
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
fn a_network_that_is_exempt_is_so_behind_a_proxy_too_and_the_proxy_s_exemption_is_its_own() {
    // By default loopback is exempt, where the proxy is.
    let bounds = "[protection]\nconnections_per_address_max = 1\n";
    let broker = Broker::with_config(&format!("{bounds}{LISTENER}"));
    let _first = connect_for(&broker, "192.0.2.1", Connect::v5("1"));
    open_for(&broker, "192.0.2.1").expect_closed();
    let _here: Vec<Client> = (2..5)
        .map(|n| connect_for(&broker, "127.0.0.9", Connect::v5(&format!("here-{n}"))))
        .collect();
}

#[test]
fn a_proxy_that_speaks_for_itself_counts_for_itself() {
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
fn what_a_stranger_says_of_proxies_is_not_believed() {
    // Not from the configured network: what it begins with is no MQTT.
    let listener = LISTENER.replace("127.0.0.0/8", "192.0.2.0/24");
    let broker = Broker::with_config(&listener);
    let mut client = open_for(&broker, "192.0.2.1");
    client.send(Connect::v5("c"));
    client.expect_closed();
}

#[cfg(feature = "http-hook")]
#[test]
fn a_server_that_is_asked_hears_the_address_behind_the_proxy() {
    use std::io::{BufRead, BufReader};
    let asked = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = asked.local_addr().expect("it listens");
    let broker =
        Broker::with_config(&format!("[access.http]\nurl = \"http://{url}/\"\n{LISTENER}"));
    let mut client = open_for(&broker, "192.0.2.1");
    client.send(Connect::v5("c").username("zoe").password("zoe"));
    let (stream, _) = asked.accept().expect("it asks");
    let mut question = Vec::new();
    let mut reader = BufReader::new(&stream);
    while !question.ends_with(b"}") {
        reader.read_until(b'}', &mut question).expect("it is sent");
    }
    let question = String::from_utf8_lossy(&question);
    assert!(question.contains("\"address\":\"192.0.2.1\""), "{question}");
    std::io::Write::write_all(&mut &stream, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        .expect("it hears");
    client.expect_refusal(BAD_USER_NAME_OR_PASSWORD);
}

/// A header of version 2 for a client of 192.0.2.1 that has shown a certificate of this name.
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
fn the_name_of_a_certificate_that_the_proxy_has_verified_is_the_clients_where_a_key_says_so() {
    let files = Files::new("proxied-names").with_rules("for user pump-7\n allow all its/#\n");
    let named = format!("{LISTENER}proxy_protocol_identity = \"cn\"\n");
    let unnamed = named.replace("anonymous = true\n", "");
    for cores in [1, 3] {
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
        // Client Identifiers decide on home cores: some of them stay, some move.
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
        assert!(!may_subscribe(&mut client), "nobody has asked for it");
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
fn nobody_comes_in_without_a_name_because_a_proxy_on_this_machine_speaks_for_it() {
    let broker = Broker::with_config(&LISTENER.replace("anonymous = true\n", ""));
    let mut client = open_for(&broker, "192.0.2.1");
    client.send(Connect::v5("c"));
    client.expect_refusal(NOT_AUTHORIZED);
}

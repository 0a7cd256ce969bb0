//! 3.15: AUTH, and the requirements of section 4.12 for a server without authentication method.

use crate::support::{
    Auth, Broker, Client, Connect, Encode, Packet, Property, V5, V31, V311, property, reason,
};

fn client(broker: &Broker) -> Client {
    Client::connect(broker, Connect::v5("c"))
}

fn method(name: &str) -> Property {
    Property::AuthenticationMethod(name.to_owned())
}

#[test]
fn mqtt_3_15_1_1_auth_with_flags_is_malformed() {
    let broker = Broker::start();
    let auth = Auth::new(reason::RE_AUTHENTICATE).property(method("m"));
    for flags in 1..16 {
        for mut bytes in [auth.encode(V5), vec![0xF0, 0x00]] {
            bytes[0] |= flags;
            let mut client = client(&broker);
            client.raw(&bytes);
            client.expect_disconnect(reason::MALFORMED_PACKET);
        }
    }
}

#[test]
fn mqtt_3_15_2_1_an_undefined_reason_code_in_auth_is_a_protocol_error() {
    let broker = Broker::start();
    for code in [0x01, 0x04, 0x17, 0x1A, 0x80, 0x82, 0x87, 0x8C, 0xFF] {
        let mut client = client(&broker);
        client.send(Auth::new(code).property(method("m")));
        client.expect_disconnect(reason::PROTOCOL_ERROR);
    }
}

#[test]
fn auth_without_authentication_method_is_a_protocol_error() {
    let broker = Broker::start();
    for auth in [
        Auth::new(reason::CONTINUE_AUTHENTICATION).property(Property::user("name", "value")),
        Auth::new(reason::RE_AUTHENTICATE).property(Property::AuthenticationData(vec![1])),
    ] {
        let mut client = client(&broker);
        client.send(auth);
        client.expect_disconnect(reason::PROTOCOL_ERROR);
    }
}

#[test]
fn ill_formed_auth_packets_are_malformed() {
    let broker = Broker::start();
    for bytes in [
        // Bytes after the properties, a property of another packet, a length beyond the end.
        &[0xF0, 0x07, 0x19, 0x04, 0x15, 0x00, 0x01, b'm', 0x00][..],
        &[0xF0, 0x05, 0x19, 0x03, 0x23, 0x00, 0x01],
        &[0xF0, 0x02, 0x19, 0x05],
    ] {
        let mut client = client(&broker);
        client.raw(bytes);
        client.expect_disconnect(reason::MALFORMED_PACKET);
    }
    let twice = Auth::new(reason::RE_AUTHENTICATE).property(method("m")).property(method("m"));
    let mut client = client(&broker);
    client.send(twice);
    client.expect_disconnect(reason::PROTOCOL_ERROR);
}

#[test]
fn mqtt_4_12_0_1_an_unknown_authentication_method_is_refused() {
    let broker = Broker::start();
    for name in ["SCRAM-SHA-1", "GS2-KRB5", ""] {
        let plain = Connect::v5("c").property(method(name));
        let with_data = plain.clone().property(Property::AuthenticationData(b"data".to_vec()));
        for connect in [plain, with_data] {
            let refused = Client::refused(&broker, connect, reason::BAD_AUTHENTICATION_METHOD);
            assert_eq!(property!(refused.properties, AuthenticationMethod), None);
        }
    }
}

#[test]
fn mqtt_4_12_0_6_without_a_method_the_server_sends_no_method_and_no_auth() {
    let broker = Broker::start();
    let connect = Connect::v5("c").username("user").password("password");
    let mut client = Client::connect(&broker, connect);
    assert_eq!(property!(client.connack.properties, AuthenticationMethod), None);
    assert_eq!(property!(client.connack.properties, AuthenticationData), None);
    client.expect_alive();
}

#[test]
fn mqtt_4_12_0_7_auth_without_a_method_in_connect_is_a_protocol_error() {
    let broker = Broker::start();
    for auth in [
        Auth::new(reason::SUCCESS).encode(V5),
        Auth::new(reason::SUCCESS).property(method("m")).encode(V5),
        Auth::new(reason::CONTINUE_AUTHENTICATION).property(method("m")).encode(V5),
        Auth::new(reason::RE_AUTHENTICATE).property(method("m")).encode(V5),
    ] {
        let mut client = client(&broker);
        client.raw(&auth);
        client.expect_disconnect(reason::PROTOCOL_ERROR);
    }
}

#[test]
fn authentication_data_without_a_method_is_a_protocol_error() {
    let broker = Broker::start();
    let connect = Connect::v5("c").property(Property::AuthenticationData(b"data".to_vec()));
    Client::refused(&broker, connect, reason::PROTOCOL_ERROR);
}

#[test]
fn auth_as_the_first_packet_closes_the_connection_without_connack() {
    let broker = Broker::start();
    let mut client = Client::open(&broker, V5);
    client.send(Auth::new(reason::CONTINUE_AUTHENTICATION).property(method("m")));
    client.expect_closed();
}

#[test]
fn packet_type_15_is_reserved_in_3_x() {
    for version in [V31, V311] {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.raw(&[0xF0, 0x00]);
        client.expect_closed();
    }
}

#[test]
fn a_refused_client_may_connect_again_without_the_method() {
    let broker = Broker::start();
    let connect = Connect::v5("c").property(method("m"));
    Client::refused(&broker, connect, reason::BAD_AUTHENTICATION_METHOD);
    let mut again = client(&broker);
    again.raw(&[0xC0, 0x00]);
    again.expect(Packet::Pingresp);
}

//! 4.10 and 4.11: request and response, and server redirection.

use crate::support::{
    Broker, Client, Connect, Disconnect, Packet, Property, Publish, V5, V311, property, reason,
};

fn response_information(broker: &Broker, ask: Option<u8>) -> Option<String> {
    let connect = Connect::v5("c");
    let connect = match ask {
        Some(ask) => connect.property(Property::RequestResponseInformation(ask)),
        None => connect,
    };
    let client = Client::connect(broker, connect);
    property!(client.connack.properties, ResponseInformation)
}

#[test]
fn a_request_carries_response_topic_and_correlation_data_to_the_responder_and_back() {
    let broker = Broker::start();
    let mut responder = Client::connect(&broker, Connect::v5("responder"));
    responder.subscribe("service", 1);
    let mut requester = Client::connect(&broker, Connect::v5("requester"));
    requester.subscribe("answers/requester", 1);
    for number in 0..3 {
        let request = Publish::new("service", "question")
            .qos(1, 1)
            .property(Property::ResponseTopic("answers/requester".into()))
            .property(Property::CorrelationData(vec![number, 0, 0xFF]));
        requester.publish(request);
        let request = responder.expect_message("question");
        let topic = property!(request.properties, ResponseTopic).expect("a Response Topic");
        let data = property!(request.properties, CorrelationData).expect("Correlation Data");
        assert_eq!(request.properties.len(), 2);
        let response =
            Publish::new(&topic, "answer").qos(1, 1).property(Property::CorrelationData(data));
        responder.publish(response);
        let response = requester.expect_message("answer");
        assert_eq!(response.properties, [Property::CorrelationData(vec![number, 0, 0xFF])]);
    }
}

#[test]
fn a_request_reaches_a_3_1_1_subscriber_without_its_properties() {
    let broker = Broker::start();
    let mut responder = Client::connect(&broker, Connect::v311("responder"));
    responder.subscribe("service", 0);
    let mut requester = Client::connect(&broker, Connect::v5("requester"));
    let topic = Property::ResponseTopic("answers".into());
    requester.publish(Publish::new("service", "question").property(topic));
    responder.expect(Publish::new("service", "question"));
}

#[test]
fn response_information_is_sent_to_a_client_that_requests_it() {
    let broker = Broker::with_config("[mqtt]\nresponse_information = \"answers/\"");
    assert_eq!(response_information(&broker, Some(1)).as_deref(), Some("answers/"));
}

#[test]
fn response_information_is_not_sent_without_a_request() {
    let broker = Broker::with_config("[mqtt]\nresponse_information = \"answers/\"");
    assert_eq!(response_information(&broker, Some(0)), None);
    assert_eq!(response_information(&broker, None), None);
}

#[test]
fn a_server_without_response_information_sends_none() {
    let broker = Broker::start();
    assert_eq!(response_information(&broker, Some(1)), None);
}

/// How a broker with this `redirect` refuses a client.
fn redirected(redirect: &str, reason: u8) {
    let broker = Broker::with_config(&format!(
        "[mqtt]\nredirect = \"{redirect}\"\nserver_reference = \"other.example:1883\""
    ));
    let connack = Client::refused(&broker, Connect::v5("c"), reason);
    let reference = property!(connack.properties, ServerReference);
    assert_eq!(reference.as_deref(), Some("other.example:1883"));
    // 3.1.1 has no redirection: the server is unavailable.
    let connack = Client::refused(&broker, Connect::v311("c"), reason::V3_SERVER_UNAVAILABLE);
    assert_eq!(connack.properties, []);
}

#[test]
fn a_temporary_redirection_is_sent_with_0x9c() {
    redirected("temporary", reason::USE_ANOTHER_SERVER);
}

#[test]
fn a_permanent_redirection_is_sent_with_0x9d() {
    redirected("permanent", reason::SERVER_MOVED);
}

#[test]
fn a_stopping_server_names_another_server_if_configured() {
    let broker = Broker::with_config("[mqtt]\nserver_reference = \"other.example:1883\"");
    let mut client = Client::connect(&broker, Connect::v5("c"));
    assert_eq!(property!(client.connack.properties, ServerReference), None);
    broker.stop();
    let disconnect = client.expect_disconnect(reason::USE_ANOTHER_SERVER);
    let reference = Property::ServerReference("other.example:1883".into());
    assert_eq!(disconnect.properties, [reference]);
}

#[test]
fn a_stopping_server_sends_disconnect() {
    let broker = Broker::with_config("");
    let mut new = Client::connect(&broker, Connect::new(V5, "new"));
    let mut old = Client::connect(&broker, Connect::new(V311, "old"));
    broker.stop();
    let expected = Disconnect::new().reason(reason::SERVER_SHUTTING_DOWN);
    assert_eq!(new.receive(), Packet::from(expected));
    new.expect_closed();
    old.expect_closed();
}

//! A node that is emptied, and sent away from.

use super::operators::{socket, status, told, wait_until};
use super::*;

/// "Use another server".
const USE_ANOTHER_SERVER: u8 = 0x9C;

/// Sessions without a client.
const SESSIONS: usize = 40;

fn is_ready(node: usize) -> bool {
    status(node).is_some_and(|status| status["ready"] == true)
}

#[test]
fn a_node_that_is_drained_sends_its_clients_and_their_sessions_to_the_others_and_loses_nothing() {
    let _alone = alone();
    let more = |node: usize| format!("[admin]\nlisten = [\"unix:{}\"]", socket(node).display());
    let addresses = [18_901, 18_902, 18_903].map(|port| format!("127.0.0.3:{port}"));
    let Some(nodes) = Nodes::start_advertised("drain", more, &addresses) else { return };
    (0..3).for_each(|node| wait_until("all nodes are ready", || is_ready(node)));
    let name = |number: usize| format!("away{number}");
    for number in 0..SESSIONS {
        let connect = Connect::v5(&name(number)).durable();
        let mut client = Client::connect(&nodes.brokers[0], connect);
        client.subscribe(&format!("to/{number}"), 1);
        client.disconnect();
    }
    let mut stays = Client::connect(&nodes.brokers[0], Connect::v5("stays"));
    let mut publisher = nodes.client(1, "publisher");
    for number in 0..SESSIONS {
        let topic = format!("to/{number}");
        publisher.publish(Publish::new(&topic, number.to_string()).qos(1, 1));
    }
    assert_eq!(told(0, &["ctl", "drain", "--wait"]).as_deref(), Some("draining\nempty\n"));
    let disconnect = format!("{:?}", stays.expect_disconnect(USE_ANOTHER_SERVER));
    assert!(addresses[1..].iter().any(|address| disconnect.contains(address)), "{disconnect}");
    let refused = Client::refused(&nodes.brokers[0], Connect::v5("late"), USE_ANOTHER_SERVER);
    let refused = format!("{refused:?}");
    assert!(addresses[1..].iter().any(|address| refused.contains(address)), "{refused}");
    let shown = told(0, &["ctl", "drain", "status"]).expect("an answer");
    assert!(shown.contains("sessions"), "{shown}");
    assert!(told(0, &["ctl", "health"]).is_none(), "load balancers send no clients");
    let members = status(1).expect("an answer")["members"].clone();
    assert!(members.to_string().contains("\"leaving\""), "{members}");
    for number in 0..SESSIONS {
        let connect = Connect::v5(&name(number)).durable();
        let mut client = Client::connect(&nodes.brokers[1 + number % 2], connect);
        assert!(client.connack.session_present, "{number}");
        client.expect_message(&number.to_string());
    }
    assert!(told(0, &["ctl", "drain", "--stop"]).is_some());
    wait_until("the node is ready again", || is_ready(0));
    drop(nodes);
    (0..3).for_each(|node| drop(std::fs::remove_file(socket(node))));
}

//! A node that is emptied, and sent away from.

use super::operators::{socket, status, told, wait_until};
use super::*;

/// "Use another server".
const USE_ANOTHER_SERVER: u8 = 0x9C;

/// Clients of a node before a rebalance.
const CLIENTS: usize = 30;

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
    assert!(told(1, &["cluster", "forget", "node0"]).is_none(), "it is a member");
    assert!(told(0, &["ctl", "drain", "--stop"]).is_some());
    wait_until("the node is ready again", || is_ready(0));
    drop(nodes);
    (0..3).for_each(|node| drop(std::fs::remove_file(socket(node))));
}

#[test]
fn a_node_with_more_clients_than_its_share_sends_some_to_the_others() {
    let _alone = alone();
    let more = |node: usize| format!("[admin]\nlisten = [\"unix:{}\"]", socket(node).display());
    let addresses = [18_901, 18_902, 18_903].map(|port| format!("127.0.0.3:{port}"));
    let Some(nodes) = Nodes::start_advertised("rebalance", more, &addresses) else { return };
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|number| nodes.client(0, &format!("client{number}"))).collect();
    let planned = || -> Option<serde_json::Value> {
        let told = told(0, &["ctl", "rebalance", "--dry-run", "--json"])?;
        serde_json::from_str(&told).ok()
    };
    let excess = 2 * CLIENTS as u64 / 3;
    wait_until("the nodes know how many clients the others have", || {
        (0..3).all(is_ready) && planned().is_some_and(|of| of["excess"] == excess)
    });
    // A plan ends no connection.
    clients.iter_mut().for_each(Client::expect_alive);
    assert!(told(0, &["ctl", "rebalance", "--rate", "1000"]).is_some());
    wait_until("the node has its share", || {
        planned().is_some_and(|of| of["clients"].as_u64().is_some_and(|left| left <= 12))
    });
    let sent_away = clients.iter_mut().filter_map(|client| {
        let packet = client.receive_within(Duration::from_millis(20))?;
        Some(format!("{packet:?}"))
    });
    let sent_away: Vec<String> = sent_away.collect();
    assert!(sent_away.len() >= CLIENTS - 12, "{sent_away:?}");
    for told in &sent_away {
        assert!(addresses[1..].iter().any(|address| told.contains(address)), "{told}");
    }
    assert!(is_ready(0), "clients may connect");
    drop(nodes);
    (0..3).for_each(|node| drop(std::fs::remove_file(socket(node))));
}

#[test]
fn a_node_that_is_asked_to_stop_is_emptied_before() {
    let _alone = alone();
    let more = |node: usize| format!("[admin]\nlisten = [\"unix:{}\"]", socket(node).display());
    let addresses = [18_901, 18_902, 18_903].map(|port| format!("127.0.0.3:{port}"));
    let Some(mut nodes) = Nodes::start_advertised("stop", more, &addresses) else { return };
    (0..3).for_each(|node| wait_until("all nodes are ready", || is_ready(node)));
    let connect = |number: usize| Connect::v5(&format!("away{number}")).durable();
    for number in 0..9 {
        let mut client = Client::connect(&nodes.brokers[0], connect(number));
        client.subscribe(&format!("to/{number}"), 1);
        client.disconnect();
    }
    let mut stays = nodes.client(0, "stays");
    nodes.brokers[0].stop();
    let disconnect = format!("{:?}", stays.expect_disconnect(USE_ANOTHER_SERVER));
    assert!(addresses[1..].iter().any(|address| disconnect.contains(address)), "{disconnect}");
    nodes.brokers[0].await_end();
    for number in 0..9 {
        let client = Client::connect(&nodes.brokers[1 + number % 2], connect(number));
        assert!(client.connack.session_present, "{number}");
    }
    drop(nodes);
    (0..3).for_each(|node| drop(std::fs::remove_file(socket(node))));
}

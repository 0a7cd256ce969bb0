//! Classes of filters: what the subscribers of a node need, and who waits for the node.

use shards::interest::Class;

use super::*;

impl Cluster {
    fn count(&mut self, (node, core, id): (usize, usize, ConnectionId), kind: &str) -> usize {
        let packets = self.world(node, core).packets(id, Version::V5);
        packets.iter().filter(|packet| packet.starts_with(kind)).count()
    }

    /// What a node has announced of a filter.
    fn class(&self, node: usize, filter: &str) -> Option<Class> {
        self.nodes[node].gateway.announced_class(filter)
    }
}

#[test]
fn a_puback_does_not_wait_for_a_stopped_node_that_has_qos_0_subscribers_only() {
    for (filter, cores) in [("a/b", 1), ("a/+", 1), ("a/b", 2), ("#", 2)] {
        let mut cluster = Cluster::new(3, cores);
        let subscriber = cluster.subscriber(2, 0, filter, Qos::AtMostOnce);
        let other = cluster.subscriber(1, 0, filter, Qos::AtLeastOnce);
        let publisher = cluster.connect(0, 0);
        cluster.loses = Box::new(|from, to| from == 2 || to == 2);
        cluster.world(0, 0).publish(publisher, "a/b", b"1", Qos::AtLeastOnce, 1);
        cluster.world(0, 0).publish(publisher, "a/b", b"2", Qos::ExactlyOnce, 2);
        cluster.settle();
        let packets = cluster.world(0, 0).packets(publisher, Version::V5).join("\n");
        assert!(packets.contains("Puback") && packets.contains("Pubrec"), "{filter}: {packets}");
        assert_eq!(cluster.payloads((1, 0, other)), ["1", "2"]);
        // The messages reach it once it runs again.
        cluster.loses = Box::new(|_, _| false);
        cluster.settle();
        assert_eq!(cluster.payloads((2, 0, subscriber)), ["1", "2"], "{filter}");
    }
}

#[test]
fn a_suback_at_qos_1_waits_until_all_nodes_know_that_they_have_to_wait() {
    for filter in ["a", "+"] {
        let mut cluster = Cluster::new(2, 2);
        cluster.subscriber(1, 0, filter, Qos::AtMostOnce);
        let publisher = cluster.connect(0, 0);
        let id = cluster.connect(1, 1);
        cluster.loses = Box::new(|_, _| true);
        cluster.world(1, 1).subscribe(id, filter, Qos::AtLeastOnce);
        cluster.settle();
        assert_eq!(cluster.count((1, 1, id), "Suback"), 0, "{filter}");
        cluster.loses = Box::new(|_, _| false);
        cluster.settle();
        assert_eq!(cluster.count((1, 1, id), "Suback"), 1, "{filter}");
        cluster.loses = Box::new(|from, _| from == 1);
        cluster.world(0, 0).publish(publisher, "a", b"1", Qos::AtLeastOnce, 1);
        cluster.settle();
        assert_eq!(cluster.count((0, 0, publisher), "Puback"), 0, "{filter}");
        cluster.loses = Box::new(|_, _| false);
        cluster.settle();
        assert_eq!(cluster.count((0, 0, publisher), "Puback"), 1, "{filter}");
    }
}

#[test]
fn a_node_is_not_waited_for_any_more_ten_seconds_after_its_last_subscriber_of_qos_1_has_left() {
    for filter in ["a", "+"] {
        let mut cluster = Cluster::new(2, 1);
        cluster.subscriber(1, 0, filter, Qos::AtMostOnce);
        let leaves = cluster.subscriber(1, 0, filter, Qos::AtLeastOnce);
        assert_eq!(cluster.class(1, filter), Some(Class::Acknowledged));
        cluster.world(1, 0).end(leaves);
        for _ in 0..4 {
            cluster.settle();
        }
        assert_eq!(cluster.class(1, filter), Some(Class::AtMostOnce));
        let publisher = cluster.connect(0, 0);
        cluster.loses = Box::new(|_, _| true);
        cluster.world(0, 0).publish(publisher, "a", b"1", Qos::AtLeastOnce, 1);
        cluster.settle();
        assert_eq!(cluster.count((0, 0, publisher), "Puback"), 1, "{filter}");
    }
}

#[test]
fn the_filters_of_a_session_that_is_kept_by_a_new_connect_are_announced_so_before_its_suback() {
    let mut cluster = Cluster::new(2, 1);
    let of = |a, b, c| [Some(a), Some(b), Some(c)];
    let classes = |cluster: &Cluster| ["a", "b/+", "c"].map(|filter| cluster.class(0, filter));
    let subscribe = |cluster: &mut Cluster, id| {
        let qos = [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::AtMostOnce];
        for (filter, qos) in ["a", "b/+", "c"].into_iter().zip(qos) {
            cluster.world(0, 0).subscribe(id, filter, qos);
        }
        cluster.settle_soon();
    };
    let (id, _) = cluster.enter((0, 0), &Client::v5("name"));
    subscribe(&mut cluster, id);
    cluster.settle();
    let not_kept = of(Class::Acknowledged, Class::Acknowledged, Class::AtMostOnce);
    assert_eq!(classes(&cluster), not_kept);
    let (id, _) = cluster.enter((0, 0), &Client::persistent("name"));
    cluster.loses = Box::new(|_, _| true);
    subscribe(&mut cluster, id);
    assert_eq!(classes(&cluster), of(Class::Stored, Class::Stored, Class::AtMostOnce));
    cluster.settle();
    let packets = cluster.world(0, 0).packets(id, Version::V5).join("\n");
    assert_eq!(packets.matches("Suback").count(), 0, "the other node does not know: {packets}");
    cluster.loses = Box::new(|_, _| false);
    cluster.settle();
    assert_eq!(cluster.count((0, 0, id), "Suback"), 3);
    // It comes back, and subscribes once more.
    let (id, _) = cluster.enter((0, 0), &Client::persistent("name"));
    subscribe(&mut cluster, id);
    cluster.settle();
    assert_eq!(classes(&cluster), of(Class::Stored, Class::Stored, Class::AtMostOnce));
}

#[test]
fn a_filter_of_another_node_takes_at_most_24_bytes_of_a_process_with_16_cores() {
    let mut cluster = Cluster::apart(2, 1);
    cluster.nodes[1] = Cluster::node(1, 16);
    cluster.join(0, 1, 1);
    cluster.join(1, 0, 1);
    cluster.settle();
    let held = |cluster: &Cluster| {
        let place = &cluster.nodes[1].place;
        place.memory_bytes_elsewhere() + place.ledger().bytes()
    };
    let before = held(&cluster);
    let filters = 60_000;
    for client in 0..filters / 5_000 {
        let id = cluster.connect(0, 0);
        for number in 0..5_000 {
            let filter = format!("device/{client}/{number}/command");
            cluster.world(0, 0).subscribe(id, &filter, Qos::AtLeastOnce);
        }
        cluster.settle();
    }
    let bytes = held(&cluster) - before;
    assert!(bytes > 8 * filters, "{bytes} bytes: they are counted");
    assert!(bytes <= 24 * filters, "{bytes} bytes for {filters} filters");
    // A node that leaves takes them with it.
    cluster.leave(1, 0);
    cluster.settle();
    let left = held(&cluster).saturating_sub(before);
    assert!(left < bytes / 8, "{left} of {bytes} bytes are left");
}

#[test]
fn a_node_that_leaves_and_comes_back_has_the_subscribers_that_it_has_then() {
    for filter in ["a", "+"] {
        let mut cluster = Cluster::new(2, 2);
        let subscriber = cluster.subscriber(1, 1, filter, Qos::AtLeastOnce);
        let publisher = cluster.connect(0, 1);
        let publish = |cluster: &mut Cluster, number: u16| {
            let payload = number.to_string();
            cluster.world(0, 1).publish(
                publisher,
                "a",
                payload.as_bytes(),
                Qos::AtLeastOnce,
                number,
            );
            cluster.settle();
            let packets = cluster.world(0, 1).packets(publisher, Version::V5).join("\n");
            (packets.contains("Puback"), packets.contains("NoMatchingSubscribers"))
        };
        assert_eq!(publish(&mut cluster, 1), (true, false), "{filter}");
        cluster.leave(0, 1);
        cluster.leave(1, 0);
        cluster.settle();
        assert_eq!(publish(&mut cluster, 2), (true, true), "{filter}");
        cluster.nodes[1].gateway.begin(NodeId(1), 2);
        cluster.join(0, 1, 2);
        cluster.join(1, 0, 1);
        cluster.settle();
        assert_eq!(publish(&mut cluster, 3), (true, false), "{filter}");
        assert_eq!(cluster.payloads((1, 1, subscriber)), ["1", "3"], "{filter}");
    }
}

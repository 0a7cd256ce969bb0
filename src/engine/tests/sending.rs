//! The order in which connections are sent to.

use super::*;

#[test]
fn connections_are_sent_to_in_the_order_of_their_frames_and_subscribers_before_their_publisher() {
    let mut world = World::new();
    let [early, late, publisher] = ["e", "l", "p"].map(|name| world.connect(&Client::v5(name)));
    world.subscribe(early, "early", Qos::AtMostOnce);
    world.subscribe(late, "late", Qos::AtMostOnce);
    // Two messages in one turn.
    let mut bytes = Vec::new();
    for (topic, number) in [("early", 1), ("late", 2)] {
        let publish = publish(topic, b"x", Qos::AtLeastOnce, number);
        Packet::Publish(publish).encode(Version::V5, &mut bytes);
    }
    world.engine.handle_received(world.now, publisher, &bytes);
    let sent: Vec<ConnectionId> = std::iter::from_fn(|| world.engine.poll_action())
        .map(|action| match action {
            Action::Send { connection, .. } => connection,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, [early, publisher, late]);
}

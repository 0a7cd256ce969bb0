//! The queue of a bridge with bounds of its own.

use std::time::Duration;

use crate::far::{Far, Peer};
use crate::support::{Ack, Broker, Client, Connect, Publish};
use crate::{SETUPS, Site, at_once, logged, numbers};

const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";

/// A broker whose bridge has such a queue and no far broker yet, with such limits of all sessions.
fn waiting(setup: &str, far: &Far, queue: &str, limits: &str) -> Broker {
    let near = Site::new(setup)
        .with(&format!("[limits]\n{limits}"))
        .bridge("far", far.address, &format!("{OUT}[bridges.queue]\n{queue}"))
        .start();
    fails(far, &near);
    near
}

/// Ends a connection of the bridge: its session exists then, with its bounds.
fn fails(far: &Far, near: &Broker) {
    drop(far.accept());
    logged(near, "\"bridge is not connected\"", 1);
}

/// The payloads of what comes to the far broker until `end` comes.
fn arrives(far: &Far) -> Vec<String> {
    far.discard();
    until_end(&mut far.serve(false, &[]))
}

/// The payloads of what comes on a connection until `end` comes.
fn until_end(peer: &mut Peer) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let got = peer.publish();
        if got.qos > 0 {
            peer.send(Ack::puback(got.id()));
        }
        if got.text() == "end" {
            return texts;
        }
        texts.push(got.text().to_owned());
    }
}

fn publish_all(near: &Broker, qos: u8, count: u16) {
    let mut client = Client::connect(near, Connect::v5("publisher"));
    for number in 0..count {
        let publish = Publish::new("t/1", number.to_string());
        match qos {
            0 => client.send(publish),
            _ => client.publish(publish.qos(qos, number + 1)),
        }
    }
    // Everything before it has been routed.
    client.publish(Publish::new("t/end", "end").qos(1, 1));
}

#[test]
fn the_queue_of_a_bridge_has_its_own_bounds_and_its_own_policy() {
    for (queue, limits, expected) in [
        ("messages_max = 6\npolicy = \"drop-oldest\"", "", 15..20),
        ("messages_max = 6\npolicy = \"drop-oldest\"", "queue_policy = \"keep-latest\"", 15..20),
        ("messages_max = 1000", "queue_messages_max = 5", 0..20),
    ] {
        at_once(SETUPS.iter().copied(), |setup| {
            let far = Far::new();
            let near = waiting(setup, &far, queue, limits);
            publish_all(&near, 1, 20);
            assert_eq!(arrives(&far), numbers(expected.clone()), "{setup}: {queue}");
        });
    }
}

#[test]
fn the_own_bounds_of_a_queue_hold_again_after_a_restart() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let rules = format!("{OUT}[bridges.queue]\nmessages_max = 6\npolicy = \"drop-oldest\"");
        let near = Site::new(setup).with_store().bridge("far", far.address, &rules);
        let running = near.start();
        fails(&far, &running);
        publish_all(&running, 1, 10);
        drop(running); // SIGKILL
        far.forget();
        let running = near.start();
        fails(&far, &running);
        publish_all(&running, 1, 20);
        let mut peer = far.serve(false, &[]);
        // What waited before the restart was in flight, and not in the queue, once the session was open.
        assert_eq!(until_end(&mut peer), numbers(5..10), "{setup}");
        assert_eq!(until_end(&mut peer), numbers(15..20), "{setup}");
    });
}

#[test]
fn qos_0_is_queued_for_a_bridge_as_its_own_setting_says() {
    for (queue, limits, expected) in [
        ("qos0 = \"queue\"", "", 0..20),
        ("qos0 = \"drop\"", "queue_qos0 = true", 0..0),
        ("messages_max = 1000", "", 0..0),
    ] {
        at_once(SETUPS.iter().copied(), |setup| {
            let far = Far::new();
            let near = waiting(setup, &far, queue, limits);
            publish_all(&near, 0, 20);
            assert_eq!(arrives(&far), numbers(expected.clone()), "{setup}: {queue}");
        });
    }
}

#[test]
fn what_has_waited_too_long_does_not_go_out() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Far::new();
        let near = waiting(setup, &far, "expiry_s = 1", "");
        publish_all(&near, 1, 5);
        std::thread::sleep(Duration::from_millis(2_500));
        let mut client = Client::connect(&near, Connect::v5("later"));
        client.publish(Publish::new("t/1", "new").qos(1, 1));
        far.discard();
        let mut peer = far.serve(false, &[]);
        assert_eq!(peer.publish().text(), "new", "{setup}");
    });
}

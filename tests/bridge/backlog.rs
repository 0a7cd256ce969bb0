//! How fast a queue is sent after an outage, and publishers that wait for room in it.

use std::time::{Duration, Instant};

use crate::far::{Far, Peer};
use crate::support::{Ack, Broker, Client, Connect, Publish};
use crate::{SETUPS, Site, at_once, logged, wait_until};

const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";

/// Acknowledges messages until one with this payload; how many there were.
fn take_until(peer: &mut Peer, last: &str) -> usize {
    let mut count = 0;
    loop {
        let got = peer.publish();
        peer.send(Ack::puback(got.id()));
        count += 1;
        if got.text() == last {
            return count;
        }
    }
}

/// A broker whose bridge has lost its connection, with these keys of its queue, and the far end.
fn in_outage(setup: &str, queue: &str) -> (Far, Broker) {
    let far = Far::new();
    let keys = format!("{OUT}[bridges.queue]\n{queue}");
    let near = Site::new(setup).bridge("far", far.address, &keys).start();
    drop(far.accept());
    logged(&near, "\"bridge is not connected\"", 1);
    (far, near)
}

#[test]
fn a_queue_is_sent_after_an_outage_no_faster_than_its_bound_and_faster_again_then() {
    at_once(SETUPS.iter().copied(), |setup| {
        let (far, near) = in_outage(setup, "backfill_per_second_max = 20\n");
        let mut client = Client::connect(&near, Connect::v5("publisher"));
        for number in 1..=50 {
            client.publish(Publish::new("t/1", number.to_string()).qos(1, number));
        }
        far.discard();
        let mut peer = far.serve(false, &[]);
        let begin = Instant::now();
        assert_eq!(take_until(&mut peer, "50"), 50, "{setup}");
        // 2 at once, and then 20 in each second.
        let least = Duration::from_millis(48 * 1_000 / 20 - 100);
        assert!(begin.elapsed() >= least, "{setup}: {:?}", begin.elapsed());
        for number in 51..=1_000 {
            client.publish(Publish::new("t/1", number.to_string()).qos(1, number));
        }
        // At 20 a second, these would take 47 s.
        let begin = Instant::now();
        assert_eq!(take_until(&mut peer, "1000"), 950, "{setup}");
        assert!(begin.elapsed() < Duration::from_secs(40), "{setup}: {:?}", begin.elapsed());
    });
}

#[test]
fn publishers_wait_for_room_in_the_queue_of_a_bridge_that_holds_them_and_nothing_is_dropped() {
    at_once(SETUPS.iter().copied(), |setup| {
        let (far, near) = in_outage(setup, "messages_max = 40\nholds_publishers = true\n");
        let (sent, acknowledged) = flume::unbounded();
        let publisher = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = Client::connect(&near, Connect::v5("publisher"));
                for number in 1..=200 {
                    client.publish(Publish::new("t/1", number.to_string()).qos(1, number));
                    sent.send(number).expect("the test goes on");
                }
            });
            wait_until("three quarters are queued", || acknowledged.len() >= 30);
            // Other clients are served meanwhile, and messages of other topics pass.
            let mut other = Client::connect(&near, Connect::v5("other"));
            for number in 1..=100 {
                other.publish(Publish::new("other", "x").qos(1, number));
            }
            assert!(acknowledged.len() < 40, "{setup}: {} were taken", acknowledged.len());
            far.discard();
            let mut peer = far.serve(false, &[]);
            take_until(&mut peer, "200")
        });
        assert_eq!(publisher, 200, "{setup}: each came once");
        assert_eq!(acknowledged.len(), 200, "{setup}");
    });
}

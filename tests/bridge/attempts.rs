//! Which server a bridge connects to, and whether it does so again.

use crate::far::{Far, Packet};
use crate::support::Publish;
use crate::{ONE_SETUP, Site, Witness, free_address, logged, publish};

const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";

/// A bridge to two far brokers. It connects to the first one; the result says to which one it connects after the end of
/// that connection, and of the one after it.
fn servers_after_an_end(keys: &str) -> [usize; 2] {
    let far = [Far::new(), Far::new()];
    let [first, second] = far.each_ref().map(|far| format!("mqtt://{}", far.address));
    let table = format!(
        "[[bridges]]\nname = \"far\"\nservers = [{first:?}, {second:?}]\n{keys}\n\
         reconnect = {{ first_ms = 50, most_s = 1, stable_s = 0 }}\n{OUT}"
    );
    let _near = Site::new(ONE_SETUP).with(&table).start();
    far[0].discard();
    drop(far[0].serve(true, &[]));
    [(); 2].map(|()| {
        let (server, mut peer) = Far::accept_one_of(&far);
        peer.connack(true, &[]);
        server
    })
}

#[test]
fn a_bridge_tries_the_first_server_again_or_the_next_one() {
    assert_eq!(servers_after_an_end(""), [0, 0]);
    assert_eq!(servers_after_an_end("prefer = \"any\""), [1, 0]);
}

/// The table of a bridge to these servers.
fn table(servers: &[String]) -> String {
    format!(
        "[[bridges]]\nname = \"far\"\nservers = {servers:?}\n\
         reconnect = {{ first_ms = 50, most_s = 1, stable_s = 0 }}\n{OUT}"
    )
}

#[test]
fn a_bridge_goes_back_to_its_first_server_once_it_is_there_again() {
    let first = free_address();
    let second = Far::new();
    let servers = [first, second.address].map(|address| format!("mqtt://{address}"));
    let near = Site::new(ONE_SETUP).with(&table(&servers)).start();
    second.discard();
    let mut peer = second.serve(false, &[]);
    let back = Site::at(first).start();
    assert_eq!(peer.next(), Some(Packet::Disconnect), "its session stays there");
    let mut there = Witness::at(&back, "t/#");
    logged(&near, "the first server is there again", 1);
    publish(&near, Publish::new("t", "1").qos(1, 1));
    assert_eq!(there.texts(1), ["1"]);
}

#[test]
fn a_first_server_that_refuses_the_bridge_does_not_keep_it_from_the_others() {
    let far = [Far::new(), Far::new()];
    let servers = far.each_ref().map(|far| format!("mqtt://{}", far.address));
    let near = Site::new(ONE_SETUP).with(&table(&servers)).start();
    // Not authorized.
    let (mut refused, _) = far[0].accept();
    refused.raw(&[0x20, 3, 0, 0x87, 0]);
    far[1].discard();
    let mut peer = far[1].serve(false, &[]);
    publish(&near, Publish::new("t", "1").qos(1, 1));
    assert_eq!(peer.publish().text(), "1");
}

#[cfg(feature = "admin")]
#[test]
fn a_bridge_that_connects_once_stays_away_after_the_end_until_it_is_started() {
    use crate::commands::Near;
    use crate::{SETUPS, at_once};
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Site::new(setup);
        let keys = format!("start = \"once\"\n{OUT}");
        let near = Near::start(Site::new(setup).bridge("far", far.address, &keys));
        // The far broker was not there.
        near.is_in_state("stopped");
        assert!(near.shown()["last_error"].as_str().is_some_and(|why| why.contains("refused")));
        let first = far.start();
        let mut there = Witness::at(&first, "t/#");
        publish(&near.broker, Publish::new("t", "1").qos(1, 1));
        near.does("bridge start far");
        assert_eq!(there.texts(1), ["1"], "{setup}");
        drop((first, there));
        near.is_in_state("stopped");
        let second = far.start();
        let mut there = Witness::at(&second, "t/#");
        publish(&near.broker, Publish::new("t", "2").qos(1, 1));
        assert_eq!(near.shown()["state"], "stopped", "{setup}");
        near.does("bridge start far");
        // The end may have come before the acknowledgement of the first message, which is sent again then.
        let before = there.texts_before("2");
        assert!(before.iter().all(|text| text == "1"), "{setup}: {before:?}");
    });
}

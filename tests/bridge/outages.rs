//! Far brokers that are not there for a while.

use std::time::{Duration, Instant};

use crate::support::{Client, Connect, Property, Publish};
use crate::{PATIENCE, SETUPS, Site, Witness, at_once, connected, flows, logged, numbers, publish};

const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";
const BOTH: &str = "[[bridges.out]]\nfilter = \"t/#\"\n[[bridges.in]]\nfilter = \"cmd/#\"\n";

#[test]
fn a_bridge_connects_once_the_far_broker_is_there() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Site::new(setup);
        let near = Site::new(setup).bridge("far", far.address, BOTH);
        let near = near.start();
        logged(&near, "\"bridge is not connected\"", 2);
        let far = far.start();
        connected(&near, 1);
        flows(&far, "cmd/probe", &near, "cmd/probe");
        let (mut there, mut here) = (Witness::at(&far, "t/#"), Witness::at(&near, "cmd/#"));
        publish(&near, Publish::new("t/1", "out").qos(1, 1));
        assert_eq!(there.texts(1), ["out"], "{setup}");
        publish(&far, Publish::new("cmd/1", "in").qos(1, 1));
        assert_eq!(here.texts(1), ["in"], "{setup}");
    });
}

#[test]
fn the_next_server_is_tried_when_the_first_one_is_not_there() {
    let setup = crate::ONE_SETUP;
    let far = Site::new(setup);
    let tables = format!(
        "[[bridges]]\nname = \"far\"\nservers = [\"mqtt://{}\", \"mqtt://{}\"]\n{OUT}",
        crate::free_address(),
        far.address
    );
    let near = Site::new(setup).with(&tables);
    let (far, near) = (far.start(), near.start());
    connected(&near, 1);
    let mut there = Witness::at(&far, "t/#");
    publish(&near, Publish::new("t", "x").qos(1, 1));
    assert_eq!(there.texts(1), ["x"]);
}

/// A client whose session outlasts restarts.
fn kept() -> Connect {
    Connect::v5("kept").resume().expiry(3_600)
}

#[test]
fn what_was_published_while_the_far_broker_was_down_arrives_in_order_and_qos_2_once() {
    const COUNT: u16 = 40;
    at_once(crate::versions(&["3.1.1"]), |(version, setup)| {
        let rules = format!("version = {version:?}\n{OUT}");
        let far = Site::new(setup).with_store();
        let near = Site::new(setup).with_store().bridge("far", far.address, &rules);
        let there = far.start();
        drop(Witness::of(&there, kept(), "t/#"));
        drop(there); // SIGKILL
        let publish_all = |client: &mut Client, range: std::ops::Range<u16>| {
            // `publish` waits for the acknowledgement, although the far broker was never there.
            for number in range {
                let text = number.to_string();
                client.publish(Publish::new("t/1", &text).qos(1, number + 1));
                client.publish(Publish::new("t/2", &text).qos(2, number + 1));
            }
        };
        let running = near.start();
        logged(&running, "\"bridge is not connected\"", 1);
        let mut client = Client::connect(&running, Connect::v5("publisher"));
        publish_all(&mut client, 0..COUNT);
        drop(running); // SIGKILL
        let running = near.start();
        let mut client = Client::connect(&running, Connect::v5("publisher"));
        publish_all(&mut client, COUNT..2 * COUNT);
        let far = far.start();
        let mut there = Witness::of(&far, kept(), "t/#");
        client.publish(Publish::new("t/3", "end").qos(2, 1));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        loop {
            let got = there.next();
            match &*got.topic {
                "t/1" => first.push(got.text().to_owned()),
                "t/2" => second.push(got.text().to_owned()),
                _ => break,
            }
        }
        assert_eq!(second, numbers(0..2 * COUNT), "{setup} {version}");
        first.dedup();
        assert_eq!(first, numbers(0..2 * COUNT), "{setup} {version}");
    });
}

#[test]
fn what_was_published_at_the_far_broker_while_this_one_was_down_comes_in_once() {
    const COUNT: u16 = 40;
    at_once(crate::versions(&["3.1.1"]), |(version, setup)| {
        let rules = format!("version = {version:?}\n{BOTH}");
        let far = Site::new(setup).with_store();
        let near = Site::new(setup).with_store().bridge("far", far.address, &rules);
        let (far, running) = (far.start(), near.start());
        connected(&running, 1);
        flows(&far, "cmd/probe", &running, "cmd/probe");
        let mut here = Witness::of(&running, kept(), "cmd/#");
        publish(&far, Publish::new("cmd/1", "first").qos(2, 1));
        assert_eq!(here.texts(1), ["first"]);
        drop((here, running)); // SIGKILL
        let mut client = Client::connect(&far, Connect::v5("publisher"));
        for number in 0..COUNT {
            let text = number.to_string();
            client.publish(Publish::new("cmd/1", text).qos(2, number + 1));
        }
        let running = near.start();
        let mut here = Witness::of(&running, kept(), "cmd/#");
        client.publish(Publish::new("cmd/1", "end").qos(2, 1));
        let mut texts = here.texts_before("end");
        // The witness was killed before it could complete this exchange.
        texts.retain(|text| text != "first");
        assert_eq!(texts, numbers(0..COUNT), "{setup} {version}");
    });
}

#[test]
fn a_message_that_expires_while_the_far_broker_is_down_does_not_go_out() {
    let setup = crate::ONE_SETUP;
    let far = Site::new(setup);
    let near = Site::new(setup).bridge("far", far.address, OUT).start();
    logged(&near, "\"bridge is not connected\"", 1);
    let mut client = Client::connect(&near, Connect::v5("publisher"));
    let soon = Publish::new("t", "soon over").property(Property::MessageExpiryInterval(1));
    client.publish(soon.qos(1, 1));
    client.publish(Publish::new("t", "stays").qos(1, 2));
    std::thread::sleep(Duration::from_millis(2_500));
    let far = far.start();
    connected(&near, 1);
    let mut there = Witness::at(&far, "t/#");
    client.publish(Publish::new("t", "end").qos(1, 3));
    let texts = there.texts_before("end");
    assert!(!texts.contains(&"soon over".to_owned()), "{texts:?}");
}

#[test]
fn a_far_broker_that_is_down_changes_nothing_for_local_clients_and_the_queue_is_bounded() {
    const COUNT: u16 = 400;
    const QUEUE: u16 = 100;
    at_once(SETUPS.iter().copied(), |setup| {
        let far = Site::new(setup).with_store();
        let there = far.start();
        drop(Witness::of(&there, kept(), "t/#"));
        drop(there); // SIGKILL
        let near = Site::new(setup)
            .with(&format!("[limits]\nqueue_messages_max = {QUEUE}"))
            .bridge("far", far.address, OUT)
            .start();
        logged(&near, "\"bridge is not connected\"", 1);
        let mut here = Witness::at(&near, "t/#");
        let mut client = Client::connect(&near, Connect::v5("publisher"));
        let begin = Instant::now();
        for number in 0..COUNT {
            client.send(Publish::new("t/0", number.to_string()));
            client.publish(Publish::new("t/1", number.to_string()).qos(1, number + 1));
            assert_eq!(here.texts(2), [number.to_string(), number.to_string()], "{setup}");
        }
        assert!(begin.elapsed() < PATIENCE, "{setup}");
        let far = far.start();
        let mut there = Witness::of(&far, kept(), "t/#");
        let first = there.next();
        assert_eq!((&*first.topic, first.text()), ("t/1", "0"), "{setup}: the newest are dropped");
        let (mut count, mut is_over) = (1, false);
        while !is_over {
            // Dropped, too, while the queue is full.
            client.publish(Publish::new("t/2", "end").qos(1, 1));
            let came = there.until_quiet();
            count += came.iter().filter(|of| of.text() != "end").count();
            is_over = came.iter().any(|of| of.text() == "end");
        }
        assert!(count <= usize::from(QUEUE), "{setup}: {count} were queued");
    });
}

/// Messages that wait over a restart, unless the environment says otherwise.
const QUEUED: u32 = 3_000;

/// Messages that the publisher has in flight.
const IN_FLIGHT: u32 = 500;

/// `RINGMQ_TEST_BRIDGE_QUEUED=1000000 cargo test --test bridge long_queue -- --nocapture` says how long that takes.
#[test]
fn a_long_queue_outlasts_a_restart_and_arrives_in_order_and_once() {
    let of_environment = std::env::var("RINGMQ_TEST_BRIDGE_QUEUED").ok();
    let count: u32 = of_environment.and_then(|of| of.parse().ok()).unwrap_or(QUEUED);
    let setup = "mode = \"auto\"\ncores = 1";
    let far = Site::new(setup).with_store();
    let there = far.start();
    drop(Witness::of(&there, kept(), "t/#"));
    drop(there); // SIGKILL
    let queue = "[bridges.queue]\nmessages_max = 2000000\nbytes_max = 2000000000\n";
    let near = Site::new(setup).with_store().bridge("far", far.address, &format!("{OUT}{queue}"));
    let running = near.start();
    logged(&running, "\"bridge is not connected\"", 1);
    let begin = Instant::now();
    let mut client = Client::connect(&running, Connect::v5("publisher"));
    for first in (0..count).step_by(IN_FLIGHT as usize) {
        let last = count.min(first + IN_FLIGHT);
        for number in first..last {
            let identifier = (number - first + 1) as u16;
            client.send(Publish::new("t/1", format!("{number:>64}")).qos(1, identifier));
        }
        for _ in first..last {
            client.expect_ack();
        }
    }
    println!("{count} messages published in {:.1} s", begin.elapsed().as_secs_f64());
    drop(running); // SIGKILL
    let begin = Instant::now();
    let _running = near.start();
    println!("restarted in {:.1} s", begin.elapsed().as_secs_f64());
    let there = far.start();
    let mut witness = Witness::of(&there, kept(), "t/#");
    let begin = Instant::now();
    for number in 0..count {
        assert_eq!(witness.next().text().trim(), number.to_string());
    }
    println!("sent in {:.1} s", begin.elapsed().as_secs_f64());
}

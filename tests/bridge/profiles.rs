//! Profiles: what the far broker is told, and tokens that end.

use std::time::Duration;

use crate::support::Broker;
use crate::{ONE_SETUP, SETUPS, Site, Witness, at_once, bridge, connected, wait_until};

const RULES: &str =
    "client_identifier = \"plant\"\nprofile = \"mosquitto\"\n[[bridges.out]]\nfilter = \"t/#\"\n";
const STATE: &str = "$SYS/broker/connection/plant/state";

/// Waits for a retained state.
#[track_caller]
fn has_state(broker: &Broker, state: &str) {
    has_state_at(broker, STATE, state);
}

/// The same on this topic.
#[track_caller]
fn has_state_at(broker: &Broker, topic: &str, state: &str) {
    let mut witness = Witness::at(broker, topic);
    let until = std::time::Instant::now() + crate::PATIENCE;
    while witness.within(Duration::from_millis(100)).is_none_or(|of| of.text() != state) {
        assert!(std::time::Instant::now() < until, "the state is not {state}");
    }
}

#[test]
fn with_the_profile_of_mosquitto_both_brokers_know_whether_the_bridge_is_connected() {
    at_once(
        ["5", "3.1.1"].into_iter().flat_map(|of| SETUPS.iter().map(move |at| (of, *at))),
        |(version, setup)| {
            let far_site = Site::new(setup);
            let rules = format!("version = {version:?}\n{RULES}");
            let near_site = Site::new(setup).bridge("far", far_site.address, &rules);
            let mut near = near_site.start();
            has_state(&near, "0");
            let mut far = far_site.start();
            connected(&near, 1);
            has_state(&far, "1");
            has_state(&near, "1");
            // Killed: the Will says it. Stopped: the bridge itself.
            for signal in ["-KILL", "-TERM"] {
                near.signal(signal);
                near.await_end();
                has_state(&far, "0");
                near = near_site.start();
                connected(&near, 1);
                has_state(&far, "1");
            }
            far.signal("-KILL");
            far.await_end();
            has_state(&near, "0");
        },
    );
}

#[test]
fn a_bridge_with_the_profile_of_mosquitto_that_a_reload_ends_is_not_connected_there_and_unknown_here()
 {
    let far_site = Site::new(ONE_SETUP);
    let site = Site::new(ONE_SETUP);
    let near = site.start_with(&bridge("far", far_site.address, RULES));
    let far = far_site.start();
    connected(&near, 1);
    has_state(&far, "1");
    has_state(&near, "1");
    near.reconfigure(&site.text(""));
    has_state(&far, "0");
    wait_until("no state here", || {
        Witness::at(&near, STATE).within(Duration::from_millis(200)).is_none()
    });
}

#[test]
fn a_bridge_says_whether_it_is_connected_on_the_topic_that_it_is_told() {
    let far_site = Site::new(ONE_SETUP);
    let rules = format!("notification_topic = \"bridges/plant\"\n{RULES}");
    let near_site = Site::new(ONE_SETUP).bridge("far", far_site.address, &rules);
    let mut near = near_site.start();
    has_state_at(&near, "bridges/plant", "0");
    let far = far_site.start();
    for broker in [&near, &far] {
        has_state_at(broker, "bridges/plant", "1");
        assert!(Witness::at(broker, STATE).within(Duration::from_millis(200)).is_none());
    }
    near.signal("-KILL");
    near.await_end();
    has_state_at(&far, "bridges/plant", "0");
}

#[test]
fn with_the_profile_of_mosquitto_mosquitto_knows_whether_the_bridge_is_connected() {
    let Some(mosquitto) = crate::mosquitto::started() else { return };
    let far = mosquitto.broker();
    let near_site = Site::new(ONE_SETUP).bridge("far", far.address(), RULES);
    let mut near = near_site.start();
    connected(&near, 1);
    has_state(&far, "1");
    near.signal("-KILL");
    near.await_end();
    has_state(&far, "0");
}

#[cfg(all(feature = "tls", feature = "websocket"))]
#[test]
fn a_connection_to_azure_is_made_anew_two_minutes_before_its_token_ends() {
    use std::time::{SystemTime, UNIX_EPOCH};

    use crate::support::Publish;
    use crate::{logged, publish};

    let far = crate::ways::Far::start(ONE_SETUP);
    let user = "hub/dev/?api-version=2021-04-12";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let token = |end: u64| format!("SharedAccessSignature sr=hub&sig=s&se={end}\n");
    let file = far.folder.write("token", &token(now - 1));
    let (server, tls) = &far.ways()[1];
    let near = Site::new(ONE_SETUP)
        .with(&format!(
            "[[bridges]]\nname = \"b\"\nprofile = \"azure-iot-hub\"\nservers = [{server:?}]\n\
             username = {user:?}\npassword_file = {file:?}\n\
             reconnect = {{ first_ms = 50, most_s = 1, stable_s = 0 }}\n{tls}\
             [[bridges.out]]\nfilter = \"t/#\"\nremote_prefix = \"devices/dev/messages/events/\"\n\
             [[bridges.in]]\nfilter = \"devices/dev/messages/devicebound/#\""
        ))
        .start();
    logged(&near, "the SAS token has ended", 1);
    assert!(!near.log().contains("sig=s"), "no token is in the log");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    far.folder.write("token", &token(now + 125));
    connected(&near, 1);
    far.folder.write("token", &token(now + 3_600));
    logged(&near, "is about to end", 1);
    connected(&near, 2);
    let mut there = Witness::at(&far.broker, "devices/#");
    publish(&near, Publish::new("t/1", "x").qos(2, 1));
    let got = there.next();
    assert_eq!((&*got.topic, got.qos), ("devices/dev/messages/events/t/1", 1));
}

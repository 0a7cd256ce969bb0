//! The log as messages.

use super::*;
use crate::base::log_topics::LogMessage;

#[test]
fn lines_of_the_log_are_messages_of_their_kind_for_clients_on_every_core() {
    let mut cores = super::cores::Cores::new(2);
    let [here, there] = [cores.connect(0), cores.connect(1)];
    for (core, id, filter) in [(0, here, "$SYS/broker/log/W"), (1, there, "$SYS/broker/log/#")] {
        cores.0[core].subscribe(id, filter, Qos::AtMostOnce);
        cores.settle();
    }
    let line = |kind, text: &str| LogMessage { kind, text: text.to_owned() };
    let world = &mut cores.0[0];
    world.engine.publish_log_lines(&[line('I', "first"), line('W', "Warning: second")]);
    world.settle();
    cores.settle();
    assert_eq!(cores.0[0].payloads(here), ["Warning: second"]);
    assert_eq!(cores.0[1].payloads(there), ["first", "Warning: second"]);
    // They are not retained.
    let late = cores.connect(0);
    cores.0[0].subscribe(late, "$SYS/broker/log/#", Qos::AtMostOnce);
    assert!(cores.0[0].payloads(late).is_empty());
}

#[test]
fn nobody_looks_for_lines_unless_the_log_goes_to_topics() {
    let next = |topics: bool| {
        let mut world = World::with(|settings| settings.log.topics = topics, Box::new(AllowAll));
        world.engine.poll_timeout()
    };
    assert!(next(false).is_none() && next(true).is_some());
}

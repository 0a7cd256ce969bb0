//! The path of a message: the brokers that it has passed over bridges, in a User Property.
//!
//! A broker adds its identifier to a message that comes in over a bridge, and again when it leaves over one of MQTT 5.0.
//! It takes in no message that has the identifier already, and lets none leave that has come back: one in which the
//! identifier is anywhere but at the end. So a loop of bridges of any shape ends after one round, also where only one
//! of the two directions is bridged, or where a message comes back by an ordinary client's connection, as which each far
//! broker sees a bridge.

use crate::config::bridge::PATH_PROPERTY;
use crate::wire::UserProperties;

/// Name of the User Property.
const NAME: &str = PATH_PROPERTY;
/// Name of the User Property with the name of the bridge over which a message has come in, if the bridge has several
/// sessions here: what one of them has published is not for another. It never leaves this broker over a bridge.
const GROUP: &str = "ringmq-bridge";

/// The path of a message; empty if it has none.
pub(super) fn of<'a>(properties: &UserProperties<'a>) -> &'a str {
    properties.iter().find(|(name, _)| *name == NAME).map_or("", |(_, path)| path)
}

/// Whether a message with this path may be taken by `broker`: it has not passed it, nor more than `hops_max` brokers.
pub(super) fn may_enter(path: &str, broker: &str, hops_max: usize) -> bool {
    path.is_empty() || {
        let (mut hops, mut last) = (0, "");
        path.split(',').all(|hop| {
            // A broker that a message has come to and left over bridges is there twice.
            hops += usize::from(hop != last);
            last = hop;
            hop != broker && hops <= hops_max
        })
    }
}

/// Whether a message with this path may leave `broker`: it has not left it before.
pub(super) fn may_leave(path: &str, broker: &str) -> bool {
    path.rsplit(',').skip(1).all(|hop| hop != broker)
}

/// The User Properties of a message that has come to `broker`, or leaves it, encoded.
pub(super) fn extended(properties: &UserProperties<'_>, broker: &str, encoded: &mut Vec<u8>) {
    encoded.clear();
    let mut path = String::new();
    for (name, value) in properties.iter() {
        match name {
            NAME => path.push_str(value),
            GROUP => {}
            _ => UserProperties::push(encoded, name, value),
        }
    }
    if !path.is_empty() {
        path.push(',');
    }
    path.push_str(broker);
    // A path that has grown beyond a string of MQTT, which only others can have made, begins anew.
    let path = if path.len() > usize::from(u16::MAX) { broker } else { &path };
    UserProperties::push(encoded, NAME, path);
}

/// Adds the name of the bridge to User Properties of a message that comes in.
pub(super) fn push_group(group: &str, encoded: &mut Vec<u8>) {
    UserProperties::push(encoded, GROUP, group);
}

/// Whether a message has come in over this bridge.
pub(super) fn is_of_group(properties: &UserProperties<'_>, group: &str) -> bool {
    properties.iter().any(|(name, value)| name == GROUP && value == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_adds_itself_to_the_path_and_keeps_other_properties() {
        let mut section = Vec::new();
        UserProperties::push(&mut section, "a", "1");
        let mut once = Vec::new();
        extended(&UserProperties::encoded(&section), "0000000a", &mut once);
        assert_eq!(of(&UserProperties::encoded(&once)), "0000000a");
        let mut twice = Vec::new();
        extended(&UserProperties::encoded(&once), "0000000b", &mut twice);
        let properties = UserProperties::encoded(&twice);
        assert_eq!(of(&properties), "0000000a,0000000b");
        assert_eq!(properties.iter().next(), Some(("a", "1")));
    }

    #[test]
    fn the_bridge_that_a_message_has_come_over_is_known_until_it_leaves_over_another() {
        let mut section = Vec::new();
        push_group("cloud", &mut section);
        let properties = UserProperties::encoded(&section);
        assert!(is_of_group(&properties, "cloud") && !is_of_group(&properties, "clou"));
        let mut left = Vec::new();
        extended(&properties, "0000000a", &mut left);
        let left: Vec<_> = UserProperties::encoded(&left).iter().collect::<Vec<_>>();
        assert_eq!(left, [(NAME, "0000000a")]);
    }

    #[test]
    fn a_message_that_has_passed_a_broker_does_not_enter_it_again() {
        assert!(may_enter("", "a", 8) && may_enter("b,c", "a", 8));
        assert!(!may_enter("b,a", "a", 8) && !may_enter("a", "a", 8));
    }

    #[test]
    fn a_message_leaves_a_broker_that_it_has_come_to_and_does_not_leave_it_again() {
        assert!(may_leave("", "a") && may_leave("b", "a"));
        assert!(may_leave("a", "a") && may_leave("b,b,a", "a"), "come in, and not left");
        assert!(!may_leave("a,b", "a") && !may_leave("a,a", "a") && !may_leave("b,a,c,a", "a"));
    }

    #[test]
    fn a_broker_that_a_message_has_come_to_and_left_is_one_hop() {
        assert!(may_enter("b,b,c,c", "a", 2));
        assert!(!may_enter("b,b,c,c,d", "a", 2));
    }

    #[test]
    fn a_message_that_has_passed_too_many_brokers_does_not_enter_another() {
        assert!(may_enter("b,c,d", "a", 3));
        assert!(!may_enter("b,c,d,e", "a", 3));
    }
}

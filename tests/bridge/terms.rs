//! What a bridge says and sends by its configuration: its address, the bit of bridges, sizes.

use std::net::Ipv4Addr;

use crate::far::Far;
use crate::support::{Client, Connect, Publish};
use crate::{ONE_SETUP, Site};

const OUT: &str = "[[bridges.out]]\nfilter = \"t/#\"\n";

#[test]
fn without_the_bit_of_bridges_a_far_broker_is_asked_as_by_a_client() {
    for (version, level) in [("3.1.1", 4), ("3.1", 3)] {
        for (bit, of_bit) in [(true, 0x80), (false, 0)] {
            let far = Far::new();
            let keys = format!("version = {version:?}\nbridge_bit = {bit}\n{OUT}");
            let _near = Site::new(ONE_SETUP).bridge("far", far.address, &keys).start();
            let (_peer, connect) = far.accept();
            assert_eq!(connect.level, level | of_bit, "{version}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_bridge_connects_from_the_address_that_it_is_bound_to() {
    let far = Far::new();
    let from = Ipv4Addr::new(127, 9, 8, 7);
    let keys = format!("bind = \"{from}\"\n{OUT}");
    let _near = Site::new(ONE_SETUP).bridge("far", far.address, &keys).start();
    let (peer, _) = far.accept();
    assert_eq!(peer.address().ip(), from);
}

#[test]
fn a_packet_that_is_larger_than_the_configuration_says_does_not_go_out() {
    for (version, properties) in [("5", &[0x27, 0, 0, 2, 0][..]), ("3.1.1", &[])] {
        let far = Far::new();
        let keys = format!("version = {version:?}\npacket_bytes_max = 300\n{OUT}");
        let near = Site::new(ONE_SETUP).bridge("far", far.address, &keys).start();
        far.discard();
        let mut peer = far.serve(false, properties);
        let mut client = Client::connect(&near, Connect::v5("publisher"));
        client.publish(Publish::new("t", "x".repeat(400)).qos(1, 1));
        client.publish(Publish::new("t", "x".repeat(100)).qos(1, 1));
        assert_eq!(peer.publish().payload.len(), 100, "{version}");
    }
}

#[test]
fn a_bridge_tells_its_own_receive_maximum() {
    for (key, expected) in [("receive_maximum = 7\n", 7), ("", 33)] {
        let far = Far::new();
        let site = Site::new(ONE_SETUP).with("[limits]\nreceive_maximum = 33");
        let _near = site.bridge("far", far.address, &format!("{key}{OUT}")).start();
        let (_, connect) = far.accept();
        assert_eq!(connect.receive_maximum, Some(expected));
    }
}

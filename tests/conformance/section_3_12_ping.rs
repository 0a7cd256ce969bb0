//! 3.12 and 3.13: PINGREQ and PINGRESP.

use crate::support::{Broker, Client, Connect, Packet, for_all_versions};

#[test]
fn mqtt_3_12_4_1_pingreq_is_answered_with_pingresp() {
    for_all_versions(|version| {
        let broker = Broker::start();
        let mut client = Client::connect(&broker, Connect::new(version, "c"));
        client.raw(&[0xC0, 0x00]);
        client.expect(Packet::Pingresp);
    });
}

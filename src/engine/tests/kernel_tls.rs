//! TLS that goes on in a kernel: when the keys are asked for and given, and what ends connections whose
//! keys are given away.

use std::io::{self, Write as _};

use super::handshakes::{Comer, crowd_of};
use super::*;
use crate::base::limits::{KERNEL_TLS_LOOK_MS, KERNEL_TLS_LOOKS_MAX};
use crate::config::listener::KernelTls;

/// A broker whose TLS may go on in a kernel, and clients that it has let in over TLS; as far as that
/// goes in the turn of their CONNECT.
fn let_in(clients: usize) -> (World, Vec<Comer>) {
    let (mut world, mut comers) = crowd_of(KernelTls::Auto, |_| {}, clients);
    for (number, comer) in comers.iter_mut().enumerate() {
        while comer.tls.is_handshaking() || comer.tls.wants_write() {
            comer.say(&mut world);
            world.settle();
            comer.hear(&mut world);
        }
        let mut connect = Vec::new();
        let client = Connect {
            version: Version::V5,
            clean_start: true,
            keep_alive_s: 0,
            client_identifier: &number.to_string(),
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties::default(),
        };
        Packet::Connect(client).encode(Version::V5, &mut connect);
        comer.tls.writer().write_all(&connect).expect("there is room");
        comer.say(&mut world);
        world.turn();
    }
    (world, comers)
}

fn consider_offload(world: &mut World, id: ConnectionId) {
    let Engine { listeners, connections, metrics, timers, now, .. } = &mut world.engine;
    listeners.consider_offload(connections, metrics, timers, *now, id);
}

/// One of them, whose keys were taken.
fn offloaded() -> (World, ConnectionId) {
    let (mut world, mut comers) = let_in(1);
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    let id = comers[0].id;
    comers[0].hear(&mut world);
    assert_eq!(world.offloading, [id]);
    world.engine.take_keys(world.now, id).expect("nothing is under way");
    world.engine.handle_offloaded(&Ok(()));
    world.settle();
    assert_eq!(world.engine.metrics().kernel_tls_taken, 1);
    (world, id)
}

#[test]
fn who_was_let_in_settles_a_little_later_though_it_says_nothing_more() {
    let (mut world, mut comers) = let_in(1);
    assert!(comers[0].hear(&mut world), "its CONNACK does not wait for it");
    world.advance_ms(KERNEL_TLS_LOOK_MS / 2);
    assert!(world.offloading.is_empty());
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    assert_eq!(world.offloading, [comers[0].id]);
    assert!(world.engine.poll_timeout().is_none_or(|deadline| !deadline.is_due(world.now)));
}

#[test]
fn a_listener_that_does_not_want_it_keeps_tls_in_the_broker() {
    let (mut world, mut comers) = crowd_of(KernelTls::Off, |_| {}, 1);
    while comers[0].tls.is_handshaking() {
        comers[0].say(&mut world);
        world.settle();
        comers[0].hear(&mut world);
    }
    consider_offload(&mut world, comers[0].id);
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    assert!(world.offloading.is_empty());
}

#[test]
fn nothing_is_sent_from_the_asking_on_and_what_follows_the_keys_is_in_the_clear() {
    let (mut world, mut comers) = let_in(2);
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    let [first, second] = [comers[0].id, comers[1].id];
    assert_eq!(world.offloading, [first, second]);
    for comer in &mut comers {
        comer.hear(&mut world);
    }
    comers[0].tls.writer().write_all(&[0xC0, 0]).expect("there is room");
    comers[0].say(&mut world);
    world.settle();
    assert!(!comers[0].hear(&mut world), "PINGRESP waits");
    world.engine.take_keys(world.now, first).expect("it was a whole record");
    world.engine.handle_offloaded(&Ok(()));
    world.settle();
    assert_eq!(world.packets(first, Version::V5), ["Pingresp"]);
    // The other one stays: what waits is sealed here.
    comers[1].tls.writer().write_all(&[0xC0, 0]).expect("there is room");
    comers[1].say(&mut world);
    world.settle();
    world.engine.handle_offload_refused(world.now, second);
    world.settle();
    assert!(comers[1].hear(&mut world));
    let metrics = world.engine.metrics();
    assert_eq!((metrics.kernel_tls_taken, metrics.kernel_tls_left_refused), (1, 1));
    assert!(world.engine.take_keys(world.now, second).is_none(), "it was not asked again");
}

#[test]
fn in_the_middle_of_a_record_no_keys_are_given_and_it_is_asked_again_after_it() {
    let (mut world, mut comers) = let_in(1);
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    let (id, now) = (comers[0].id, world.now);
    comers[0].hear(&mut world);
    comers[0].tls.writer().write_all(&[0xC0, 0]).expect("there is room");
    let mut record = Vec::new();
    comers[0].tls.write_tls(&mut record).expect("memory takes all");
    world.engine.handle_received(now, id, &record[..9]);
    assert!(world.engine.take_keys(now, id).is_none());
    world.offloading.clear();
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    assert!(world.offloading.is_empty(), "it is still cut in half");
    world.engine.handle_received(world.now, id, &record[9..]);
    world.settle();
    assert!(comers[0].hear(&mut world), "it is served meanwhile");
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    assert_eq!(world.offloading, [id]);
    assert!(world.engine.take_keys(world.now, id).is_some());
}

#[test]
fn who_is_always_in_the_middle_of_something_stays_in_the_broker_and_is_counted() {
    let (mut world, mut comers) = let_in(1);
    let (id, now) = (comers[0].id, world.now);
    comers[0].tls.writer().write_all(&[0xC0, 0]).expect("there is room");
    let mut record = Vec::new();
    comers[0].tls.write_tls(&mut record).expect("memory takes all");
    world.engine.handle_received(now, id, &record[..9]);
    for _ in 0..KERNEL_TLS_LOOKS_MAX {
        assert_eq!(world.engine.metrics().kernel_tls_left_busy, 0);
        world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    }
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    assert_eq!(world.engine.metrics().kernel_tls_left_busy, 1);
    world.engine.handle_received(now, id, &record[9..]);
    world.settle();
    assert!(world.offloading.is_empty() && comers[0].hear(&mut world), "it is served");
}

#[test]
fn a_kernel_that_does_not_take_keys_is_given_no_others() {
    let (mut world, comers) = let_in(2);
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    let first = comers[0].id;
    world.engine.take_keys(world.now, first).expect("nothing is under way");
    world.engine.handle_offloaded(&Err(io::ErrorKind::NotFound.into()));
    world.cut(first);
    assert_eq!(world.engine.metrics().kernel_tls_failed, 1);
    world.offloading.clear();
    consider_offload(&mut world, comers[1].id);
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    assert!(world.offloading.is_empty());
}

#[test]
fn records_that_are_no_data_end_a_connection_of_the_kernels_as_what_they_are() {
    for (content_type, bytes, is_fault, is_key_update) in [
        (21, &[1, 0][..], false, false),
        (21, &[], false, false),
        (21, &[2, 20], true, false),
        (22, &[24, 0, 0, 1, 0], false, true),
        (22, &[1, 0, 0, 0], true, false),
        (99, &[1], true, false),
    ] {
        let (mut world, id) = offloaded();
        world.engine.handle_record(world.now, id, content_type, bytes);
        world.settle();
        assert!(world.closed.contains(&id), "{content_type} {bytes:?}");
        let metrics = world.engine.metrics();
        assert_eq!(metrics.transport_faults, u64::from(is_fault), "{content_type} {bytes:?}");
        assert_eq!(metrics.kernel_tls_key_updates, u64::from(is_key_update));
    }
    let (mut world, id) = offloaded();
    world.engine.handle_record(world.now, id, 23, &[0xC0, 0]);
    world.settle();
    assert_eq!(world.packets(id, Version::V5), ["Pingresp"]);
}

#[test]
fn keys_that_have_sealed_as_much_as_they_may_end_their_connection_with_the_reason() {
    let (mut world, id) = offloaded();
    world.engine.handle_spent(world.now, id);
    world.settle();
    assert!(world.closed.contains(&id));
    let last = world.packets(id, Version::V5);
    assert!(last[0].contains("MaximumConnectTime"), "{last:?}");
    assert_eq!(world.engine.metrics().kernel_tls_spent, 1);
}

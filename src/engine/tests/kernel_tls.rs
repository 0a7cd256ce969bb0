//! Kernel TLS: when keys are exported and installed, and what ends connections that the kernel
//! encrypts.

use std::io::{self, Write as _};

use super::handshakes::{Comer, crowd_of};
use super::*;
use crate::base::limits::{KERNEL_TLS_LOOK_MS, KERNEL_TLS_LOOKS_MAX};
use crate::config::listener::KernelTls;

/// A broker with kernel TLS enabled and clients that have sent CONNECT over TLS, at the end of the turn
/// that processed it.
fn tls_clients(clients: usize) -> (World, Vec<Comer>) {
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
            is_bridge: false,
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

/// A connection that has been moved to kernel TLS.
fn offloaded() -> (World, ConnectionId) {
    let (mut world, mut comers) = tls_clients(1);
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    let id = comers[0].id;
    comers[0].hear(&mut world);
    assert_eq!(world.offloading, [id]);
    world.engine.take_keys(world.now, id).expect("the connection is between records");
    world.engine.handle_offloaded(&Ok(()));
    world.settle();
    assert_eq!(world.engine.metrics().kernel_tls_taken, 1);
    (world, id)
}

#[test]
fn a_silent_client_is_moved_to_kernel_tls_shortly_after_connect() {
    let (mut world, mut comers) = tls_clients(1);
    assert!(comers[0].hear(&mut world), "CONNACK does not wait for the move");
    world.advance_ms(KERNEL_TLS_LOOK_MS / 2);
    assert!(world.offloading.is_empty());
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    assert_eq!(world.offloading, [comers[0].id]);
    assert!(world.engine.poll_timeout().is_none_or(|deadline| !deadline.is_due(world.now)));
}

#[test]
fn a_listener_without_kernel_tls_keeps_tls_in_the_broker() {
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
fn output_waits_during_the_move_to_kernel_tls_and_is_plaintext_after_it() {
    let (mut world, mut comers) = tls_clients(2);
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
    world.engine.take_keys(world.now, first).expect("a complete record was received");
    world.engine.handle_offloaded(&Ok(()));
    world.settle();
    assert_eq!(world.packets(first, Version::V5), ["Pingresp"]);
    // The second connection stays: its waiting output is encrypted in the broker.
    comers[1].tls.writer().write_all(&[0xC0, 0]).expect("there is room");
    comers[1].say(&mut world);
    world.settle();
    world.engine.handle_offload_refused(world.now, second);
    world.settle();
    assert!(comers[1].hear(&mut world));
    let metrics = world.engine.metrics();
    assert_eq!((metrics.kernel_tls_taken, metrics.kernel_tls_left_refused), (1, 1));
    assert!(world.engine.take_keys(world.now, second).is_none(), "no second request for the keys");
}

#[test]
fn keys_are_not_exported_in_the_middle_of_a_record_and_the_move_is_retried_after_it() {
    let (mut world, mut comers) = tls_clients(1);
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    let (id, now) = (comers[0].id, world.now);
    comers[0].hear(&mut world);
    comers[0].tls.writer().write_all(&[0xC0, 0]).expect("there is room");
    let mut record = Vec::new();
    comers[0].tls.write_tls(&mut record).expect("writes to memory succeed");
    world.engine.handle_received(now, id, &record[..9]);
    assert!(world.engine.take_keys(now, id).is_none());
    world.offloading.clear();
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    assert!(world.offloading.is_empty(), "the record is still incomplete");
    world.engine.handle_received(world.now, id, &record[9..]);
    world.settle();
    assert!(comers[0].hear(&mut world), "the client is served meanwhile");
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    assert_eq!(world.offloading, [id]);
    assert!(world.engine.take_keys(world.now, id).is_some());
}

#[test]
fn a_connection_that_is_never_between_records_stays_in_the_broker_and_is_counted() {
    let (mut world, mut comers) = tls_clients(1);
    let (id, now) = (comers[0].id, world.now);
    comers[0].tls.writer().write_all(&[0xC0, 0]).expect("there is room");
    let mut record = Vec::new();
    comers[0].tls.write_tls(&mut record).expect("writes to memory succeed");
    world.engine.handle_received(now, id, &record[..9]);
    for _ in 0..KERNEL_TLS_LOOKS_MAX {
        assert_eq!(world.engine.metrics().kernel_tls_left_busy, 0);
        world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    }
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    assert_eq!(world.engine.metrics().kernel_tls_left_busy, 1);
    world.engine.handle_received(now, id, &record[9..]);
    world.settle();
    assert!(world.offloading.is_empty() && comers[0].hear(&mut world), "the client is served");
}

#[test]
fn after_the_kernel_refuses_keys_no_other_connection_is_moved() {
    let (mut world, comers) = tls_clients(2);
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    let first = comers[0].id;
    world.engine.take_keys(world.now, first).expect("the connection is between records");
    world.engine.handle_offloaded(&Err(io::ErrorKind::NotFound.into()));
    world.cut(first);
    assert_eq!(world.engine.metrics().kernel_tls_failed, 1);
    world.offloading.clear();
    consider_offload(&mut world, comers[1].id);
    world.advance_ms(2 * KERNEL_TLS_LOOK_MS);
    assert!(world.offloading.is_empty());
}

#[test]
fn records_other_than_data_end_a_kernel_tls_connection_with_their_own_reason() {
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
fn keys_at_their_usage_limit_end_the_connection_with_a_reason() {
    let (mut world, id) = offloaded();
    world.engine.handle_spent(world.now, id);
    world.settle();
    assert!(world.closed.contains(&id));
    let last = world.packets(id, Version::V5);
    assert!(last[0].contains("MaximumConnectTime"), "{last:?}");
    assert_eq!(world.engine.metrics().kernel_tls_spent, 1);
}

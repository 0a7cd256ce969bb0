//! What is kept of a bridge's subscriptions at its far broker.

use std::sync::Arc;

use super::durability::{image, kept, taken_up};
use super::*;
use crate::config::bridge::{Accepts, InRule, Retained};
use crate::control::bridge::{BridgeOrder, KeptBridge, LinkOrder};
use crate::control::{EngineCommand, replies};
use crate::storage::commit::StoreState;
use crate::transport::Transport;
use crate::transport::bridge::mapping::{InMap, OutMap};
use crate::transport::bridge::{FarEnd, Link, Report, Terms};

fn terms(filters: &[&str]) -> Arc<Terms> {
    let rule = |filter: &&str| InRule {
        filter: (*filter).to_owned(),
        qos: 1,
        local_prefix: String::new(),
        remote_prefix: String::new(),
        to: String::new(),
    };
    Arc::new(Terms {
        session: "$bridge/far".into(),
        known_as: None,
        topic_alias_maximum: 0,
        unsubscribes_out: false,
        user: None,
        client_identifier: "ringmq".into(),
        keep_alive_s: 60,
        session_expiry_s: 60,
        retained: Retained::Initial,
        hops_max: 8,
        broker: "0000000a".into(),
        packet_bytes_max: 1_000,
        sent_bytes_max: None,
        receive_maximum: 10,
        out: OutMap::default(),
        r#in: InMap::new(&filters.iter().map(rule).collect::<Vec<_>>()),
        group: None,
        echoes: None,
        accepts: Accepts::default(),
        notification: None,
    })
}

/// Opens the session of a bridge with these `in` filters, as its thread does at the start.
fn register(world: &mut World, filters: &[&str]) {
    let (sender, _events) = flume::bounded(9);
    let (link, bytes) = Link::register(terms(filters), Report::new(sender, Arc::default()));
    let transport = Box::new(Transport::to_far_broker(FarEnd::plain(link)));
    world.engine.handle_dialed(world.now, transport, bytes).expect("it is taken");
    world.settle();
}

fn order(world: &mut World, what: LinkOrder) -> bool {
    let (to, replies) = replies();
    let order = BridgeOrder { session: "$bridge/far".into(), what, reply: to.core(0) };
    world.engine.handle_command(world.now, EngineCommand::BridgeOrder(order));
    world.settle();
    replies.try_next().expect("a reply").1.expect("not refused")
}

fn kept_filters(world: &mut World) -> Vec<String> {
    let kept = world.engine.kept_bridges();
    let [KeptBridge { far_subscriptions, .. }] = &kept[..] else { panic!("{kept:?}") };
    let mut filters: Vec<String> = far_subscriptions.iter().map(|of| of.to_string()).collect();
    filters.sort();
    filters
}

#[test]
fn subscriptions_at_the_far_broker_are_kept_until_they_are_given_up() {
    let mut world = kept();
    register(&mut world, &["a", "b"]);
    let mut logged = world.store_all();
    assert_eq!(kept_filters(&mut world), ["a", "b"]);
    let mut next = taken_up(image(&logged));
    assert_eq!(kept_filters(&mut next), ["a", "b"], "restored");
    register(&mut next, &["b", "c"]);
    assert_eq!(kept_filters(&mut next), ["a", "b", "c"], "until the far broker has answered");
    assert!(order(&mut next, LinkOrder::Unsubscribed(Arc::from(["a".into(), "b".into()]))));
    assert_eq!(kept_filters(&mut next), ["b", "c"], "b is wanted again");
    logged.extend(next.store_all());
    let up_to = logged.last().expect("a batch").number;
    let (now, state) = (next.now, StoreState { up_to, checkpoint: 1, ..StoreState::default() });
    next.engine.handle_stored(now, state);
    let checkpoint = next.records().expect("everything");
    assert_eq!(
        kept_filters(&mut taken_up(image(&[checkpoint]))),
        ["b", "c"],
        "by a checkpoint alone"
    );
    assert!(order(&mut next, LinkOrder::EndSession));
    assert_eq!(next.engine.kept_bridges(), []);
    assert!(!order(&mut next, LinkOrder::EndSession), "there is none");
}

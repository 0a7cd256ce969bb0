//! Questions and commands of operators: what they show, that they end, and that no turn takes long for them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::cores::Cores;
use super::*;
use crate::base::limits;
use crate::control::answer::{ClientSummary, NotPublished, Page, Published};
use crate::control::drain::{DrainOrder, Purpose};
use crate::control::question::{
    BanList, ClientFilter, ListingPlace, NewMessage, PageRequest, Question, TopBy,
};
use crate::control::{EngineCommand, Refused, Replies, Reply, replies};

impl World {
    /// Asks a question without running a turn.
    pub(super) fn begin_question<T: 'static>(
        &mut self,
        question: impl FnOnce(Reply<T>) -> Question,
    ) -> Replies<T> {
        let (to, replies) = replies();
        let command = EngineCommand::Ask(question(to.core(0)));
        self.engine.handle_command(self.now, command);
        replies
    }

    /// Begins a drain without other nodes, or ends it.
    pub(super) fn drain(&mut self, purpose: Option<Purpose>) {
        let order = purpose.map(|purpose| {
            Arc::new(DrainOrder { number: 1, purpose, rate: 1, targets: Box::default() })
        });
        let (to, _replies) = replies();
        let command = EngineCommand::Drain { order, reply: to.core(0) };
        self.engine.handle_command(self.now, command);
        self.settle();
    }

    /// Asks a question, and runs turns until it is answered.
    fn ask<T: 'static>(&mut self, question: impl FnOnce(Reply<T>) -> Question) -> T {
        let replies = self.begin_question(question);
        self.settle();
        answer(&replies)
    }

    fn clients(&mut self, filter: ClientFilter, from: ListingPlace) -> Page<ClientSummary> {
        let page = PageRequest { from, limit: 10 };
        self.ask(|reply| Question::Clients { filter: Box::new(filter), page, reply })
    }

    /// The Client Identifiers that a filter selects, in the order of the listing; `between` is called
    /// between two pages.
    fn list(&mut self, filter: &ClientFilter, mut between: impl FnMut(&mut World)) -> Vec<String> {
        let (mut listed, mut from) = (Vec::new(), Some(ListingPlace::default()));
        while let Some(place) = from {
            let page = self.clients(filter.clone(), place);
            listed.extend(page.entries.iter().map(|client| client.client_id.to_string()));
            from = page.next;
            between(self);
        }
        listed
    }

    fn publish_as_operator(&mut self, message: NewMessage) -> Result<Published, NotPublished> {
        self.ask(|reply| Question::Publish { message: Box::new(message), reply })
    }

    fn retain_at(&mut self, publisher: ConnectionId, topic: &str, payload: &[u8]) {
        let message = Publish { retain: true, ..publish(topic, payload, Qos::AtMostOnce, 0) };
        self.send(publisher, Version::V5, &Packet::Publish(message));
    }
}

#[track_caller]
fn answer<T: 'static>(replies: &Replies<T>) -> T {
    let (_, reply) = replies.try_next().expect("the question is answered");
    reply.expect("the question is not refused")
}

fn client(id: &str) -> Box<str> {
    id.into()
}

fn many() -> World {
    World::with(|settings| settings.limits.connections_max = 100_000, Box::new(AllowAll))
}

fn name(number: usize) -> String {
    format!("client {number:05}")
}

#[test]
fn a_client_that_is_there_during_a_whole_listing_is_shown_once_and_nobody_is_shown_twice() {
    let mut world = many();
    let ids: Vec<ConnectionId> = (0..100).map(|n| world.connect(&Client::v5(&name(n)))).collect();
    let mut round = 0;
    let listed = world.list(&ClientFilter::default(), |world| {
        // Even clients stay, odd ones leave and come back into whatever place is free.
        let leaving = (2 * round + 1) % 100;
        let leaver = name(leaving);
        if let Some(&id) = ids.get(leaving).filter(|id| !world.closed.contains(id)) {
            world.cut(id);
        }
        world.connect(&Client::v5(&format!("newcomer {round}")));
        world.connect(&Client::v5(&leaver));
        round += 1;
    });
    let mut counts: HashMap<&str, usize> = HashMap::new();
    listed.iter().for_each(|client| *counts.entry(client).or_default() += 1);
    assert!(round >= 10 && counts.values().all(|&count| count == 1), "{counts:?}");
    for stable in (0..100).step_by(2).map(name) {
        assert_eq!(counts.get(stable.as_str()), Some(&1), "{stable}");
    }
}

#[test]
fn a_listing_shows_the_clients_that_its_filter_selects() {
    let mut world = World::new();
    let away = world.connect(&Client::persistent("away"));
    world.subscribe(away, "t", Qos::AtLeastOnce);
    world.cut(away);
    let here = world.connect(&Client::v5("here"));
    world.publish(here, "t", b"x", Qos::AtLeastOnce, 1);
    let mut list = |filter: ClientFilter| world.list(&filter, |_| {});
    let all = ClientFilter::default;
    assert_eq!(list(all()), ["away", "here"]);
    assert_eq!(list(ClientFilter { is_connected: Some(true), ..all() }), ["here"]);
    assert_eq!(list(ClientFilter { is_connected: Some(false), ..all() }), ["away"]);
    assert_eq!(list(ClientFilter { queued_min: 1, ..all() }), ["away"]);
    assert_eq!(list(ClientFilter { id_prefix: Some("he".into()), ..all() }), ["here"]);
    assert_eq!(list(ClientFilter { version: Some(Version::V311), ..all() }), [""; 0]);
    assert_eq!(list(ClientFilter { listener: Some(0), ..all() }), ["here"]);
    assert_eq!(list(ClientFilter { user: Some("somebody".into()), ..all() }), [""; 0]);
    assert_eq!(list(ClientFilter { dropped_min: 1, ..all() }), [""; 0]);
}

#[test]
fn a_listing_of_many_sessions_takes_a_slice_of_each_turn() {
    let mut world = many();
    let sessions = 20 * limits::LOOKED_AT_PER_TURN;
    for number in 0..sessions {
        let id = world.connect(&Client::persistent(&name(number)));
        world.cut(id);
    }
    let filter = Box::new(ClientFilter { queued_min: 1, ..ClientFilter::default() });
    let page = PageRequest { from: ListingPlace::default(), limit: 10 };
    let replies = world.begin_question(|reply| Question::Clients { filter, page, reply });
    let mut turns = 0;
    while world.engine.has_commands() {
        assert!(replies.try_next().is_none());
        world.turn();
        turns += 1;
    }
    let page = answer(&replies);
    assert!(page.entries.is_empty() && page.next.is_none());
    assert_eq!(page.sessions, sessions as u64);
    assert!((20..=22).contains(&turns), "{turns} turns");
}

#[test]
fn a_page_of_many_clients_is_collected_in_pieces_of_few_entries() {
    let mut world = many();
    for number in 0..4 * limits::ANSWER_ENTRIES_PER_TURN {
        world.connect(&Client::v5(&name(number)));
    }
    let page = PageRequest { from: ListingPlace::default(), limit: limits::PAGE_ENTRIES_MAX };
    let filter = Box::<ClientFilter>::default();
    let replies = world.begin_question(|reply| Question::Clients { filter, page, reply });
    let mut turns = 0;
    while world.engine.has_commands() {
        world.turn();
        turns += 1;
    }
    let page = answer(&replies);
    assert_eq!(page.entries.len(), 4 * limits::ANSWER_ENTRIES_PER_TURN);
    assert!((4..=6).contains(&turns), "{turns} turns");
}

#[test]
fn the_clients_with_the_longest_queues_come_first() {
    let mut world = World::new();
    let publisher = world.connect(&Client::v5("publisher"));
    for (client, messages) in [("a", 3), ("b", 9), ("c", 0), ("d", 5)] {
        let id = world.connect(&Client::persistent(client));
        world.subscribe(id, client, Qos::AtLeastOnce);
        world.cut(id);
        for number in 0..messages {
            world.publish(publisher, client, b"x", Qos::AtLeastOnce, number + 1);
        }
    }
    let top = world.ask(|reply| Question::TopClients { by: TopBy::Queued, count: 2, reply });
    let shown: Vec<_> = top.clients.iter().map(|(n, of)| (*n, &*of.client_id)).collect();
    assert_eq!(shown, [(9, "b"), (5, "d")]);
    assert!(top.is_complete && top.looked_at == 5);
    let top = world.ask(|reply| Question::TopClients { by: TopBy::BytesIn, count: 9, reply });
    assert_eq!(top.clients.len(), 1, "those that are away have no connection");
    assert!(top.clients[0].1.bytes_in > 17 * 8 && top.clients[0].1.bytes_out > 0);
}

#[test]
fn everything_about_one_client_is_shown() {
    let mut world = World::new();
    let mut of = Client::persistent("c");
    of.properties.receive_maximum = Some(2);
    of.will = Some(wire::Will { topic: "will", payload: b"gone", ..Default::default() });
    let id = world.connect(&of);
    world.subscribe(id, "t/#", Qos::AtLeastOnce);
    let publisher = world.connect(&Client::v5("p"));
    for number in 1..=5 {
        world.publish(publisher, &format!("t/{number}"), b"payload", Qos::AtLeastOnce, number);
    }
    world.now = Now(world.now.0 + 3_000_000);
    let detail = world.ask(|reply| Question::Client { client_identifier: client("c"), reply });
    let detail = detail.expect("the client is known");
    assert_eq!((detail.summary.inflight, detail.inflight_by_stage.sent), (2, 2));
    assert_eq!((detail.summary.queued, detail.summary.subscriptions), (3, 1));
    assert_eq!(detail.queue_oldest.map(|oldest| oldest.topic), Some("t/3".into()));
    assert!(detail.queue_bytes > 0 && detail.session_expiry_interval_s == Some(3_600));
    let connection = detail.connection.expect("the client is connected");
    assert_eq!((connection.window, connection.last_packet_ms), (2, 3_000));
    assert!(connection.paused_by.is_empty() && !connection.tls);
    assert_eq!(detail.will.map(|will| will.topic), Some("will".to_owned()));

    let queue = |from, payload_bytes_max| {
        move |reply| Question::Queue {
            client_identifier: client("c"),
            from,
            limit: 2,
            payload_bytes_max,
            reply,
        }
    };
    let first = world.ask(queue(0, 3)).expect("the client is known");
    let topics: Vec<_> = first.messages.iter().map(|(_, of)| &*of.topic).collect();
    assert_eq!(topics, ["t/3", "t/4"]);
    assert_eq!(first.messages[0].1.payload.as_deref(), Some(&b"pay"[..]));
    // A message that leaves meanwhile does not move the others.
    let puback = Packet::Puback(ack(1));
    world.send(id, Version::V5, &puback);
    let rest = world.ask(queue(first.next.expect("there is more"), 0)).expect("it is known");
    assert_eq!(rest.messages.iter().map(|(_, of)| &*of.topic).collect::<Vec<_>>(), ["t/5"]);
    assert!(rest.next.is_none() && rest.messages[0].1.payload.is_none());

    let inflight =
        world.ask(|reply| Question::Inflight { client_identifier: client("c"), limit: 10, reply });
    let inflight = inflight.expect("the client is known");
    let shown: Vec<_> = inflight.messages.iter().map(|(id, stage, _)| (*id, *stage)).collect();
    assert_eq!(shown, [(2, "sent"), (3, "sent")]);

    let unknown = world.ask(|reply| Question::Client { client_identifier: client("x"), reply });
    assert!(unknown.is_none());
}

#[test]
fn every_subscription_is_listed_once_across_pages() {
    let mut world = World::new();
    for (number, subscriptions) in [0, 7, 0, 3, 25, 0, 1].into_iter().enumerate() {
        let id = world.connect(&Client::v5(&name(number)));
        for filter in 0..subscriptions {
            world.subscribe(id, &format!("{number}/{filter}"), Qos::AtLeastOnce);
        }
    }
    let (mut listed, mut from) = (Vec::new(), Some(ListingPlace::default()));
    while let Some(place) = from {
        let page = PageRequest { from: place, limit: 10 };
        let of = |reply| Question::Subscriptions { client_identifier: None, page, reply };
        let page = world.ask(of).expect("all clients");
        assert!(page.entries.len() <= 10);
        listed.extend(page.entries.into_iter().map(|entry| (entry.client_id, entry.filter)));
        from = page.next;
    }
    let all = listed.len();
    listed.sort_unstable();
    listed.dedup();
    assert_eq!((all, listed.len()), (36, 36));
    let page = PageRequest { from: ListingPlace::default(), limit: 100 };
    let of = |id: &str| {
        let client_identifier = Some(client(id));
        move |reply| Question::Subscriptions { client_identifier, page, reply }
    };
    let own = world.ask(of(&name(3))).expect("the client is known");
    assert_eq!(own.entries.len(), 3);
    assert!(world.ask(of("nobody")).is_none());
}

#[test]
fn whoever_a_message_would_reach_is_shown_with_the_filter() {
    let mut world = World::new();
    let filters = [("a", "x/+"), ("b", "x/1"), ("c", "$share/g/x/#"), ("d", "y"), ("b", "#")];
    for (id, filter) in filters {
        let known = world.engine.sessions.connection_of(id);
        let id = known.unwrap_or_else(|| world.connect(&Client::v5(id)));
        world.subscribe(id, filter, Qos::AtLeastOnce);
    }
    let topic = "x/1";
    let of = |limit| move |reply| Question::Recipients { topic: topic.into(), limit, reply };
    let shown = world.ask(of(100));
    let mut pairs: Vec<_> =
        shown.subscriptions.iter().map(|entry| (&*entry.client_id, &*entry.filter)).collect();
    pairs.sort_unstable();
    assert_eq!(pairs, [("a", "x/+"), ("b", "#"), ("b", "x/1"), ("c", "$share/g/x/#")]);
    assert_eq!((shown.filters_total, shown.subscriptions_total), (4, 4));
    let shown = world.ask(of(1));
    assert_eq!((shown.subscriptions.len(), shown.subscriptions_total), (1, 4));
    let counted = world.ask(|reply| Question::CountRecipients { topic: topic.into(), reply });
    assert_eq!(counted, 2, "without the shared subscription");
}

#[test]
fn a_disconnected_client_receives_0x98_and_its_will_is_published() {
    let mut world = World::new();
    let watcher = world.connect(&Client::v5("w"));
    world.subscribe(watcher, "will", Qos::AtMostOnce);
    let mut of = Client::persistent("c");
    of.will = Some(wire::Will { topic: "will", payload: b"gone", ..Default::default() });
    let id = world.connect(&of);
    let disconnect = |reply| Question::Disconnect { client_identifier: client("c"), reply };
    assert!(world.ask(disconnect));
    let packets = world.packets(id, Version::V5);
    assert!(packets[0].contains("AdministrativeAction"), "{packets:?}");
    assert!(world.closed.contains(&id));
    assert_eq!(world.payloads(watcher), ["gone"]);
    assert!(!world.ask(disconnect), "it is not connected any more");
    // Its session is kept until it is ended.
    let end = |reply| Question::EndSession { client_identifier: client("c"), reply };
    assert!(world.ask(end) && !world.ask(end));
    assert_eq!(world.engine.sessions.len(), 1);
    // A session ends with its connection.
    let id = world.connect(&of);
    assert!(world.ask(end) && world.closed.contains(&id));
    assert_eq!(world.engine.sessions.len(), 1);
}

#[test]
fn one_subscription_of_a_client_is_ended() {
    let mut world = World::new();
    let id = world.connect(&Client::v5("c"));
    world.subscribe(id, "a", Qos::AtMostOnce);
    world.subscribe(id, "b", Qos::AtMostOnce);
    world.packets(id, Version::V5);
    let end = |reply| Question::EndSubscription {
        client_identifier: client("c"),
        filter: "a".into(),
        reply,
    };
    assert!(world.ask(end) && !world.ask(end));
    world.publish(id, "a", b"a", Qos::AtMostOnce, 0);
    world.publish(id, "b", b"b", Qos::AtMostOnce, 0);
    assert_eq!(world.payloads(id), ["b"]);
}

#[test]
fn a_message_of_an_operator_is_answered_once_the_other_cores_have_it() {
    let mut cores = Cores::new(2);
    let (here, there) = (cores.connect(0), cores.connect(1));
    cores.0[0].subscribe(here, "t", Qos::AtLeastOnce);
    cores.0[1].subscribe(there, "t", Qos::AtLeastOnce);
    cores.settle();
    let message = NewMessage {
        topic: "t".into(),
        payload: b"x"[..].into(),
        qos: Qos::AtLeastOnce,
        ..NewMessage::default()
    };
    let message = Box::new(message);
    let replies = cores.0[0].begin_question(|reply| Question::Publish { message, reply });
    cores.0[0].settle();
    assert!(replies.try_next().is_none(), "the other core has not taken it yet");
    cores.settle();
    cores.0[0].settle();
    let published = answer(&replies).expect("the topic is valid");
    assert_eq!((published.recipients, published.is_acknowledged), (1, true));
    assert_eq!(cores.0[0].payloads(here), ["x"]);
    assert_eq!(cores.0[1].payloads(there), ["x"]);
}

#[test]
fn a_message_of_an_operator_is_answered_once_it_is_stored() {
    let mut world = super::durability::kept();
    let message = Box::new(NewMessage {
        topic: "t".into(),
        payload: b"x"[..].into(),
        retain: true,
        ..NewMessage::default()
    });
    let replies = world.begin_question(|reply| Question::Publish { message, reply });
    world.settle();
    assert!(replies.try_next().is_none(), "the store does not have it yet");
    world.store_all();
    world.settle();
    assert!(answer(&replies).expect("the topic is valid").is_acknowledged);
}

#[test]
fn a_message_that_cannot_be_published_is_refused_with_the_reason() {
    let mut world = World::with(
        |settings| {
            settings.limits.retained_messages_max = 1;
            settings.mqtt.maximum_qos = 1;
        },
        Box::new(AllowAll),
    );
    let message = |topic: &str| NewMessage {
        topic: topic.into(),
        payload: b"x"[..].into(),
        ..NewMessage::default()
    };
    let mut refused = |message| world.publish_as_operator(message).err();
    assert_eq!(refused(message("a/+")), Some(NotPublished::TopicInvalid));
    assert_eq!(refused(message("")), Some(NotPublished::TopicInvalid));
    assert_eq!(refused(message("$SYS/x")), Some(NotPublished::TopicReserved));
    let second = NewMessage { qos: Qos::ExactlyOnce, ..message("a") };
    assert_eq!(refused(second), Some(NotPublished::QosNotSupported));
    assert_eq!(refused(NewMessage { retain: true, ..message("a") }), None);
    let full = NewMessage { retain: true, ..message("b") };
    assert_eq!(refused(full), Some(NotPublished::RetainedFull));
}

#[test]
fn retained_messages_are_listed_shown_and_removed_on_all_cores() {
    let mut cores = Cores::new(2);
    let publisher = cores.connect(0);
    for number in 0..600 {
        cores.0[0].retain_at(publisher, &format!("r/{number:03}"), b"x");
    }
    cores.0[0].retain_at(publisher, "other", b"kept");
    cores.settle();
    let world = &mut cores.0[1];
    let (mut topics, mut from) = (Vec::new(), None);
    loop {
        let filter = "r/#".into();
        let page = world.ask(|reply| Question::Retained { filter, from, limit: 100, reply });
        assert!(page.messages.len() <= 100 && page.retained == 601);
        topics.extend(page.messages.iter().map(|message| message.topic.to_string()));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(topics, (0..600).map(|n| format!("r/{n:03}")).collect::<Vec<_>>());
    let shown = world.ask(|reply| Question::RetainedMessage { topic: "other".into(), reply });
    let shown = shown.expect("it is retained");
    assert_eq!((shown.message.payload.as_deref(), shown.core), (Some(&b"kept"[..]), 0));

    let clear = |messages_max| {
        move |reply| Question::ClearRetained { filter: "r/#".into(), messages_max, reply }
    };
    let replies = world.begin_question(clear(500));
    world.settle();
    assert!(replies.try_next().is_none(), "the other core does not know yet");
    cores.settle();
    cores.0[1].settle();
    let cleared = answer(&replies);
    assert_eq!((cleared.messages, cleared.is_complete), (500, false));
    let replies = cores.0[1].begin_question(clear(u64::MAX));
    cores.0[1].settle();
    cores.settle();
    cores.0[1].settle();
    let cleared = answer(&replies);
    assert_eq!((cleared.messages, cleared.is_complete), (100, true));
    for world in &mut cores.0 {
        assert_eq!(world.engine.metrics().retained_messages, 1);
    }
}

#[test]
fn banned_clients_and_networks_are_refused_and_their_connections_ended() {
    let mut world = World::new();
    let connect_from = |world: &mut World, name: &str, address: &str| {
        let address: SocketAddr = address.parse().expect("an address");
        let peer = Peer { address: Some(address), listener: 0 };
        let id = world.engine.handle_accepted(world.now, peer).expect("accepted");
        world.received.insert(id, Vec::new());
        world.send_connect(id, &Client::v5(name));
        (id, world.packets(id, Version::V5).remove(0))
    };
    let (bad, _) = connect_from(&mut world, "bad", "10.0.0.1:1");
    let (near, _) = connect_from(&mut world, "near", "[::ffff:192.0.2.9]:1");
    let (good, _) = connect_from(&mut world, "good", "10.0.0.1:2");
    let bans = BanList {
        clients: [(client("bad"), Some(60)), (client("later"), None)].into(),
        users: HashMap::new(),
        networks: vec![("192.0.2.0/24".parse().expect("a network"), None)],
    };
    let bans = Arc::new(bans);
    let ended = world.ask(|reply| Question::SetBans { bans, reply });
    assert_eq!(ended, 2);
    assert!(world.closed.contains(&bad) && world.closed.contains(&near));
    assert!(!world.closed.contains(&good));
    for (name, address) in [("bad", "10.0.0.1:3"), ("x", "192.0.2.1:3"), ("later", "10.0.0.1:4")] {
        let (_, connack) = connect_from(&mut world, name, address);
        assert!(connack.contains("Banned"), "{connack}");
    }
    assert_eq!(world.engine.metrics().clients_banned, 3);
    world.advance_ms(60_000);
    let (_, connack) = connect_from(&mut world, "bad", "10.0.0.1:3");
    assert!(connack.contains("Success"), "the ban has ended: {connack}");
    let (_, connack) = connect_from(&mut world, "later", "10.0.0.1:5");
    assert!(connack.contains("Banned"), "{connack}");
}

#[test]
fn a_core_that_is_drained_accepts_no_new_clients_and_keeps_those_it_has() {
    let mut world = World::new();
    let first = world.connect(&Client::v5("first"));
    world.drain(Some(Purpose::Drain));
    let second = world.accept();
    world.send_connect(second, &Client::v5("second"));
    assert!(world.packets(second, Version::V5)[0].contains("UseAnotherServer"));
    assert!(!world.closed.contains(&first));
    world.drain(None);
    world.connect(&Client::v5("second"));
}

#[test]
fn too_many_questions_at_a_time_are_refused_with_an_error_that_says_so() {
    let mut world = World::new();
    let top = |reply| Question::TopClients { by: TopBy::Queued, count: 1, reply };
    let asked: Vec<_> = (0..limits::QUESTIONS_MAX).map(|_| world.begin_question(top)).collect();
    let refused = world.begin_question(top);
    assert_eq!(refused.try_next().map(|(_, answer)| answer.err()), Some(Some(Refused::Busy)));
    assert!(Refused::Busy.to_string().contains("as many questions as it may"));
    // Commands are executed all the same.
    let disconnect = |reply| Question::Disconnect { client_identifier: client("c"), reply };
    assert!(!answer(&world.begin_question(disconnect)));
    world.settle();
    asked.iter().for_each(|replies| drop(answer(replies)));
    assert_eq!(world.engine.metrics().questions_refused, 1);
    drop(world.ask(top));
}

#[test]
fn a_question_that_nobody_waits_for_ends_and_one_that_takes_10_s_answers_with_what_it_has() {
    let mut world = many();
    for number in 0..4 * limits::LOOKED_AT_PER_TURN {
        let id = world.connect(&Client::persistent(&name(number)));
        world.cut(id);
    }
    let memory_bytes = world.engine.metrics().memory_bytes;
    let top = |reply| Question::TopClients { by: TopBy::Queued, count: 1, reply };
    drop(world.begin_question(top));
    world.turn();
    assert!(!world.engine.has_commands());
    let page = PageRequest { from: ListingPlace::default(), limit: 1_000 };
    let filter = Box::default();
    let replies = world.begin_question(|reply| Question::Clients { filter, page, reply });
    world.turn();
    assert!(world.engine.metrics().memory_bytes > memory_bytes, "what it holds is charged");
    world.jump_ms(1_000 * (limits::QUESTION_S + 1));
    let page = answer(&replies);
    assert!(!page.entries.is_empty() && page.next.is_some());
    assert_eq!(world.engine.metrics().memory_bytes, memory_bytes);
    assert!(!world.engine.has_commands());
}

#[test]
fn a_message_that_another_core_does_not_take_within_10_s_is_answered_with_that() {
    let mut cores = Cores::new(2);
    let there = cores.connect(1);
    cores.0[1].subscribe(there, "t", Qos::AtLeastOnce);
    cores.settle();
    let message = Box::new(NewMessage { topic: "t".into(), ..NewMessage::default() });
    let world = &mut cores.0[0];
    let replies = world.begin_question(|reply| Question::Publish { message, reply });
    world.settle();
    world.advance_ms(1_000 * (limits::QUESTION_S + 1));
    assert!(!answer(&replies).expect("the topic is valid").is_acknowledged);
}

#[test]
fn bans_are_enforced_however_many_questions_are_in_progress_and_however_long_it_takes() {
    let mut world = many();
    for number in 0..4 * limits::LOOKED_AT_PER_TURN {
        world.connect(&Client::v5(&name(number)));
    }
    let bad = world.connect(&Client::v5("bad"));
    let top = |reply| Question::TopClients { by: TopBy::Queued, count: 1, reply };
    let asked: Vec<_> = (0..limits::QUESTIONS_MAX).map(|_| world.begin_question(top)).collect();
    let clients = [(client("bad"), None)].into();
    let bans = Arc::new(BanList { clients, ..BanList::default() });
    let replies = world.begin_question(|reply| Question::SetBans { bans, reply });
    world.jump_ms(1_000 * (limits::QUESTION_S + 1));
    asked.iter().for_each(|replies| assert!(!answer(replies).is_complete));
    assert!(replies.try_next().is_none());
    world.settle();
    assert_eq!(answer(&replies), 1);
    assert!(world.closed.contains(&bad));
}

#[test]
fn removed_retained_messages_are_confirmed_although_others_keep_the_store_busy() {
    let mut world = super::durability::kept();
    let publisher = world.connect(&Client::v5("p"));
    world.store_all();
    world.retain_at(publisher, "a", b"x");
    world.store_all();
    let (filter, messages_max) = ("a".into(), 1);
    let ask = |reply| Question::ClearRetained { filter, messages_max, reply };
    let replies = world.begin_question(ask);
    world.settle();
    let removal = world.records().expect("the removal is recorded").number;
    world.retain_at(publisher, "b", b"x");
    assert!(replies.try_next().is_none());
    world.stored(removal);
    world.settle();
    assert_eq!(answer(&replies).messages, 1);
}

//! Several cores, batch by batch: what the simulation does not check, such as the number of batches
//! and how evenly messages are spread.

use super::*;

/// Cores that exchange batches when the test says so.
pub(super) struct Cores(pub(super) Vec<World>);

impl Cores {
    pub(super) fn new(cores: u16) -> Self {
        Self::with(cores, |_| {})
    }

    fn with(cores: u16, change: impl Fn(&mut Settings)) -> Self {
        let at = |place| {
            let change = |settings: &mut Settings| {
                settings.limits.connections_max = 10_000;
                change(settings);
            };
            World::at(place, change, Box::new(AllowAll))
        };
        Self(Place::each(cores).into_iter().map(at).collect())
    }

    /// Carries the batches of one core to another, and returns their number.
    pub(super) fn carry(&mut self, from: u16, to: u16) -> usize {
        let mut batches = 0;
        while let Some(batch) = self.0[usize::from(from)].engine.poll_batch(CoreId(to)) {
            let world = &mut self.0[usize::from(to)];
            world.engine.handle_batch(world.now, CoreId(from), batch);
            world.settle();
            batches += 1;
        }
        batches
    }

    /// Carries batches until no core has any left.
    pub(super) fn settle(&mut self) {
        let count = self.0.len() as u16;
        loop {
            let mut batches = 0;
            for from in 0..count {
                for to in (0..count).filter(|&to| to != from) {
                    batches += self.carry(from, to);
                }
            }
            if batches == 0 {
                return;
            }
        }
    }

    /// Connects a client with a Client Identifier assigned by the core, which is thus its home.
    pub(super) fn connect(&mut self, core: usize) -> ConnectionId {
        let id = self.0[core].connect(&Client::v5(""));
        assert!(
            self.0[core].leaving.is_empty(),
            "a client without a Client Identifier stays on its core"
        );
        id
    }
}

fn subacks(world: &mut World, ids: &[ConnectionId]) -> usize {
    let all = ids.iter().flat_map(|&id| world.packets(id, Version::V5)).collect::<Vec<_>>();
    all.iter().filter(|packet| packet.starts_with("Suback")).count()
}

#[test]
fn all_subscriptions_of_a_turn_wait_for_one_round_trip() {
    let mut cores = Cores::new(2);
    let ids: Vec<_> = (0..1_000).map(|_| cores.connect(0)).collect();
    cores.settle();
    for (n, &id) in ids.iter().enumerate() {
        cores.0[0].subscribe(id, &format!("own/{n}"), Qos::AtLeastOnce);
    }
    assert_eq!(
        subacks(&mut cores.0[0], &ids),
        0,
        "the other core does not know the subscriptions yet"
    );
    assert_eq!((cores.carry(0, 1), cores.carry(1, 0)), (1, 1));
    assert_eq!(subacks(&mut cores.0[0], &ids), 1_000);
    // A subscription that the other core knows is answered at once.
    cores.0[0].subscribe(ids[1], "own/0", Qos::AtMostOnce);
    assert_eq!(subacks(&mut cores.0[0], &ids), 1);
    assert_eq!(cores.carry(0, 1), 0);
}

#[test]
fn an_idle_connection_holds_no_queue_of_answers() {
    let mut cores = Cores::new(2);
    let id = cores.connect(0);
    cores.0[0].subscribe(id, "a", Qos::AtMostOnce);
    let holds = |cores: &mut Cores| {
        let connection = cores.0[0].engine.connections.get_mut(id).expect("connected");
        (connection.answers.is_some(), connection.extra.is_some())
    };
    assert_eq!(holds(&mut cores), (true, false));
    cores.settle();
    assert_eq!(holds(&mut cores), (false, false));
}

/// While the lane to a core is full, messages for it are collected in one block a turn; other cores
/// read theirs.
#[test]
fn a_core_whose_lane_was_full_gets_every_message_in_order() {
    let mut cores = Cores::new(3);
    let publisher = cores.connect(0);
    let subscribers = [cores.connect(1), cores.connect(2)];
    for (core, &id) in subscribers.iter().enumerate() {
        cores.0[core + 1].subscribe(id, "a", Qos::AtMostOnce);
    }
    cores.settle();
    let payloads = |cores: &mut Cores, core: usize| {
        cores.0[core].packets(subscribers[core - 1], Version::V5).len()
    };
    for core in [1, 2] {
        payloads(&mut cores, core);
    }
    for number in 1..=5_u8 {
        cores.0[0].publish(publisher, "a", &[number; 3], Qos::AtMostOnce, 0);
        assert_eq!(cores.carry(0, 1), 1);
        assert_eq!(payloads(&mut cores, 1), 1);
    }
    assert_eq!(cores.carry(0, 2), 1, "the messages waited in one batch");
    let packets = cores.0[2].packets(subscribers[1], Version::V5);
    let found: Vec<bool> = (1..=5)
        .map(|number| packets[number - 1].contains(&format!("[{number}, {number}, {number}]")))
        .collect();
    assert_eq!((packets.len(), found), (5, vec![true; 5]), "{packets:?}");
}

#[test]
fn a_message_is_acknowledged_once_all_cores_with_subscribers_have_it() {
    let mut cores = Cores::new(3);
    let [here, there] = [cores.connect(0), cores.connect(1)];
    cores.0[1].subscribe(there, "a", Qos::AtLeastOnce);
    cores.settle();
    cores.0[0].publish(here, "a", b"1", Qos::AtLeastOnce, 7);
    assert_eq!(cores.0[0].packets(here, Version::V5), [""; 0]);
    assert_eq!(cores.carry(0, 2), 0, "no subscriber on that core");
    assert_eq!(cores.carry(0, 1), 1);
    assert_eq!(cores.0[0].packets(here, Version::V5), [""; 0], "the receipt has not arrived yet");
    assert_eq!(cores.carry(1, 0), 1);
    let packets = cores.0[0].packets(here, Version::V5);
    assert!(packets[0].starts_with("Puback"), "{packets:?}");
    assert_eq!(cores.0[1].payloads(there), ["1"]);
}

#[test]
fn a_shared_subscription_is_balanced_over_members_and_not_over_cores() {
    let mut cores = Cores::new(3);
    let members = [(0, 3), (1, 1), (2, 2)];
    let mut joined = Vec::new();
    for (core, count) in members {
        for _ in 0..count {
            let id = cores.connect(core);
            cores.0[core].subscribe(id, "$share/g/a", Qos::AtMostOnce);
            joined.push((core, id));
        }
    }
    let publishers = [cores.connect(0), cores.connect(1), cores.connect(2)];
    cores.settle();
    for (core, publisher) in publishers.into_iter().enumerate() {
        for _ in 0..600 {
            cores.0[core].publish(publisher, "a", b"x", Qos::AtMostOnce, 1);
        }
    }
    cores.settle();
    let got: Vec<_> = joined.iter().map(|&(core, id)| cores.0[core].publishes(id).len()).collect();
    assert_eq!(got, [300; 6]);
}

#[test]
fn every_core_counts_a_member_once_it_has_received_suback() {
    let mut cores = Cores::new(2);
    let first = cores.connect(1);
    cores.0[1].subscribe(first, "$share/g/a", Qos::AtMostOnce);
    cores.settle();
    let [second, publisher] = [cores.connect(1), cores.connect(0)];
    cores.settle();
    cores.0[1].packets(second, Version::V5);
    cores.0[1].subscribe(second, "$share/g/a", Qos::AtMostOnce);
    assert_eq!(
        subacks(&mut cores.0[1], &[second]),
        0,
        "the other core does not count the member yet"
    );
    assert_eq!((cores.carry(1, 0), cores.carry(0, 1)), (1, 1));
    assert_eq!(subacks(&mut cores.0[1], &[second]), 1);
    // One more member here: two of the three are on the other core.
    let third = cores.connect(0);
    cores.0[0].subscribe(third, "$share/g/a", Qos::AtMostOnce);
    for _ in 0..30 {
        cores.0[0].publish(publisher, "a", b"x", Qos::AtMostOnce, 1);
    }
    cores.settle();
    let got =
        [(1, first), (1, second), (0, third)].map(|(core, id)| cores.0[core].publishes(id).len());
    assert_eq!(got, [10; 3]);
}

#[test]
fn a_client_is_handed_over_to_its_home_core_and_counted_there() {
    let mut cores = Cores::new(4);
    let mut at_home = 0;
    for n in 0..200 {
        let name = format!("client {n}");
        let id = cores.0[0].accept();
        cores.0[0].send_connect(id, &Client::v5(&name));
        let Some((_, to, handed_over)) = cores.0[0].leaving.pop() else {
            at_home += 1;
            continue;
        };
        let world = &mut cores.0[usize::from(to.0)];
        let id = world.engine.handle_handed_over(world.now, *handed_over).expect("there is room");
        world.received.insert(id, Vec::new());
        world.settle();
        let packets = world.packets(id, Version::V5);
        assert!(packets[0].starts_with("Connack"), "{packets:?}");
    }
    let sessions: Vec<_> = cores.0.iter().map(|world| world.engine.sessions.len()).collect();
    assert_eq!((sessions.iter().sum::<usize>(), sessions[0]), (200, at_home));
    // Of 200 by chance on 4 cores, fewer than 25 on one are beyond four standard deviations.
    assert!(sessions.iter().all(|&count| count >= 25), "{sessions:?}");
}

#[test]
fn connack_latency_of_a_handed_over_client_starts_when_the_first_core_reads_connect() {
    let mut cores = Cores::with(2, |settings| settings.stats.enabled = true);
    let mut waited = Vec::new();
    for n in 0..20 {
        let id = cores.0[0].accept();
        cores.0[0].advance_ms(5);
        let read = cores.0[0].now;
        cores.0[0].send_connect(id, &Client::v5(&format!("client {n}")));
        let Some((_, to, handed_over)) = cores.0[0].leaving.pop() else {
            assert_eq!(cores.0[0].engine.take_connacks().collect::<Vec<_>>(), [read]);
            continue;
        };
        assert_eq!(cores.0[0].engine.take_connacks().count(), 0);
        let world = &mut cores.0[usize::from(to.0)];
        world.advance_ms(100);
        let now = world.now;
        world.engine.handle_handed_over(now, *handed_over).expect("there is room");
        while world.engine.poll_action().is_some() {}
        waited.extend(world.engine.take_connacks().map(|received| (read, received)));
    }
    // By chance on two cores: none at all is beyond four standard deviations.
    assert!(!waited.is_empty());
    assert!(waited.iter().all(|(read, received)| read == received), "{waited:?}");
}

#[test]
fn forwarded_messages_are_counted_by_qos_and_the_brokers_own_are_not() {
    let mut cores = Cores::with(2, |settings| settings.mqtt.sys_interval_s = 1);
    let [here, there] = [cores.connect(0), cores.connect(1)];
    cores.0[1].subscribe(there, "a", Qos::ExactlyOnce);
    cores.settle();
    for (qos, count) in [(Qos::AtMostOnce, 3), (Qos::AtLeastOnce, 2), (Qos::ExactlyOnce, 1)] {
        (0..count).for_each(|n| cores.0[0].publish(here, "a", b"x", qos, n + 1));
    }
    cores.settle();
    cores.0[0].advance_ms(1_100);
    cores.settle();
    assert_eq!(cores.0[0].engine.publishes_taken(), ([3, 2, 1], [0, 0, 0]));
    assert_eq!(cores.0[1].engine.publishes_taken(), ([0, 0, 0], [3, 2, 1]));
}

#[test]
fn metrics_are_counted_for_each_core_and_in_total() {
    let mut cores = Cores::with(2, |settings| settings.mqtt.sys_interval_s = 1);
    let [here, there] = [cores.connect(0), cores.connect(1)];
    cores.0[1].subscribe(there, "a", Qos::AtMostOnce);
    cores.settle();
    for _ in 0..5 {
        cores.0[0].publish(here, "a", b"x", Qos::AtMostOnce, 1);
    }
    cores.settle();
    for _ in 0..2 {
        cores.0.iter_mut().for_each(|world| world.advance_ms(1_100));
        cores.settle();
    }
    // Any core shows the totals.
    cores.0[1].publishes(there);
    cores.0[1].subscribe(there, "$SYS/broker/#", Qos::AtMostOnce);
    cores.settle();
    let shown: HashMap<String, String> =
        cores.0[1].publishes(there).into_iter().map(|(topic, value, ..)| (topic, value)).collect();
    let value = |topic: &str| shown.get(&format!("$SYS/broker/{topic}")).map(String::as_str);
    assert_eq!(value("clients/connected"), Some("2"));
    assert_eq!(value("cores/0/clients/connected"), Some("1"));
    assert_eq!(value("cores/1/clients/connected"), Some("1"));
    assert_eq!(value("cores/0/publish/messages/received"), Some("5"));
    assert_eq!(value("cores/1/publish/messages/received"), Some("0"));
    assert_eq!(value("cores/1/publish/messages/sent"), Some("5"));
    assert_ne!(value("cores/0/batches/sent"), Some("0"));
    for topic in ["lanes/bytes", "wakeups/sent", "turns", "busy/us", "connections/handed-over"] {
        assert!(value(&format!("cores/1/{topic}")).is_some(), "{topic}");
    }
}

#[test]
fn mqtt_3_3_2_6_a_core_whose_turn_began_earlier_adds_nothing_to_the_message_expiry_interval() {
    let mut cores = Cores::new(2);
    let [here, there] = [cores.connect(0), cores.connect(1)];
    cores.0[1].subscribe(there, "a", Qos::AtMostOnce);
    cores.settle();
    let _ = cores.0[1].packets(there, Version::V5);
    cores.0[0].advance_ms(1);
    let mut message = publish("a", b"1", Qos::AtMostOnce, 0);
    message.properties.message_expiry_interval = Some(10);
    cores.0[0].send(here, Version::V5, &Packet::Publish(message));
    cores.carry(0, 1);
    let packets = cores.0[1].packets(there, Version::V5);
    assert!(packets[0].contains("message_expiry_interval: Some(10)"), "{packets:?}");
}

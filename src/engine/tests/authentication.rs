//! Enhanced authentication and authorization, with a scripted access control.

use super::*;
use crate::wire::Auth;

fn refused(reason: ReasonCode) -> Authentication {
    Authentication::Refused(Rejection::new(reason, Cause::WrongPassword))
}

/// Asks once, grants "yes", refuses any other answer; the test itself decides on "later".
struct Scripted;

impl Access for Scripted {
    fn authenticate(&mut self, _: Now, _: u64, who: &Credentials<'_>) -> Authentication {
        match who.method {
            Some(("riddle", b"later")) => Authentication::Pending,
            Some(("riddle", _)) => Authentication::Continue(b"question".to_vec()),
            Some(_) => refused(ReasonCode::BadAuthenticationMethod),
            None => refused(ReasonCode::NotAuthorized),
        }
    }

    fn proceed(&mut self, _: Now, _: u64, data: &[u8]) -> Authentication {
        match data {
            b"yes" => {
                Authentication::Granted(Grant { data: b"welcome".to_vec(), ..Grant::default() })
            }
            b"again" => Authentication::Continue(b"and now".to_vec()),
            _ => refused(ReasonCode::NotAuthorized),
        }
    }

    fn may_publish(&mut self, _: Now, _: &Identity<'_>, topic: &str, _: Qos, _: bool) -> Decision {
        Decision::of(topic != "secret")
    }

    fn may_subscribe(&mut self, _: Now, _: &Identity<'_>, filter: &str, qos: Qos) -> Decision<Qos> {
        if filter == "secret" { Decision::Denied } else { Decision::Allowed(qos) }
    }
}

fn world() -> World {
    World::with(|_| {}, Box::new(Scripted))
}

fn riddle(data: &'static [u8]) -> Client<'static> {
    let mut client = Client::v5("c");
    client.properties.authentication_method = Some("riddle");
    client.properties.authentication_data = Some(data);
    client
}

fn auth(reason: ReasonCode, method: &'static str, data: &'static [u8]) -> Packet<'static> {
    Packet::Auth(Auth {
        reason,
        authentication_method: Some(method),
        authentication_data: Some(data),
        reason_string: None,
        user_properties: UserProperties::none(),
    })
}

fn open(world: &mut World) -> ConnectionId {
    let id = world.accept();
    world.send_connect(id, &riddle(b""));
    world.send(id, Version::V5, &auth(ReasonCode::ContinueAuthentication, "riddle", b"yes"));
    let packets = world.packets(id, Version::V5);
    assert!(packets[0].starts_with("Auth") && packets[0].contains("ContinueAuthentication"));
    assert!(packets[1].starts_with("Connack") && packets[1].contains("Success"), "{packets:?}");
    // [MQTT-4.12.0-5]: the method comes back in CONNACK.
    assert!(packets[1].contains("riddle"));
    id
}

#[test]
fn mqtt_4_12_0_2_the_exchange_continues_until_connack() {
    open(&mut world());
}

#[test]
fn mqtt_4_12_0_4_a_refusal_in_the_exchange_sends_connack_with_the_reason_and_closes_the_connection()
{
    let mut world = world();
    let id = world.accept();
    world.send_connect(id, &riddle(b""));
    world.send(id, Version::V5, &auth(ReasonCode::ContinueAuthentication, "riddle", b"no"));
    let packets = world.packets(id, Version::V5);
    assert!(packets[1].starts_with("Connack") && packets[1].contains("NotAuthorized"));
    assert!(world.closed.contains(&id));
}

#[test]
fn mqtt_4_12_0_1_an_unknown_method_is_refused() {
    let mut world = world();
    let id = world.accept();
    let mut client = Client::v5("c");
    client.properties.authentication_method = Some("unheard-of");
    world.send_connect(id, &client);
    assert!(world.packets(id, Version::V5)[0].contains("BadAuthenticationMethod"));
}

#[test]
fn mqtt_3_1_2_30_only_auth_and_disconnect_are_allowed_before_connack() {
    let mut world = world();
    let id = world.accept();
    world.send_connect(id, &riddle(b""));
    world.send(id, Version::V5, &Packet::Pingreq);
    assert!(world.closed.contains(&id));
}

#[test]
fn mqtt_4_12_0_5_the_method_must_not_change() {
    let mut world = world();
    let id = open(&mut world);
    world.send(id, Version::V5, &auth(ReasonCode::Reauthenticate, "other", b""));
    let packets = world.packets(id, Version::V5);
    assert!(packets[0].contains("ProtocolError") && world.closed.contains(&id), "{packets:?}");
}

#[test]
fn mqtt_4_12_1_1_a_client_continues_to_publish_while_it_reauthenticates() {
    let mut world = world();
    let id = open(&mut world);
    world.send(id, Version::V5, &auth(ReasonCode::Reauthenticate, "riddle", b""));
    world.send(id, Version::V5, &Packet::Pingreq);
    world.send(id, Version::V5, &auth(ReasonCode::ContinueAuthentication, "riddle", b"yes"));
    let packets = world.packets(id, Version::V5);
    assert!(packets[0].contains("ContinueAuthentication") && packets[1] == "Pingresp");
    assert!(packets[2].starts_with("Auth") && packets[2].contains("Success"), "{packets:?}");
}

#[test]
fn mqtt_4_12_1_2_a_failed_reauthentication_ends_the_connection() {
    let mut world = world();
    let id = open(&mut world);
    world.send(id, Version::V5, &auth(ReasonCode::Reauthenticate, "riddle", b""));
    world.send(id, Version::V5, &auth(ReasonCode::ContinueAuthentication, "riddle", b"no"));
    let packets = world.packets(id, Version::V5);
    assert!(packets[1].starts_with("Disconnect") && packets[1].contains("NotAuthorized"));
    assert!(world.closed.contains(&id));
}

#[test]
fn input_waits_for_a_pending_access_decision_and_is_then_processed() {
    let mut world = world();
    let id = world.accept();
    world.send_connect(id, &riddle(b"later"));
    world.send(id, Version::V5, &Packet::Pingreq);
    assert!(world.packets(id, Version::V5).is_empty());
    assert!(world.engine.metrics().memory_bytes > 20, "waiting input counts as memory");
    world.engine.handle_authenticated(world.now, id, Authentication::Granted(Grant::default()));
    world.settle();
    let packets = world.packets(id, Version::V5);
    assert!(packets[0].starts_with("Connack") && packets[1] == "Pingresp", "{packets:?}");
    world.cut(id);
    assert_eq!(world.engine.metrics().memory_bytes, 0);
}

#[test]
fn unauthorized_requests_are_refused_with_not_authorized_and_counted() {
    let mut world = world();
    let id = open(&mut world);
    world.subscribe(id, "secret", Qos::AtMostOnce);
    world.publish(id, "secret", b"m", Qos::AtLeastOnce, 5);
    let packets = world.packets(id, Version::V5);
    assert!(packets[0].contains("135"), "SUBACK 0x87: {packets:?}");
    assert!(packets[1].starts_with("Puback") && packets[1].contains("NotAuthorized"));
    assert_eq!(world.engine.metrics().drops.of(crate::base::metrics::Drop::NotAuthorized), 1);
}

/// Admits every client until the test says otherwise.
struct Fickle(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Access for Fickle {
    fn authenticate(&mut self, _: Now, _: u64, _: &Credentials<'_>) -> Authentication {
        Authentication::Granted(Grant::default())
    }

    fn withdrawn(&mut self, exchange: u64) -> Option<ReasonCode> {
        let is_odd = exchange % 2 == 1;
        is_odd.then_some(ReasonCode::NotAuthorized)
    }

    fn revision(&mut self) -> u64 {
        1 + u64::from(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
}

#[test]
fn clients_with_revoked_credentials_are_disconnected_over_several_turns_and_others_stay() {
    let has_changed = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
    let access = Box::new(Fickle(std::sync::Arc::clone(&has_changed)));
    let mut world = World::with(|settings| settings.limits.connections_max = 2_000, access);
    let per_turn = crate::base::limits::SESSIONS_CHECKED_PER_TURN;
    let names: Vec<String> = (0..3 * per_turn).map(|number| format!("c{number}")).collect();
    let ids: Vec<ConnectionId> =
        names.iter().map(|name| world.connect(&Client::v5(name))).collect();
    world.engine.handle_answers(world.now);
    world.settle();
    assert!(world.closed.is_empty(), "nothing has changed yet");
    has_changed.store(true, std::sync::atomic::Ordering::Relaxed);
    for turn in 1..=3 {
        world.engine.handle_answers(world.now);
        world.turn();
        assert_eq!(world.closed.len(), turn * per_turn / 2);
    }
    let (gone, stay): (Vec<_>, Vec<_>) = ids.iter().partition(|id| id.slot % 2 == 1);
    for id in gone {
        assert!(world.closed.contains(id));
        let packets = world.packets(*id, Version::V5);
        assert!(packets[0].contains("NotAuthorized"), "{packets:?}");
    }
    assert!(stay.iter().all(|id| !world.closed.contains(id)));
    assert_eq!(world.engine.metrics().credentials_withdrawn, names.len() as u64 / 2);
}

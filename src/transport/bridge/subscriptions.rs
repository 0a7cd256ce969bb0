//! What a bridge has subscribed to at its far broker, how that becomes what the configuration wants, and what the far
//! broker has refused.

use super::report::Event;
use super::session;
use crate::config::bridge::changes::difference;
use crate::wire::{Qos, Version};

/// The subscriptions at the far broker, as of one connection. One SUBSCRIBE and one UNSUBSCRIBE are under way at a time.
#[derive(Debug, Default)]
pub(super) struct FarSubscriptions {
    /// Filters that the far broker has been asked for; without QoS those from an earlier connection.
    held: Vec<(Box<str>, Option<Qos>)>,
    /// Filters of the SUBSCRIBE that is not answered.
    subscribing: Vec<Box<str>>,
    /// Filters of the UNSUBSCRIBE that is not answered.
    unsubscribing: Vec<Box<str>>,
    /// Refused filters, with their Reason Codes.
    refused: Vec<(Box<str>, u8)>,
    /// If the SUBSCRIBE that is not answered repeats without No Local what was refused with it: why that was.
    repeated: Option<Vec<u8>>,
    /// The far broker has given another reason for the end of the connection.
    is_excused: bool,
    /// Whether SUBSCRIBE asks for No Local.
    no_local: bool,
}

/// Whether a far broker that refuses subscriptions for this reason may refuse their No Local: it does not say so, and
/// there is no Reason Code for that. Unspecified, malformed, protocol error, implementation specific, Topic Filter
/// invalid.
fn may_be_about_no_local(reason: u8) -> bool {
    matches!(reason, 0x80..=0x83 | 0x8F)
}

/// Whether a filter is that of a shared subscription, which has no No Local.
fn is_shared(filter: &str) -> bool {
    filter.starts_with(session::SHARED)
}

impl FarSubscriptions {
    /// Without subscriptions.
    pub fn new(no_local: bool) -> Self {
        Self { no_local, ..Self::default() }
    }

    /// Whether SUBSCRIBE asks for No Local.
    pub fn no_local(&self) -> bool {
        self.no_local
    }

    /// The far broker ends the connection for this reason.
    pub fn note_end(&mut self, reason: u8) {
        self.is_excused |= !may_be_about_no_local(reason);
    }

    /// Whether a connection that ends now may do so because of No Local: SUBSCRIBE was not answered, and no other reason
    /// was given.
    pub fn is_no_local_in_doubt(&self) -> bool {
        self.no_local && !self.is_excused && self.subscribing.iter().any(|of| !is_shared(of))
    }

    /// The far broker may have these filters from an earlier connection.
    pub fn remember(&mut self, filters: &[Box<str>]) {
        for filter in filters {
            if !self.held.iter().any(|(held, _)| held == filter) {
                self.held.push((filter.clone(), None));
            }
        }
    }

    /// Appends SUBSCRIBE and UNSUBSCRIBE of the difference to the wanted filters. What has to wait for an answer follows
    /// when this is called after it. Returns what there is to tell if a refused filter is not wanted any more.
    pub fn ask_for<'a>(
        &mut self,
        wanted: impl Iterator<Item = (&'a str, Qos)>,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Option<Event> {
        let wanted: Vec<_> = wanted.map(|(filter, qos)| (filter, Some(qos))).collect();
        let held: Vec<_> = self.held.iter().map(|(filter, qos)| (&**filter, *qos)).collect();
        let difference = difference(&held, &wanted);
        let owned = |&(filter, qos): &(&str, Option<Qos>)| (Box::from(filter), qos);
        let added: Vec<(Box<str>, _)> = difference.added.iter().map(owned).collect();
        let removed: Vec<Box<str>> = difference.removed.into_iter().map(Into::into).collect();
        // First, so that a filter in place of another leaves no gap.
        if self.subscribing.is_empty() && !added.is_empty() {
            let filters = added.iter().map(|(filter, qos)| (&**filter, qos.unwrap_or_default()));
            session::subscribe_far(&filters.collect::<Vec<_>>(), self.no_local, version, out);
            self.subscribing = added.iter().map(|(filter, _)| filter.clone()).collect();
            for (filter, qos) in added {
                match self.held.iter_mut().find(|(held, _)| *held == filter) {
                    Some((_, held)) => *held = qos,
                    None => self.held.push((filter, qos)),
                }
            }
        }
        if self.unsubscribing.is_empty() && !removed.is_empty() {
            let filters: Vec<&str> = removed.iter().map(|filter| &**filter).collect();
            session::unsubscribe(&filters, version, out);
            self.held.retain(|(held, _)| !removed.contains(held));
            self.unsubscribing = removed;
        }
        let count = self.refused.len();
        self.refused.retain(|(refused, _)| wanted.iter().any(|(filter, _)| **filter == **refused));
        (self.refused.len() < count).then(|| self.answer())
    }

    /// Appends SUBSCRIBE for the refused filters, if there are any and no answer is due.
    pub fn ask_again(&mut self, version: Version, out: &mut Vec<u8>) {
        if !self.subscribing.is_empty() {
            return;
        }
        let is_refused =
            |filter: &str| self.refused.iter().any(|(refused, _)| **refused == *filter);
        let filters = self.held.iter().filter(|(filter, _)| is_refused(filter));
        let filters = filters.map(|(filter, qos)| (&**filter, qos.unwrap_or_default()));
        let filters: Vec<_> = filters.collect();
        session::subscribe_far(&filters, self.no_local, version, out);
        self.subscribing = filters.into_iter().map(|(filter, _)| filter.into()).collect();
    }

    /// The far broker has answered SUBSCRIBE. Returns what there is to tell about filters that are refused, or were.
    /// Filters that may be refused because of No Local are asked for once more without it.
    pub fn take_suback(
        &mut self,
        reasons: &[u8],
        version: Version,
        out: &mut Vec<u8>,
    ) -> impl Iterator<Item = Event> + use<> {
        // A filter without an answer is refused: the packet breaks the protocol [MQTT-3.9.3-1].
        let reasons = reasons.iter().copied().chain(std::iter::repeat(0x80));
        let mut answered: Vec<_> =
            std::mem::take(&mut self.subscribing).into_iter().zip(reasons).collect();
        let mut is_no_local_refused = false;
        match self.repeated.take() {
            Some(first) => {
                is_no_local_refused = answered.iter().any(|(_, code)| *code < 0x80);
                self.no_local &= !is_no_local_refused;
                // What is refused anyway is refused for the reason that was given at first.
                let codes = answered.iter_mut().map(|(_, code)| code).zip(first);
                codes.filter(|(code, _)| **code >= 0x80).for_each(|(code, first)| *code = first);
            }
            None if version == Version::V5 && self.no_local => {
                self.repeat_without_no_local(&mut answered, version, out);
            }
            None => {}
        }
        let had_refused = !self.refused.is_empty();
        self.refused.retain(|(refused, _)| !answered.iter().any(|(of, _)| of == refused));
        // What was given up meanwhile may be refused.
        let is_held = |filter: &str| self.held.iter().any(|(held, _)| **held == *filter);
        let refused = answered.into_iter();
        self.refused.extend(refused.filter(|(filter, code)| *code >= 0x80 && is_held(filter)));
        let answer = (had_refused || !self.refused.is_empty()).then(|| self.answer());
        [is_no_local_refused.then_some(Event::NoLocalRefused), answer].into_iter().flatten()
    }

    /// Takes out of what was answered what may be refused because of No Local, and asks for it without.
    fn repeat_without_no_local(
        &mut self,
        answered: &mut Vec<(Box<str>, u8)>,
        version: Version,
        out: &mut Vec<u8>,
    ) {
        let held = &self.held;
        let qos_of =
            |filter: &str| held.iter().find(|(of, _)| **of == *filter).map(|(_, qos)| *qos);
        let is_doubtful = |(filter, code): &mut (Box<str>, u8)| {
            may_be_about_no_local(*code) && !is_shared(filter) && qos_of(filter).is_some()
        };
        let doubtful: Vec<_> = answered.extract_if(.., is_doubtful).collect();
        if doubtful.is_empty() {
            return;
        }
        let filters = doubtful
            .iter()
            .map(|(filter, _)| (&**filter, qos_of(filter).flatten().unwrap_or_default()));
        session::subscribe_far(&filters.collect::<Vec<_>>(), false, version, out);
        let (filters, codes) = doubtful.into_iter().unzip();
        (self.subscribing, self.repeated) = (filters, Some(codes));
    }

    /// UNSUBACK has come: the filters that it answers.
    pub fn take_unsuback(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.unsubscribing)
    }

    /// Whether the far broker has nothing left, and nothing is to be answered.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.unsubscribing.is_empty()
    }

    fn answer(&self) -> Event {
        let refused = self.refused.iter().map(|(filter, code)| (filter.to_string(), *code));
        Event::Subscribed { refused: refused.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Frame, Packet, UnsubscribeFilters};

    const Q1: Qos = Qos::AtLeastOnce;
    const Q2: Qos = Qos::ExactlyOnce;

    /// What is sent: filters of SUBSCRIBE, and of UNSUBSCRIBE.
    fn asked(of: &mut FarSubscriptions, wanted: &[(&str, Qos)]) -> (Vec<String>, Vec<String>) {
        let mut out = Vec::new();
        of.ask_for(wanted.iter().copied(), Version::V5, &mut out);
        let (mut subscribed, mut unsubscribed, mut rest) = (Vec::new(), Vec::new(), &out[..]);
        while !rest.is_empty() {
            let Ok(Frame::Complete { total, .. }) = wire::frame(rest, usize::MAX) else {
                panic!("{out:02x?}")
            };
            match wire::decode(&rest[..total], Version::V5).expect("a valid packet") {
                Packet::Subscribe(of) => {
                    subscribed.extend(of.filters.iter().map(|(filter, _)| filter.to_owned()));
                }
                Packet::Unsubscribe(of) => {
                    let filters: UnsubscribeFilters<'_> = of.filters;
                    unsubscribed.extend(filters.iter().map(str::to_owned));
                }
                other => panic!("{other:?}"),
            }
            rest = &rest[total..];
        }
        (subscribed, unsubscribed)
    }

    /// What there is to tell after SUBACK before MQTT 5.0.
    fn suback(of: &mut FarSubscriptions, reasons: &[u8]) -> Option<Event> {
        of.take_suback(reasons, Version::V311, &mut Vec::new()).next()
    }

    fn texts(of: &[&str]) -> Vec<String> {
        of.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn only_the_difference_is_asked_for() {
        let mut of = FarSubscriptions::default();
        assert_eq!(asked(&mut of, &[("a", Q1), ("b", Q1)]), (texts(&["a", "b"]), texts(&[])));
        assert_eq!(suback(&mut of, &[1, 1]), None);
        assert_eq!(asked(&mut of, &[("a", Q1), ("b", Q1)]), (texts(&[]), texts(&[])));
        assert_eq!(asked(&mut of, &[("c", Q1), ("b", Q2)]), (texts(&["c", "b"]), texts(&["a"])));
    }

    #[test]
    fn a_change_during_another_one_waits_for_its_answer() {
        let mut of = FarSubscriptions::default();
        assert_eq!(asked(&mut of, &[("a", Q1)]).0, ["a"]);
        assert_eq!(asked(&mut of, &[("b", Q1)]), (texts(&[]), texts(&["a"])));
        suback(&mut of, &[1]);
        assert_eq!(asked(&mut of, &[("b", Q1)]), (texts(&["b"]), texts(&[])));
        suback(&mut of, &[1]);
        assert_eq!(asked(&mut of, &[]), (texts(&[]), texts(&[])), "UNSUBACK is awaited");
        assert_eq!(of.take_unsuback(), ["a".into()]);
        assert_eq!(asked(&mut of, &[]), (texts(&[]), texts(&["b"])));
        assert!(!of.is_empty());
        of.take_unsuback();
        assert!(of.is_empty());
    }

    #[test]
    fn filters_of_an_earlier_connection_are_given_up_and_wanted_ones_asked_for_again() {
        let mut of = FarSubscriptions::default();
        of.remember(&["old".into(), "a".into()]);
        assert_eq!(asked(&mut of, &[("a", Q1)]), (texts(&["a"]), texts(&["old"])));
    }

    fn refused(of: &[(&str, u8)]) -> Option<Event> {
        let refused = of.iter().map(|&(filter, code)| (filter.to_owned(), code)).collect();
        Some(Event::Subscribed { refused })
    }

    #[test]
    fn what_is_refused_is_asked_for_again_until_it_is_granted_or_not_wanted_any_more() {
        let (mut of, mut out) = (FarSubscriptions::default(), Vec::new());
        asked(&mut of, &[("a", Q1), ("b", Q1), ("c", Q1)]);
        assert_eq!(suback(&mut of, &[0x87, 1, 0x80]), refused(&[("a", 0x87), ("c", 0x80)]));
        assert_eq!(asked(&mut of, &[("a", Q1), ("b", Q1), ("c", Q1)]), (texts(&[]), texts(&[])));
        // A change: SUBSCRIBE of others says nothing of them.
        assert_eq!(asked(&mut of, &[("a", Q1), ("c", Q1), ("d", Q1)]).0, ["d"]);
        of.ask_again(Version::V5, &mut out);
        assert!(out.is_empty(), "an answer is due");
        assert_eq!(suback(&mut of, &[1]), refused(&[("a", 0x87), ("c", 0x80)]));
        of.take_unsuback();
        let event = of.ask_for([("a", Q1), ("d", Q1)].into_iter(), Version::V5, &mut out);
        assert_eq!(event, refused(&[("a", 0x87)]), "c is not wanted any more");
        of.ask_again(Version::V5, &mut out);
        assert_eq!(suback(&mut of, &[1]), refused(&[]));
        assert_eq!(suback(&mut of, &[]), None);
    }

    #[test]
    fn what_is_refused_after_it_was_given_up_is_not_told() {
        let mut of = FarSubscriptions::default();
        asked(&mut of, &[("a", Q1)]);
        assert_eq!(asked(&mut of, &[]).1, ["a"]);
        assert_eq!(suback(&mut of, &[0x80]), None);
    }

    /// The filters of a SUBSCRIBE, and whether it asks for No Local.
    fn subscribe_of(packet: &[u8]) -> (Vec<String>, bool) {
        match wire::decode(packet, Version::V5).expect("a valid packet") {
            Packet::Subscribe(of) => {
                let no_local = of.filters.iter().all(|(_, options)| options.no_local);
                (of.filters.iter().map(|(filter, _)| filter.to_owned()).collect(), no_local)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_may_be_refused_because_of_no_local_is_asked_for_once_more_without_it() {
        let (mut of, mut out) = (FarSubscriptions::new(true), Vec::new());
        let wanted = [("a", Q1), ("b", Q1), ("c", Q1), ("$share/g/d", Q1)];
        let _ = of.ask_for(wanted.into_iter(), Version::V5, &mut Vec::new());
        // Not authorized is not about No Local, and a shared subscription has none.
        let events: Vec<_> =
            of.take_suback(&[0x80, 1, 0x87, 0x80], Version::V5, &mut out).collect();
        assert_eq!(events, [refused(&[("c", 0x87), ("$share/g/d", 0x80)]).expect("an event")]);
        assert_eq!(subscribe_of(&out), (texts(&["a"]), false));
        out.clear();
        let events: Vec<_> = of.take_suback(&[1], Version::V5, &mut out).collect();
        assert_eq!(events[0], Event::NoLocalRefused);
        assert_eq!(events.len(), 2);
        assert!(out.is_empty() && !of.no_local());
        of.ask_again(Version::V5, &mut out);
        assert_eq!(subscribe_of(&out), (texts(&["c", "$share/g/d"]), false));
    }

    #[test]
    fn an_end_of_the_connection_may_be_about_no_local_only_while_subscribe_is_not_answered() {
        let mut of = FarSubscriptions::new(true);
        assert!(!of.is_no_local_in_doubt());
        asked(&mut of, &[("a", Q1)]);
        assert!(of.is_no_local_in_doubt());
        let mut excused = FarSubscriptions::new(true);
        asked(&mut excused, &[("a", Q1)]);
        excused.note_end(0x8B);
        assert!(!excused.is_no_local_in_doubt());
        suback(&mut of, &[1]);
        assert!(!of.is_no_local_in_doubt());
        let mut without = FarSubscriptions::new(false);
        asked(&mut without, &[("a", Q1)]);
        assert!(!without.is_no_local_in_doubt());
    }
}

//! A publishing client: its template, its pace, and its unacknowledged messages.

use std::collections::VecDeque;

use super::Load;
use crate::{
    clock,
    codec::{PublishTemplate, Qos, encode_pingreq},
    error::{Error, Result},
    limits::OUTGOING_BYTES_MAX,
    pace::{Pace, Timetable, Window},
    scenario::{LoadMode, Scenario, Share, Workload},
    stamp::Stamp,
};

/// A publishing client.
#[derive(Debug)]
pub struct Publisher {
    template: PublishTemplate,
    pub(super) pace: Pace,
    /// Messages sent, which is the sequence number of the next one.
    pub(super) sent: u64,
    acknowledged: Acknowledged,
    receive_maximum: u64,
    qos: Qos,
    /// Without receivers: when each message was sent that the broker has not processed yet.
    taken: Option<Taken>,
    /// Whether it is in the list of those that may have something to send.
    pub(super) listed: bool,
}

/// Progress of the broker's acknowledgements. They must be in the order of the messages
/// [MQTT-4.6.0-2, -3], and identifiers are assigned in turn, so a count is sufficient.
#[derive(Debug, Default)]
struct Acknowledged {
    /// PUBRECs (QoS 2).
    received: u64,
    /// PUBACKs (QoS 1) or PUBCOMPs (QoS 2).
    completed: u64,
}

/// How the broker shows that it has processed messages without receivers: by an acknowledgement, or
/// at QoS 0 by the response to a PINGREQ sent after them.
#[derive(Debug, Default)]
struct Taken {
    sent_ns: VecDeque<u64>,
    /// Messages before each unanswered PINGREQ.
    before_pings: VecDeque<usize>,
}

/// The Packet Identifier of a publisher's message `sequence`: 1 to 65,535 in turn.
fn packet_identifier(sequence: u64) -> u16 {
    (sequence % u64::from(u16::MAX)) as u16 + 1
}

impl Publisher {
    /// Publisher `index` of the workload, in the process with this share.
    pub fn new(workload: &Workload, run: u32, index: u32, share: Share) -> Self {
        let topic = workload.topic(run, index);
        let payload_bytes = workload.payload_bytes as usize;
        Self {
            template: PublishTemplate::new(workload.mqtt, &topic, workload.qos, payload_bytes),
            pace: pace(workload, index, share, 0),
            sent: 0,
            acknowledged: Acknowledged::default(),
            receive_maximum: u64::from(u16::MAX),
            qos: workload.qos,
            taken: (workload.scenario == Scenario::Pub).then(Taken::default),
            listed: false,
        }
    }

    /// Handles the broker's CONNACK.
    pub fn set_receive_maximum(&mut self, receive_maximum: u16) {
        self.receive_maximum = u64::from(receive_maximum);
    }

    /// Number of messages whose exchange is incomplete.
    pub fn unacknowledged(&self) -> u64 {
        match self.qos {
            Qos::AtMostOnce => self.taken.as_ref().map_or(0, |taken| taken.sent_ns.len() as u64),
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.sent - self.acknowledged.completed,
        }
    }

    /// PUBACK or PUBCOMP; returns whether it was expected.
    #[must_use]
    pub fn complete(&mut self, identifier: u16, qos: Qos) -> bool {
        let completed = self.acknowledged.completed;
        let bound = if qos == Qos::ExactlyOnce { self.acknowledged.received } else { self.sent };
        let due =
            self.qos == qos && completed < bound && identifier == packet_identifier(completed);
        self.acknowledged.completed += u64::from(due);
        due
    }

    /// PUBREC; returns whether it was expected.
    #[must_use]
    pub fn receive(&mut self, identifier: u16) -> bool {
        let received = self.acknowledged.received;
        let due = self.qos == Qos::ExactlyOnce
            && received < self.sent
            && identifier == packet_identifier(received);
        self.acknowledged.received += u64::from(due);
        due
    }

    /// Asks the broker to confirm the messages from `since` on, unless acknowledgements do.
    fn ping(&mut self, since: u64, outgoing: &mut Vec<u8>) {
        if self.qos > Qos::AtMostOnce || self.sent == since {
            return;
        }
        if let Some(taken) = &mut self.taken {
            taken.before_pings.push_back((self.sent - since) as usize);
            encode_pingreq(outgoing);
        }
    }

    /// A message was acknowledged, or a PINGREQ after some messages was answered: returns when each
    /// was sent. Empty if deliveries are counted instead.
    pub fn take(&mut self, qos: Qos) -> impl Iterator<Item = u64> {
        let taken = self.taken.as_mut();
        let (count, sent_ns) = match taken {
            None => (0, None),
            Some(taken) if qos == Qos::AtMostOnce => {
                (taken.before_pings.pop_front().unwrap_or(0), Some(&mut taken.sent_ns))
            }
            Some(taken) => (taken.sent_ns.len().min(1), Some(&mut taken.sent_ns)),
        };
        sent_ns.into_iter().flat_map(move |sent_ns| sent_ns.drain(..count))
    }

    /// Number of messages that may be sent now.
    fn due(&self, now_ns: u64) -> u64 {
        let due = self.pace.due(now_ns);
        match self.qos {
            Qos::AtMostOnce => due,
            _ => due.min(self.receive_maximum - self.unacknowledged().min(self.receive_maximum)),
        }
    }
}

/// The pace of publisher `index` of the run, from `start_ns` on. Timetables are offset, so that the
/// publishers together send at a constant rate.
fn pace(workload: &Workload, index: u32, share: Share, start_ns: u64) -> Pace {
    match workload.load {
        LoadMode::Closed { window, burst } => {
            Pace::Window(Window::new(window, burst, workload.settlements(share)))
        }
        LoadMode::Open { per_second } => {
            let step_ns = 1e9 / per_second;
            let first_ns = start_ns as f64 + f64::from(index) * step_ns;
            Pace::Timetable(Timetable::new(first_ns, step_ns * f64::from(workload.publishers)))
        }
    }
}

impl Load {
    /// Starts all publishers.
    pub(super) fn start_publishing(&mut self, start_ns: u64) {
        for (index, publisher) in self.publishers.iter_mut().enumerate() {
            let index = self.share.in_run(index as u32);
            publisher.pace = pace(&self.workload, index, self.share, start_ns);
        }
        self.publishing = true;
        match self.workload.load {
            LoadMode::Closed { .. } => {
                (0..self.publishers.len() as u32).for_each(|index| self.list(index));
            }
            LoadMode::Open { per_second } => {
                self.timetable = Some(Timetable::new(start_ns as f64, 1e9 / per_second));
            }
        }
    }

    /// In an open loop only time makes publishers due: processes those whose time has come; returns
    /// when the next one is due.
    pub(super) fn list_due(&mut self, now_ns: u64) -> Option<u64> {
        let mut timetable = self.timetable.take()?;
        while timetable.next_ns() <= now_ns {
            let publisher = timetable.pass() % u64::from(self.workload.publishers);
            if let Some(index) = self.share.in_process(publisher as u32) {
                self.list(index);
            }
        }
        let next_ns = timetable.next_ns();
        self.timetable = Some(timetable);
        Some(next_ns)
    }

    /// Schedules this publisher for the end of the turn.
    #[inline]
    pub(super) fn list(&mut self, publisher: u32) {
        let listed = &mut self.publishers[publisher as usize].listed;
        if !*listed {
            *listed = true;
            self.ready.push(publisher);
        }
    }

    /// Sends due messages, with one write per connection, or per message.
    pub(super) fn publish_ready(&mut self) -> Result<()> {
        let now_ns = clock::now_ns();
        let mut ready = std::mem::take(&mut self.ready);
        for index in ready.drain(..) {
            self.publishers[index as usize].listed = false;
            let client = self.client_of(index);
            loop {
                let due_more = self.publishing && self.publish(index, now_ns);
                self.flush(client)?;
                // The rest is sent when the socket is writable again.
                if !due_more || self.clients[client].outgoing_bytes() > 0 {
                    break;
                }
            }
        }
        // No publisher is added meanwhile, so the list's memory can be reused.
        self.ready = ready;
        Ok(())
    }

    /// Encodes due messages, as many as are written together; returns whether more are due.
    fn publish(&mut self, index: u32, now_ns: u64) -> bool {
        let client = self.client_of(index);
        let outgoing = &mut self.clients[client].outgoing;
        let publisher = &mut self.publishers[index as usize];
        let allowed = self.settings.messages_max - self.recorder.begun;
        let pinged_at = publisher.sent;
        let due = publisher.due(now_ns).min(allowed);
        let together = if self.workload.is_segment_each { due.min(1) } else { due };
        for _ in 0..together {
            // A message that is not encoded yet has no stamp: in an open loop the stamp will be the
            // scheduled time.
            if outgoing.len() >= OUTGOING_BYTES_MAX {
                publisher.ping(pinged_at, outgoing);
                return true;
            }
            let stamp = Stamp {
                run: self.run as u16,
                publisher: self.share.in_run(index),
                sequence: publisher.sent,
                sent_ns: publisher.pace.sent(now_ns),
            };
            publisher.template.encode(packet_identifier(publisher.sent), &stamp, outgoing);
            if let Some(taken) = &mut publisher.taken {
                taken.sent_ns.push_back(stamp.sent_ns);
            }
            publisher.sent += 1;
            self.recorder.begun += 1;
        }
        publisher.ping(pinged_at, outgoing);
        together < due
    }

    /// Writes unsent data of a client.
    pub(super) fn flush(&mut self, index: usize) -> Result<()> {
        if self.clients[index].outgoing_bytes() == 0 {
            return Ok(());
        }
        let outcome = self.clients[index].flush();
        outcome.map_err(|source| Error::io(format!("write as {}", self.name_of(index)), source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::Version, scenario::Scenario};

    fn publisher(qos: Qos) -> Publisher {
        let load = LoadMode::Closed { window: 10, burst: 1 };
        let scenario = Scenario::PointToPoint;
        let (mqtt, payload_bytes, are_sessions_kept) = (Version::V5, 64, false);
        let (publishers, subscribers) = (1, 1);
        let workload = Workload {
            scenario,
            publishers,
            subscribers,
            topics: 1,
            mqtt,
            qos,
            payload_bytes,
            are_sessions_kept,
            load,
            loss_fails: false,
            is_segment_each: false,
        };
        let mut publisher = Publisher::new(&workload, 0, 0, Share::WHOLE);
        publisher.sent = 3;
        publisher
    }

    #[test]
    fn unexpected_acknowledgements_are_detected() {
        let mut publisher = publisher(Qos::AtLeastOnce);
        assert!(!publisher.complete(2, Qos::AtLeastOnce));
        assert!((1..=3).all(|identifier| publisher.complete(identifier, Qos::AtLeastOnce)));
        assert!(!publisher.complete(4, Qos::AtLeastOnce));
        assert!(!publisher.receive(4));
        assert_eq!(publisher.unacknowledged(), 0);
    }

    #[test]
    fn a_pubcomp_before_pubrec_is_detected() {
        let mut publisher = publisher(Qos::ExactlyOnce);
        assert!(!publisher.complete(1, Qos::ExactlyOnce));
        assert!(publisher.receive(1));
        assert!(!publisher.complete(1, Qos::AtLeastOnce));
        assert!(publisher.complete(1, Qos::ExactlyOnce));
        assert_eq!(publisher.unacknowledged(), 2);
    }

    #[test]
    fn the_receive_maximum_limits_due_messages() {
        let mut publisher = publisher(Qos::AtLeastOnce);
        publisher.set_receive_maximum(5);
        assert_eq!(publisher.due(0), 2);
        assert!(publisher.complete(1, Qos::AtLeastOnce));
        assert_eq!(publisher.due(0), 3);
    }

    #[test]
    fn packet_identifiers_wrap_around_without_zero() {
        assert_eq!(packet_identifier(0), 1);
        assert_eq!(packet_identifier(65_534), 65_535);
        assert_eq!(packet_identifier(65_535), 1);
    }
}

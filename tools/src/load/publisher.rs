//! A sending client: its template, its pace, and its messages that await acknowledgement.

use super::Load;
use crate::{
    codec::{PublishTemplate, Qos},
    error::{Error, Result},
    limits::OUTGOING_BYTES_MAX,
    pace::{Pace, Timetable, Window},
    scenario::{LoadMode, Workload},
    stamp::Stamp,
};

/// A sending client.
#[derive(Debug)]
pub struct Publisher {
    template: PublishTemplate,
    pub(super) pace: Pace,
    /// Messages sent, which is the sequence number of the next one.
    pub(super) sent: u64,
    acknowledged: Acknowledged,
    receive_maximum: u64,
    qos: Qos,
    /// Whether it is in the list of those that may have something to send.
    pub(super) listed: bool,
}

/// How far the broker has acknowledged. It has to acknowledge in the order in which it received
/// [MQTT-4.6.0-2, -3], and identifiers are given out in turn, so a count says which are open.
#[derive(Debug, Default)]
struct Acknowledged {
    /// PUBRECs (QoS 2).
    received: u64,
    /// PUBACKs (QoS 1) or PUBCOMPs (QoS 2).
    completed: u64,
}

/// The Packet Identifier of a publisher's message `sequence`: 1 to 65,535 in turn.
fn packet_identifier(sequence: u64) -> u16 {
    (sequence % u64::from(u16::MAX)) as u16 + 1
}

impl Publisher {
    /// Publisher `index` of the workload.
    pub fn new(workload: &Workload, run: u32, index: u32) -> Self {
        let topic = workload.topic(run, index);
        let payload_bytes = workload.payload_bytes as usize;
        Self {
            template: PublishTemplate::new(workload.mqtt, &topic, workload.qos, payload_bytes),
            pace: pace(workload, index, 0),
            sent: 0,
            acknowledged: Acknowledged::default(),
            receive_maximum: u64::from(u16::MAX),
            qos: workload.qos,
            listed: false,
        }
    }

    /// What the broker's CONNACK said.
    pub fn set_receive_maximum(&mut self, receive_maximum: u16) {
        self.receive_maximum = u64::from(receive_maximum);
    }

    /// Messages that are not acknowledged as their QoS asks.
    pub fn unacknowledged(&self) -> u64 {
        match self.qos {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.sent - self.acknowledged.completed,
        }
    }

    /// PUBACK or PUBCOMP; whether it is the one that is due.
    #[must_use]
    pub fn complete(&mut self, identifier: u16, qos: Qos) -> bool {
        let completed = self.acknowledged.completed;
        let bound = if qos == Qos::ExactlyOnce { self.acknowledged.received } else { self.sent };
        let due =
            self.qos == qos && completed < bound && identifier == packet_identifier(completed);
        self.acknowledged.completed += u64::from(due);
        due
    }

    /// PUBREC; whether it is the one that is due.
    #[must_use]
    pub fn receive(&mut self, identifier: u16) -> bool {
        let received = self.acknowledged.received;
        let due = self.qos == Qos::ExactlyOnce
            && received < self.sent
            && identifier == packet_identifier(received);
        self.acknowledged.received += u64::from(due);
        due
    }

    /// Messages that may go out now.
    fn due(&self, now_ns: u64) -> u64 {
        let due = self.pace.due(now_ns);
        match self.qos {
            Qos::AtMostOnce => due,
            _ => due.min(self.receive_maximum - self.unacknowledged().min(self.receive_maximum)),
        }
    }
}

/// The pace of publisher `index`, from `start_ns` on. Timetables are shifted against each other,
/// so that the publishers together send evenly.
fn pace(workload: &Workload, index: u32, start_ns: u64) -> Pace {
    match workload.load {
        LoadMode::Closed { window, burst } => {
            Pace::Window(Window::new(window, burst, workload.receivers()))
        }
        LoadMode::Open { messages_per_second } => {
            let step_ns = 1e9 / messages_per_second;
            let first_ns = start_ns as f64 + f64::from(index) * step_ns;
            Pace::Timetable(Timetable::new(first_ns, step_ns * f64::from(workload.publishers)))
        }
    }
}

impl Load {
    /// Let every publisher begin.
    pub(super) fn start_publishing(&mut self) {
        let now_ns = self.now_ns();
        for (index, publisher) in self.publishers.iter_mut().enumerate() {
            publisher.pace = pace(&self.workload, index as u32, now_ns);
        }
        self.publishing = true;
        self.list_all();
    }

    /// Look at every publisher in this turn: in open loop time alone makes them due.
    pub(super) fn list_all(&mut self) {
        (0..self.workload.publishers).for_each(|index| self.list(index));
    }

    /// Look at this publisher at the end of the turn.
    #[inline]
    pub(super) fn list(&mut self, publisher: u32) {
        let listed = &mut self.publishers[publisher as usize].listed;
        if !*listed {
            *listed = true;
            self.ready.push(publisher);
        }
    }

    /// Send what is due, one write for each connection.
    pub(super) fn publish_ready(&mut self) -> Result<()> {
        let now_ns = self.now_ns();
        let mut ready = std::mem::take(&mut self.ready);
        for index in ready.drain(..) {
            self.publishers[index as usize].listed = false;
            let client = self.client_of(index);
            loop {
                let due_more = self.publishing && self.publish(index, now_ns);
                self.flush(client)?;
                // The rest goes once the socket is writable again.
                if !due_more || self.clients[client].outgoing_bytes() > 0 {
                    break;
                }
            }
        }
        // Nothing lists a publisher meanwhile, so the list's memory is used again.
        self.ready = ready;
        Ok(())
    }

    /// Encode what is due; whether the buffer was too small for all of it.
    fn publish(&mut self, index: u32, now_ns: u64) -> bool {
        let client = self.client_of(index);
        let outgoing = &mut self.clients[client].outgoing;
        let publisher = &mut self.publishers[index as usize];
        let allowed = self.settings.messages_max - self.counts.published;
        for _ in 0..publisher.due(now_ns).min(allowed) {
            // What is not encoded yet is not late for lack of a stamp: in open loop that will say
            // when it was due.
            if outgoing.len() >= OUTGOING_BYTES_MAX {
                return true;
            }
            let stamp = Stamp {
                run: self.run,
                publisher: index,
                sequence: publisher.sent,
                sent_ns: publisher.pace.sent(now_ns),
            };
            publisher.template.encode(packet_identifier(publisher.sent), &stamp, outgoing);
            publisher.sent += 1;
            self.counts.published += 1;
        }
        false
    }

    /// Write what waits for a client.
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
            mqtt,
            qos,
            payload_bytes,
            are_sessions_kept,
            load,
        };
        let mut publisher = Publisher::new(&workload, 0, 0);
        publisher.sent = 3;
        publisher
    }

    #[test]
    fn acknowledgements_out_of_order_or_for_nothing_are_found() {
        let mut publisher = publisher(Qos::AtLeastOnce);
        assert!(!publisher.complete(2, Qos::AtLeastOnce));
        assert!((1..=3).all(|identifier| publisher.complete(identifier, Qos::AtLeastOnce)));
        assert!(!publisher.complete(4, Qos::AtLeastOnce));
        assert!(!publisher.receive(4));
        assert_eq!(publisher.unacknowledged(), 0);
    }

    #[test]
    fn pubcomp_comes_after_pubrec() {
        let mut publisher = publisher(Qos::ExactlyOnce);
        assert!(!publisher.complete(1, Qos::ExactlyOnce));
        assert!(publisher.receive(1));
        assert!(!publisher.complete(1, Qos::AtLeastOnce));
        assert!(publisher.complete(1, Qos::ExactlyOnce));
        assert_eq!(publisher.unacknowledged(), 2);
    }

    #[test]
    fn the_receive_maximum_bounds_what_is_due() {
        let mut publisher = publisher(Qos::AtLeastOnce);
        publisher.set_receive_maximum(5);
        assert_eq!(publisher.due(0), 2);
        assert!(publisher.complete(1, Qos::AtLeastOnce));
        assert_eq!(publisher.due(0), 3);
    }

    #[test]
    fn packet_identifiers_go_round_without_zero() {
        assert_eq!(packet_identifier(0), 1);
        assert_eq!(packet_identifier(65_534), 65_535);
        assert_eq!(packet_identifier(65_535), 1);
    }
}

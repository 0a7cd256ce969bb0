//! A run from its first message to its figures: warm-up, measured span, and the drain in which all
//! published messages must arrive.

use std::time::Duration;

use mio::Events;

use super::Load;
use crate::{
    clock,
    codec::encode_disconnect,
    coordinator::Coordinator,
    error::{Error, Result},
    limits::STALL_TIMEOUT,
    meter::Reading,
    outcome::{BrokerUse, Measured},
    pause,
    progress::Progress,
    verify::Tally,
};

/// Maximum number of events per poll.
const EVENTS: usize = 1_024;
/// Time after the last expected delivery in which no further one may arrive.
const QUIET: Duration = Duration::from_millis(30);

impl Load {
    pub(super) fn measure(mut self, coordinator: &mut dyn Coordinator) -> Result<Measured> {
        let start_ns = coordinator.await_start()?;
        self.start_publishing(start_ns);
        let span_ns = clock::after(start_ns, self.settings.warm_up);
        self.run_until(span_ns, |load| Ok(load.is_over()))?;

        let resident = || self.settings.meter.map(|meter| meter.resident_bytes()).transpose();
        let (begun, done, resident_before) = (self.recorder.begun, self.recorder.done, resident()?);
        let begin = Reading::now(self.settings.meter)?;
        self.recorder.start(clock::now_ns());
        self.show_progress();
        let end_ns = clock::after(span_ns, self.settings.span);
        self.run_until(end_ns, |load| Ok(load.is_over()))?;
        let end = Reading::now(self.settings.meter)?;
        self.progress = None;
        let (distribution, timeline) = self.recorder.stop();
        let (begun, done) = (self.recorder.begun - begun, self.recorder.done - done);
        let resident = self.settings.meter.map(|meter| meter.resident_bytes()).transpose()?;

        self.drain(coordinator)?;
        let measured = Measured {
            span_s: (end.at - begin.at).as_secs_f64(),
            begun,
            done,
            tally: self.final_tally(),
            distribution,
            timeline,
            generator_s: (end.generator - begin.generator).as_secs_f64(),
            broker: BrokerUse {
                usage: end.broker_since(&begin),
                resident: resident_before.zip(resident),
            },
        };
        self.disconnect_all()?;
        Ok(measured)
    }

    /// Stops sending, exchanges the number of messages sent, and waits for their arrival.
    fn drain(&mut self, coordinator: &mut dyn Coordinator) -> Result<()> {
        self.publishing = false;
        coordinator.tell_sent(self.publishers.iter().map(|publisher| publisher.sent).collect())?;
        let end_ns = clock::after(clock::now_ns(), STALL_TIMEOUT * 12);
        self.run_until(end_ns, |load| {
            load.everyones_sent = coordinator.everyones_sent()?;
            Ok(load.everyones_sent.is_some())
        })?;
        self.run_until(end_ns, |load| Ok(load.is_settled()))?;
        self.run_until(clock::after(clock::now_ns(), QUIET), |_| Ok(false))
    }

    fn show_progress(&mut self) {
        let unit = self.workload.scenario.unit().1;
        let (shown, span) = (self.settings.progress, self.settings.span);
        self.progress = Some(Progress::new(shown, span, unit, self.recorder.done));
    }

    /// Runs turns until the time is over, `enough` returns true, or expected deliveries do not
    /// arrive.
    fn run_until(
        &mut self,
        end_ns: u64,
        mut enough: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut settled = (self.settled, clock::now_ns());
        loop {
            let now_ns = clock::now_ns();
            if now_ns >= end_ns || enough(self)? {
                return Ok(());
            }
            if let Some(progress) = &mut self.progress {
                progress.tick(now_ns, Some(self.recorder.done));
            }
            if settled.0 != self.settled {
                settled = (self.settled, now_ns);
            } else if self.under_way() > 0 && now_ns > clock::after(settled.1, STALL_TIMEOUT) {
                return Ok(());
            }
            let left = Duration::from_nanos(end_ns - now_ns);
            let mut timeout = left.min(Duration::from_millis(100));
            if !self.publishing {
                // Other clients may have data meanwhile.
                timeout = timeout.min(Duration::from_millis(1));
            } else if let Some(next_ns) = self.list_due(now_ns) {
                let rest = Duration::from_nanos(next_ns.saturating_sub(clock::now_ns()));
                self.publish_ready()?;
                pause::wait(self.poll.registry(), rest.min(timeout))
                    .map_err(|source| Error::io("wait for sockets", source))?;
                timeout = Duration::ZERO;
            }
            self.turn(&mut events, timeout)?;
        }
    }

    /// Deliveries still expected here, unknown while several processes publish.
    fn under_way(&self) -> u64 {
        let expected = match &self.everyones_sent {
            Some(sent) if self.group.is_none() && self.workload.receivers() > 0 => {
                self.subscribers.iter().map(|subscriber| subscriber.expected(sent)).sum()
            }
            _ if self.share.processes > 1 && self.workload.receivers() > 0 => 0,
            _ => self.recorder.begun * u64::from(self.workload.receivers().max(1)),
        };
        expected.saturating_sub(self.settled)
    }

    fn unacknowledged(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.unacknowledged()).sum()
    }

    /// Whether all published messages have arrived and are acknowledged.
    fn is_settled(&self) -> bool {
        self.under_way() == 0 && self.unacknowledged() == 0
    }

    /// Whether nothing is left to do before the time is over.
    fn is_over(&self) -> bool {
        self.recorder.begun >= self.settings.messages_max && self.is_settled()
    }

    fn final_tally(&self) -> Tally {
        let mut tally = self.recorder.tally;
        let own = |publisher: u32| self.publishers[publisher as usize].sent;
        let sent_by = |publisher: u32| match &self.everyones_sent {
            Some(sent) => sent[publisher as usize],
            None => self.share.in_process(publisher).map_or(0, own),
        };
        tally.lost += match &self.group {
            Some(group) => group.lost(sent_by),
            None => self.subscribers.iter().map(|subscriber| subscriber.tail(sent_by)).sum(),
        };
        tally.unacknowledged = self.unacknowledged();
        tally
    }

    fn disconnect_all(&mut self) -> Result<()> {
        for index in 0..self.clients.len() {
            encode_disconnect(&mut self.clients[index].outgoing);
            self.flush(index)?;
        }
        Ok(())
    }
}

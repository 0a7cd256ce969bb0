//! What each timer leads to when it fires.

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::limits;
use crate::engine::Engine;
use crate::engine::cause::Cause;
use crate::engine::client_log::Claimed;
use crate::engine::connections::ending::Ending;
use crate::engine::routing::congestion::check_congestion;
use crate::engine::timers::Timer;
use crate::wire::ReasonCode;

impl Engine {
    /// Time has passed: handles the timers that are due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.set_now(now);
        if let Some(due) = self.timers.next()
            && self.connections.note_firing(now, due)
        {
            self.metrics.turns_late += 1;
        }
        self.retained.continue_removing(self.now, &mut self.timers);
        self.timers.advance(now);
        // Some have their time whatever else there was in this turn.
        for number in 0.. {
            if number >= limits::TIMERS_PER_TURN_MIN && self.work.is_spent() {
                break;
            }
            let Some(timer) = self.timers.pop_fired() else { break };
            self.work.spend(1);
            match timer {
                Timer::Connection(id) => {
                    let Self { connections, config, timers, now, .. } = self;
                    connections.check_silence(id, &config.limits, timers, *now);
                }
                Timer::Session(session) => self.check_session(session),
                Timer::Congestion(id) => {
                    check_congestion(id, &mut self.connections, &mut self.timers, self.now);
                }
                Timer::MemoryPause(id) | Timer::Allowance(id) => {
                    self.connections.resume_reading(id, self.now);
                }
                Timer::Stay(id) => self.check_stay(id),
                Timer::Packet(id) => {
                    let Self { connections, config, timers, now, .. } = self;
                    connections.check_packet(id, config, timers, *now);
                }
                Timer::SysTopics => self.begin_sys_topics(),
                Timer::LogTopics => self.publish_log(),
                Timer::Tombstones => {
                    self.retained.handle_tombstone_timer(
                        self.now,
                        &mut self.timers,
                        &mut self.mesh,
                    );
                }
                Timer::RetainedExpiry => {
                    self.retained.handle_expiry_timer(self.now, &mut self.timers);
                }
                Timer::RestoredForwards => self.send_restored_forwards(),
                #[cfg(feature = "cluster")]
                Timer::AbsentNodes => self.give_up_absent_nodes(),
                Timer::LeftWills => self.publish_left_wills(),
                #[cfg(feature = "cluster")]
                Timer::Drain => self.handle_drain_timer(),
                #[cfg(feature = "bridge")]
                Timer::Backfill(id) => self.continue_backfill(id),
                #[cfg(feature = "bridge")]
                Timer::Bridges => self.look_at_bridges(),
                #[cfg(feature = "admin")]
                Timer::Questions => self.end_late_questions(),
                Timer::Records => self.durability.end_flush_timer(),
                Timer::KernelTls => {
                    let Self { listeners, connections, metrics, timers, now, .. } = self;
                    listeners.check_offload(connections, metrics, timers, *now);
                }
                Timer::End { connection, left, checks } => self.check_end(connection, left, checks),
            }
        }
    }

    /// The connections whose time is up: their sockets must be read before the next call of
    /// [`Self::handle_all_read`].
    pub fn overdue(&self) -> impl Iterator<Item = ConnectionId> {
        self.connections.overdue()
    }

    /// Whether the time of a connection is up.
    pub fn has_overdue(&self) -> bool {
        self.connections.has_overdue()
    }

    /// Since the last [`Self::handle_timeout`] the executor has asked for input, and has taken all that
    /// had come: a client that is still overdue has sent nothing in time.
    pub fn handle_all_read(&mut self, now: Now) {
        if !self.has_overdue() {
            return;
        }
        self.set_now(now);
        let count = self.connections.overdue().len().min(limits::ENDED_PER_TURN_MAX);
        for number in 0..count {
            if number >= limits::TIMERS_PER_TURN_MIN && self.work.is_spent() {
                break;
            }
            self.work.spend(1);
            let Self { connections, config, timers, now, .. } = self;
            let Some((id, late)) = connections.check_next_overdue(config, timers, *now) else {
                break;
            };
            if let Some(cause) = late {
                self.end_late(id, cause);
            }
        }
    }

    /// Ends a connection whose client is late [MQTT-3.1.2-22].
    fn end_late(&mut self, id: ConnectionId, cause: Cause) {
        self.metrics.timeouts += 1;
        if let Some(connection) = self.connections.get(id).filter(|of| of.session().is_none()) {
            let connect = connection.deferred_connect().map(<[u8]>::to_vec);
            let claimed = connect.as_deref().map_or_else(Claimed::default, Claimed::in_frame);
            self.log_refusal(id, claimed, cause);
        }
        self.end_connection(id, Ending::Server(ReasonCode::KeepAliveTimeout, cause));
    }
}

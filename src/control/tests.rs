//! Commands between threads and cores, with the cores played by the tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::stop::Stop;
use super::*;
use crate::base::waker::Waker;
use crate::control::drain::DrainProgress;

/// A core that waits in the kernel and answers in its turns.
struct Core {
    poll: Poll,
    inbox: Inbox,
}

impl Core {
    /// A turn that waits for so long at most; the number of commands in it.
    fn turn(&mut self, wait: Duration) -> usize {
        self.poll.poll(&mut Events::with_capacity(1), Some(wait)).expect("it waits");
        if !self.inbox.take_signals().has(Signal::Commands) {
            return 0;
        }
        let mut commands = 0;
        while let Some(command) = self.inbox.next_command() {
            commands += 1;
            match command {
                Command::Probe(reply) => reply.send(()),
                Command::Adopt(_) => {}
                Command::Statistics { empty, reply } => {
                    reply.send(Statistics { recording: empty, metrics: Default::default() });
                }
                Command::Engine(EngineCommand::CheckAccess(reply)) => {
                    reply.send(AccessChecked::default());
                }
                Command::Engine(EngineCommand::Drain { reply, .. }) => {
                    reply.send(DrainProgress::default());
                }
                Command::Engine(EngineCommand::Ask(question)) => question.refuse(Refused::Busy),
                Command::Engine(EngineCommand::BridgeTick(tick)) => tick.reply.send(false),
                Command::Engine(EngineCommand::BridgeEnd(end)) => end.reply.send(false),
                Command::Engine(EngineCommand::BridgeQueues(of)) => of.reply.send(Vec::new()),
                #[cfg(feature = "bridge")]
                Command::Engine(EngineCommand::BridgeOrder(order)) => order.reply.send(false),
                #[cfg(feature = "bridge")]
                Command::Engine(EngineCommand::KeptBridges(reply)) => reply.send(Vec::new()),
                Command::Engine(
                    EngineCommand::Configure { reply, .. }
                    | EngineCommand::PublishState { reply, .. }
                    | EngineCommand::Policies { reply, .. }
                    | EngineCommand::Webhooks { reply, .. },
                )
                | Command::Listen { reply, .. } => reply.send(()),
            }
        }
        commands
    }
}

fn cores(count: usize) -> (Cores, Vec<Core>) {
    let polls: Vec<Poll> = (0..count).map(|_| Poll::new().expect("a poll")).collect();
    let notifier = |poll: &Poll| {
        Notifier::new(Waker::Poll(mio::Waker::new(poll.registry(), Token(0)).expect("a waker")))
    };
    let notifiers: Arc<[Notifier]> = polls.iter().map(notifier).collect();
    let (cores, inboxes) = Cores::new(notifiers);
    (cores, polls.into_iter().zip(inboxes).map(|(poll, inbox)| Core { poll, inbox }).collect())
}

const AT_ONCE: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(60);

fn in_a_minute() -> Instant {
    Instant::now() + LONG
}

#[test]
fn a_full_queue_is_refused_with_an_error_that_says_so() {
    let (cores, mut each) = cores(1);
    let (to, replies) = replies();
    for _ in 0..QUEUE_MAX {
        cores.send(0, Command::Probe(to.core(0))).expect("there is room");
    }
    let refused = cores.send(0, Command::Probe(to.core(0)));
    assert_eq!(refused, Err(Refused::Full));
    assert!(Refused::Full.to_string().contains("queue is full"));
    assert_eq!(replies.try_next(), Some((0, Err(Refused::Full))), "the reply says so as well");
    assert_eq!(each[0].turn(AT_ONCE), QUEUE_MAX, "those that were accepted are executed");
    cores.send(0, Command::Probe(to.core(0))).expect("there is room again");
}

#[test]
fn a_command_wakes_a_core_that_sleeps() {
    let (cores, mut each) = cores(1);
    each[0].inbox.take_signals();
    let mut core = each.remove(0);
    let sleeper = std::thread::spawn(move || core.turn(LONG));
    let replies = cores.ask_all(Command::Probe);
    assert_eq!(replies.next_before(in_a_minute()), Some((0, Ok(()))));
    assert_eq!(sleeper.join().expect("it wakes"), 1);
}

#[test]
fn every_core_replies_and_then_nobody_is_waited_for() {
    let (cores, mut each) = cores(3);
    let replies = cores.ask_all(Command::Probe);
    each.iter_mut().rev().for_each(|core| assert_eq!(core.turn(AT_ONCE), 1));
    let replied: Vec<_> = std::iter::from_fn(|| replies.next_before(in_a_minute())).collect();
    assert_eq!(replied, [(2, Ok(())), (1, Ok(())), (0, Ok(()))]);
}

#[test]
fn a_core_that_stops_answers_so_what_waits_and_what_follows() {
    let (cores, mut each) = cores(2);
    let waiting = cores.ask_all(Command::Probe);
    assert_eq!(each[0].turn(AT_ONCE), 1);
    drop(each.remove(1));
    let replied: Vec<_> = std::iter::from_fn(|| waiting.next_before(in_a_minute())).collect();
    assert_eq!(replied, [(0, Ok(())), (1, Err(Refused::Stopped))]);
    let (to, replies) = replies();
    assert_eq!(cores.send(1, Command::Probe(to.core(1))), Err(Refused::Stopped));
    assert_eq!(replies.try_next(), Some((1, Err(Refused::Stopped))));
}

#[test]
fn a_command_that_a_core_drops_is_answered() {
    let (cores, mut each) = cores(1);
    let replies = cores.ask_all(Command::Probe);
    drop(each[0].inbox.next_command());
    assert_eq!(replies.next_before(in_a_minute()), Some((0, Err(Refused::Stopped))));
}

#[test]
fn a_probe_names_the_cores_that_take_no_turn() {
    let (cores, mut each) = cores(3);
    let mut probe = cores.probe();
    assert_eq!(probe.unresponsive(), [0, 1, 2]);
    each[0].turn(AT_ONCE);
    each[2].turn(AT_ONCE);
    assert_eq!(probe.unresponsive(), [1]);
    each[1].turn(AT_ONCE);
    assert!(probe.unresponsive().is_empty());
    // A core that hangs for long has a full queue in the end, and is named all the same.
    let _probes: Vec<Probe> = (0..QUEUE_MAX).map(|_| cores.probe()).collect();
    assert_eq!(cores.probe().unresponsive(), [0, 1, 2]);
}

#[test]
fn a_request_to_stop_wakes_every_core_and_counts_before_there_is_one() {
    let stop = Stop::new();
    assert!(!stop.is_requested());
    assert_eq!(stop.request(), 1);
    let (cores, each) = cores(2);
    stop.attach(cores.clone()).expect("it is the first broker");
    assert!(stop.attach(cores).is_err(), "one Stop is for one broker");
    let wait = |mut core: Core| {
        std::thread::spawn(move || {
            let mut events = Events::with_capacity(1);
            core.poll.poll(&mut events, Some(LONG)).expect("it waits");
            events.iter().count()
        })
    };
    let sleepers: Vec<_> = each.into_iter().map(wait).collect();
    assert_eq!(stop.request(), 2);
    for sleeper in sleepers {
        assert_eq!(sleeper.join().expect("it wakes"), 1);
    }
}

#[test]
fn a_reply_knows_whether_somebody_waits_for_it() {
    let (to, replies) = replies::<()>();
    let reply = to.core(0);
    assert!(reply.is_awaited());
    drop(replies);
    assert!(!reply.is_awaited());
    reply.send(());
}

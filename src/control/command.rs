//! Commands to a core, and the way back for their replies.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
#[cfg(feature = "admin")]
use std::pin::Pin;
use std::sync::Arc;
#[cfg(feature = "admin")]
use std::task::{Context, Poll};
use std::time::Instant;

use flume::{Receiver, Sender};

use crate::base::latencies::Recording;
use crate::base::metrics::Metrics;
use crate::config::Settings;
use crate::control::bridge::{BridgeEnd, BridgeQueues, BridgeTick, Dialed};
#[cfg(feature = "bridge")]
use crate::control::bridge::{BridgeOrder, KeptBridge};
use crate::control::drain::{DrainOrder, DrainProgress};
use crate::control::listener::Handed;
use crate::control::question::Question;
use crate::control::webhooks::Tap;
use crate::transport::ListenerPolicies;

/// A command to one core. Each variant carries the way back for its own type of reply.
#[derive(Debug)]
pub enum Command {
    /// Liveness probe: a reply shows that the core takes turns.
    Probe(Reply<()>),
    /// Statistics since the last reply. The reply is given at the end of the turn.
    Statistics {
        /// An empty recording with which the core continues.
        empty: Box<Recording>,
        /// The way back.
        reply: Reply<Statistics>,
    },
    /// Accept connections on further sockets, or no more on some.
    Listen {
        /// The change.
        change: Handed,
        /// The way back.
        reply: Reply<()>,
    },
    /// Serve a connection that a bridge has opened to another broker. The core that refuses it drops it.
    Adopt(Box<Dialed>),
    /// A command that the core's engine executes.
    Engine(EngineCommand),
}

/// A command that a core's engine executes, over several turns if need be.
#[derive(Debug)]
pub enum EngineCommand {
    /// Check the credentials and subscriptions of all clients against the access rules in force. The reply is given
    /// when all have been checked.
    CheckAccess(Reply<AccessChecked>),
    /// A bridge looks for signs of life of its far broker.
    BridgeTick(BridgeTick),
    /// A bridge ends its connection.
    BridgeEnd(BridgeEnd),
    /// How many messages wait for bridges.
    BridgeQueues(BridgeQueues),
    /// A bridge changes while it runs.
    #[cfg(feature = "bridge")]
    BridgeOrder(BridgeOrder),
    /// Which sessions of bridges the core has.
    #[cfg(feature = "bridge")]
    KeptBridges(Reply<Vec<KeptBridge>>),
    /// Publish the state of a bridge, retained, on a topic below `$SYS`, unless these topics are switched off.
    PublishState {
        /// The topic.
        topic: Box<str>,
        /// The state.
        payload: Box<[u8]>,
        /// The way back.
        reply: Reply<()>,
    },
    /// A question or a command of an operator.
    Ask(Question),
    /// From now on, clients are sent elsewhere, or accepted again; the answer is how far the core has come.
    Drain {
        /// What to do; none to end it.
        order: Option<Arc<DrainOrder>>,
        /// The way back.
        reply: Reply<DrainProgress>,
    },
    /// New settings, which hold from the next decision on. Limits that depend on the machine are resolved.
    Configure {
        /// The settings.
        settings: Arc<Settings>,
        /// The way back.
        reply: Reply<()>,
    },
    /// The policies of all listeners from now on.
    Policies {
        /// By number.
        policies: ListenerPolicies,
        /// The way back.
        reply: Reply<()>,
    },
    /// The webhooks from now on.
    Webhooks {
        /// The core's ends of them.
        taps: Arc<[Tap]>,
        /// The way back.
        reply: Reply<()>,
    },
}

/// What came of the check of [`EngineCommand::CheckAccess`] on one core: of the last one, if the core has checked its
/// clients since the rules have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessChecked {
    /// Clients disconnected, because their credentials no longer hold.
    pub clients_disconnected: u64,
    /// Subscriptions ended, because the rules no longer allow them.
    pub subscriptions_ended: u64,
}

/// What a core has recorded and counted.
#[derive(Debug)]
pub struct Statistics {
    /// Latencies since the previous reply.
    pub recording: Box<Recording>,
    /// Counters since the start.
    pub metrics: Metrics,
}

impl Command {
    /// Answers a command that was not accepted.
    pub(super) fn refuse(self, refused: Refused) {
        match self {
            Self::Probe(reply) => reply.refuse(refused),
            Self::Statistics { reply, .. } => reply.refuse(refused),
            Self::Listen { reply, .. } => reply.refuse(refused),
            Self::Adopt(_) => {}
            Self::Engine(EngineCommand::CheckAccess(reply)) => reply.refuse(refused),
            Self::Engine(EngineCommand::BridgeTick(tick)) => tick.reply.refuse(refused),
            Self::Engine(EngineCommand::BridgeEnd(end)) => end.reply.refuse(refused),
            Self::Engine(EngineCommand::BridgeQueues(of)) => of.reply.refuse(refused),
            #[cfg(feature = "bridge")]
            Self::Engine(EngineCommand::BridgeOrder(order)) => order.reply.refuse(refused),
            #[cfg(feature = "bridge")]
            Self::Engine(EngineCommand::KeptBridges(reply)) => reply.refuse(refused),
            Self::Engine(EngineCommand::Drain { reply, .. }) => reply.refuse(refused),
            Self::Engine(EngineCommand::Ask(question)) => question.refuse(refused),
            Self::Engine(
                EngineCommand::Configure { reply, .. }
                | EngineCommand::PublishState { reply, .. }
                | EngineCommand::Policies { reply, .. }
                | EngineCommand::Webhooks { reply, .. },
            ) => reply.refuse(refused),
        }
    }
}

/// Why a core does not execute a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The core's queue is full.
    Full,
    /// The core has stopped, before the command or while the command waited.
    Stopped,
    /// The core works on as many questions as it may at a time.
    Busy,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the core's command queue is full; try again later",
            Self::Stopped => "the core has stopped",
            Self::Busy => "the core answers as many questions as it may at a time; try again later",
        })
    }
}

impl std::error::Error for Refused {}

type Answer<T> = (usize, Result<T, Refused>);

/// A reply of any type. All replies take the same channel, of which the program has the code once.
type Erased = Box<dyn Any + Send>;

/// The way back for the reply to one command. Dropping it without a reply answers [`Refused::Stopped`], so that
/// nobody waits for a core that is gone.
#[derive(Debug)]
pub struct Reply<T> {
    way: Way,
    replies: PhantomData<fn(T)>,
}

/// The way back, whatever the reply is.
#[derive(Debug)]
struct Way {
    core: usize,
    to: Option<Sender<Answer<Erased>>>,
}

impl Way {
    fn answer(&mut self, answer: Result<Erased, Refused>) {
        if let Some(to) = self.to.take() {
            // Nobody waits for the reply any more.
            let _ = to.send((self.core, answer));
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.answer(Err(Refused::Stopped));
    }
}

impl<T: Send + 'static> Reply<T> {
    /// Sends the reply.
    pub fn send(mut self, reply: T) {
        self.way.answer(Ok(Box::new(reply)));
    }
}

impl<T> Reply<T> {
    /// Sends the reason why there is no reply.
    pub fn refuse(mut self, refused: Refused) {
        self.way.answer(Err(refused));
    }

    /// Whether somebody waits for the reply. A question that nobody waits for ends.
    pub fn is_awaited(&self) -> bool {
        self.way.to.as_ref().is_some_and(|to| !to.is_disconnected())
    }
}

/// Makes the ways back that one [`Replies`] collects.
#[derive(Debug)]
pub struct ReplyTo<T> {
    to: Sender<Answer<Erased>>,
    replies: PhantomData<fn(T)>,
}

impl<T> ReplyTo<T> {
    /// The way back for a command to this core.
    pub fn core(&self, core: usize) -> Reply<T> {
        Reply { way: Way { core, to: Some(self.to.clone()) }, replies: PhantomData }
    }
}

/// Replies to commands, in the order in which they arrive.
#[derive(Debug)]
pub struct Replies<T> {
    from: Receiver<Answer<Erased>>,
    replies: PhantomData<fn() -> T>,
}

/// A collector of replies, and what makes the ways back to it.
pub fn replies<T>() -> (ReplyTo<T>, Replies<T>) {
    let (to, from) = flume::unbounded();
    (ReplyTo { to, replies: PhantomData }, Replies { from, replies: PhantomData })
}

/// A reply as its type. A way back takes no other type than that of its collector.
fn typed<T: 'static>((core, answer): Answer<Erased>) -> Answer<T> {
    (core, answer.map(|reply| *reply.downcast().expect("the type of the collector")))
}

impl<T: 'static> Replies<T> {
    /// Waits for the next reply, with the core that it comes from. None after `deadline`, and once every core
    /// has answered.
    pub fn next_before(&self, deadline: Instant) -> Option<Answer<T>> {
        self.from.recv_deadline(deadline).ok().map(typed)
    }

    /// Waits for the next reply. None once every core has answered.
    #[cfg(feature = "admin")]
    pub async fn next(&self) -> Option<Answer<T>> {
        next(&self.from).await.map(typed)
    }

    /// Waits until so many cores have replied or the future ends, and returns the replies by core: none of a core that
    /// has not replied.
    #[cfg(feature = "admin")]
    pub async fn gather(
        self,
        cores: usize,
        patience: impl Future<Output = ()> + Send + 'static,
    ) -> Vec<Option<Result<T, Refused>>> {
        let answers = gather(self.from, cores, Box::pin(patience)).await;
        let typed = |answer: Option<Result<Erased, _>>| answer.map(|of| typed((0, of)).1);
        answers.into_iter().map(typed).collect()
    }

    /// The next reply that is there already.
    pub fn try_next(&self) -> Option<Answer<T>> {
        self.from.try_recv().ok().map(typed)
    }
}

/// A future of which the program has no code of its own where it is used.
#[cfg(feature = "admin")]
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[cfg(feature = "admin")]
fn next(from: &Receiver<Answer<Erased>>) -> Boxed<'_, Option<Answer<Erased>>> {
    Box::pin(async { from.recv_async().await.ok() })
}

#[cfg(feature = "admin")]
fn gather(
    from: Receiver<Answer<Erased>>,
    cores: usize,
    mut patience: Boxed<'static, ()>,
) -> Boxed<'static, Vec<Option<Result<Erased, Refused>>>> {
    Box::pin(async move {
        let mut answers: Vec<_> = (0..cores).map(|_| None).collect();
        let mut next = from.recv_async();
        let ended = |context: &mut Context<'_>| {
            while let Poll::Ready(answer) = Pin::new(&mut next).poll(context) {
                let Ok((core, answer)) = answer else { return Poll::Ready(()) };
                answers[core] = Some(answer);
                next = from.recv_async();
            }
            patience.as_mut().poll(context)
        };
        std::future::poll_fn(ended).await;
        answers
    })
}

//! The bucket, the lanes, and the nodes.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use super::super::{Answer, Ask, JoinError, Me, Membership, MembershipEvent};
use crate::base::clock::Now;
use crate::cluster::view::{Incarnation, LaneVersions, MemberState, NodeNumber, View};

const MS: u64 = 1_000;
pub const S: u64 = 1_000_000;

/// The engine's clock at the beginning: some time in 2027.
const CLOCK: u64 = 1_800_000_000 * S;

pub struct Random(u64);

impl Random {
    /// SplitMix64 (Steele, Lea and Flood, 2014).
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Tick,
    /// A request reaches the bucket; the second value says that the answer is lost.
    Asked(u64, Ask, bool),
    Answered(u64, Answer),
    View(u64, Vec<u8>),
    Lease(u8, Vec<u8>, u64),
    Frame(NodeNumber, Incarnation),
}

pub struct Node {
    pub me: Me,
    pub membership: Option<Membership>,
    /// How far its clock is ahead.
    pub clock: i64,
    pub is_cut_off: bool,
    pub events: Vec<MembershipEvent>,
    pub rejoins: bool,
    run: u64,
    paused_until: u64,
    waiting: Vec<(u64, Happening)>,
    /// Incarnations that it knows to be over.
    over: BTreeSet<u64>,
}

pub struct World {
    pub now: u64,
    pub random: Random,
    pub nodes: Vec<Node>,
    pub revision: u64,
    pub view: Option<(u64, View)>,
    /// The bucket with a view of another format.
    pub foreign: Option<Vec<u8>>,
    leases: BTreeMap<u8, (Vec<u8>, u64)>,
    pub is_faulty: bool,
    stalled_until: u64,
    /// Pairs of nodes whose lanes are cut.
    pub apart: BTreeSet<(usize, usize)>,
    queue: BinaryHeap<std::cmp::Reverse<(u64, u64)>>,
    happenings: HashMap<u64, (usize, u64, Happening)>,
    count: u64,
    /// Each incarnation that was ever in the view, with the start that it belongs to, and whether it is still there.
    incarnations: BTreeMap<u64, (u64, bool)>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            now: S,
            random: Random(seed),
            nodes: Vec::new(),
            revision: 0,
            view: None,
            foreign: None,
            leases: BTreeMap::new(),
            is_faulty: false,
            stalled_until: 0,
            apart: BTreeSet::new(),
            queue: BinaryHeap::new(),
            happenings: HashMap::new(),
            count: 0,
            incarnations: BTreeMap::new(),
        }
    }

    /// A further node, started.
    pub fn start(&mut self, name: &str, number: Option<u8>) -> usize {
        let me = Me {
            cluster: "test".to_owned(),
            name: name.to_owned(),
            number: number.and_then(NodeNumber::new),
            advertise: String::new(),
            lanes: LaneVersions { lowest: 1, highest: 2 },
            store: self.random.next(),
        };
        self.nodes.push(Node {
            me,
            membership: None,
            clock: 0,
            is_cut_off: false,
            events: Vec::new(),
            rejoins: true,
            run: 0,
            paused_until: 0,
            waiting: Vec::new(),
            over: BTreeSet::new(),
        });
        let node = self.nodes.len() - 1;
        self.boot(node);
        node
    }

    /// Asks a node to forget one that is gone for good.
    pub fn forget(&mut self, node: usize, name: &str) -> Result<(), String> {
        let now = Now(self.now);
        let membership = self.nodes[node].membership.as_mut().expect("it runs");
        membership.forget(name, now)
    }

    /// Starts a node, or starts it again.
    pub fn boot(&mut self, node: usize) {
        let (start, now) = (self.random.next(), self.now);
        let of = &mut self.nodes[node];
        of.run += 1;
        of.waiting.clear();
        of.paused_until = 0;
        of.membership = Some(Membership::new(of.me.clone(), start, Now(now)));
        let run = of.run;
        self.later(0, node, run, Happening::Tick);
        let view = self.view.as_ref().map(|(revision, view)| (*revision, view.write()));
        if let Some((revision, view)) = view {
            self.later(50 * MS, node, run, Happening::View(revision, view));
        }
        for (of, (lease, stored)) in self.leases.clone() {
            self.later(60 * MS, node, run, Happening::Lease(of, lease, stored));
        }
    }

    pub fn kill(&mut self, node: usize) {
        self.nodes[node].membership = None;
        self.nodes[node].run += 1;
    }

    pub fn pause(&mut self, node: usize, for_us: u64) {
        self.nodes[node].paused_until = self.now + for_us;
    }

    fn later(&mut self, after: u64, node: usize, run: u64, what: Happening) {
        self.count += 1;
        self.queue.push(std::cmp::Reverse((self.now + after, self.count)));
        self.happenings.insert(self.count, (node, run, what));
    }

    /// A way to or from the bucket.
    fn delay(&mut self) -> u64 {
        match self.is_faulty && self.random.below(20) == 0 {
            true => self.random.below(4 * S),
            false => 1 + self.random.below(5 * MS),
        }
    }

    fn is_lost(&mut self) -> bool {
        self.is_faulty && self.random.below(12) == 0
    }

    /// Lets time pass until something holds, and says whether it did.
    pub fn until(&mut self, for_us: u64, holds: impl Fn(&World) -> bool) -> bool {
        let end = self.now + for_us;
        while !holds(self) {
            if self.now >= end {
                return false;
            }
            self.step(end);
        }
        true
    }

    pub fn run(&mut self, for_us: u64) {
        self.until(for_us, |_| false);
    }

    fn step(&mut self, end: u64) {
        let next = self.queue.peek().map(|next| next.0.0);
        if next.is_none_or(|next| next > end) {
            self.now = end;
            return;
        }
        let Some(std::cmp::Reverse((at, number))) = self.queue.pop() else { return };
        self.now = self.now.max(at);
        let Some((node, run, what)) = self.happenings.remove(&number) else { return };
        if let Happening::Asked(id, ask, is_lost) = what {
            return self.asked(node, run, id, ask, is_lost);
        }
        if run != self.nodes[node].run {
            return;
        }
        if self.nodes[node].paused_until > self.now {
            let after = self.nodes[node].paused_until - self.now;
            // In order, and time first, as a process that wakes up sees it.
            self.nodes[node].waiting.push((number, what.clone()));
            return self.later(after, node, run, what);
        }
        self.happen(node, run, what);
        self.check(node);
    }

    fn happen(&mut self, node: usize, run: u64, what: Happening) {
        let now = Now(self.now);
        let Some(membership) = &mut self.nodes[node].membership else { return };
        membership.handle_time(now);
        match what {
            Happening::Tick => self.tick(node, run),
            Happening::Answered(id, answer) => membership.handle_answer(id, answer, now),
            Happening::View(revision, view) => membership.handle_view(revision, &view, now),
            Happening::Lease(of, lease, stored) => {
                let of = NodeNumber::new(of).expect("a number");
                membership.handle_lease(of, &lease, stored, now);
            }
            Happening::Frame(from, incarnation) => {
                if membership.view().is_some_and(|view| view.has(from, incarnation)) {
                    membership.note_heard(from, now);
                }
            }
            Happening::Asked(..) => unreachable!("it goes to the bucket"),
        }
        self.ask(node, run);
        self.take_events(node);
    }

    fn tick(&mut self, node: usize, run: u64) {
        self.later(250 * MS, node, run, Happening::Tick);
        let Some(own) = self.nodes[node].membership.as_ref().and_then(Membership::own) else {
            return;
        };
        for other in 0..self.nodes.len() {
            let pair = (node.min(other), node.max(other));
            let is_cut = self.nodes[node].is_cut_off || self.nodes[other].is_cut_off;
            if other != node && !is_cut && !self.apart.contains(&pair) {
                let run = self.nodes[other].run;
                self.later(MS, other, run, Happening::Frame(own.0, own.1));
            }
        }
    }

    fn clock(&self, node: usize) -> u64 {
        (CLOCK + self.now).saturating_add_signed(self.nodes[node].clock)
    }

    fn ask(&mut self, node: usize, run: u64) {
        let clock = self.clock(node);
        loop {
            let now = Now(self.now);
            let Some(membership) = &mut self.nodes[node].membership else { return };
            let Some(request) = membership.poll_request(now, clock) else { return };
            let (is_lost, answer_is_lost) = (self.is_lost(), self.is_lost());
            // Either is told as no answer in time; a request may still arrive after that.
            let cut = self.nodes[node].is_cut_off;
            if is_lost || answer_is_lost || cut {
                let failed = Happening::Answered(request.id, Answer::Failed);
                self.later(2 * S, node, run, failed);
            }
            if !is_lost && !cut {
                let after = self.delay();
                let what = Happening::Asked(request.id, request.ask, answer_is_lost);
                self.later(after, node, run, what);
            }
        }
    }

    fn asked(&mut self, node: usize, run: u64, id: u64, ask: Ask, is_lost: bool) {
        if self.stalled_until > self.now {
            let after = self.stalled_until - self.now;
            return self.later(after, node, run, Happening::Asked(id, ask, is_lost));
        }
        let stored_us = CLOCK + self.now;
        let answer = match ask {
            Ask::ReadView => {
                let view = self.view.as_ref().map(|(revision, view)| (*revision, view.write()));
                Answer::View(self.foreign.clone().map(|foreign| (u64::MAX, foreign)).or(view))
            }
            Ask::SetView { revision, view } => {
                let is_expected = self.view.as_ref().map_or(0, |(known, _)| *known) == revision;
                Answer::Set(is_expected.then(|| self.set_view(&view)))
            }
            Ask::PutLease { node: of, lease } => {
                self.leases.insert(of.get(), (lease.clone(), stored_us));
                self.tell(&Happening::Lease(of.get(), lease, stored_us));
                Answer::Done
            }
            Ask::Clock => Answer::Stored { sent_us: self.clock(node), stored_us },
        };
        if !is_lost {
            let after = self.delay();
            self.later(after, node, run, Happening::Answered(id, answer));
        }
    }

    fn set_view(&mut self, view: &[u8]) -> u64 {
        let view = View::read(view).expect("a view");
        self.revision += 1;
        for (_, is_there) in self.incarnations.values_mut() {
            *is_there = false;
        }
        let before = self.view.take().map(|(_, view)| view);
        for member in &view.members {
            let known =
                self.incarnations.entry(member.incarnation.0).or_insert((member.start, true));
            let was_there = before.as_ref().is_none_or(|view| {
                view.has(member.node, member.incarnation)
                    || view.incarnations < member.incarnation.0
            });
            assert!(was_there, "incarnation {} has come back", member.incarnation);
            assert_eq!(known.0, member.start, "two runs with incarnation {}", member.incarnation);
            known.1 = true;
        }
        self.view = Some((self.revision, view.clone()));
        self.tell(&Happening::View(self.revision, view.write()));
        self.revision
    }

    /// Tells everyone a change of the bucket, each in order.
    fn tell(&mut self, what: &Happening) {
        for node in 0..self.nodes.len() {
            if !self.nodes[node].is_cut_off {
                let run = self.nodes[node].run;
                self.later(2 * MS, node, run, what.clone());
            }
        }
    }

    fn take_events(&mut self, node: usize) {
        let (start, now) = (self.random.next(), Now(self.now));
        let of = &mut self.nodes[node];
        let Some(membership) = &mut of.membership else { return };
        while let Some(event) = membership.poll_event() {
            match &event {
                MembershipEvent::Joined { incarnation, .. } => {
                    assert!(!of.over.contains(&incarnation.0), "{incarnation} acts again");
                    membership.set_state(MemberState::Member);
                }
                MembershipEvent::Evicted | MembershipEvent::Refused(_) if of.rejoins => {
                    membership.rejoin(start, now);
                }
                _ => {}
            }
            if event != MembershipEvent::ViewChanged
                && !matches!(event, MembershipEvent::LeaseSeen(_))
            {
                of.events.push(event);
            }
        }
    }

    /// What holds after each event of a node.
    fn check(&mut self, node: usize) {
        let of = &self.nodes[node];
        let Some(membership) = &of.membership else { return };
        let Some((number, incarnation)) = membership.own() else { return };
        let view = membership.view().expect("a member has seen a view");
        assert!(view.has(number, incarnation), "{number} acts outside its view");
        assert!(!of.over.contains(&incarnation.0), "{incarnation} acts again");
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let other = self.nodes[other].membership.as_ref().and_then(Membership::own);
            assert_ne!(other.map(|(_, of)| of), Some(incarnation), "two with one incarnation");
        }
        let gone: Vec<u64> =
            self.incarnations.keys().copied().filter(|of| *of < view.incarnations).collect();
        let view = std::sync::Arc::clone(view);
        let is_in = |of: &u64| view.members.iter().any(|member| member.incarnation.0 == *of);
        self.nodes[node].over.extend(gone.into_iter().filter(|of| !is_in(of)));
    }

    /// Something goes wrong.
    pub fn disturb(&mut self) {
        let node = self.random.below(self.nodes.len() as u64) as usize;
        let other = self.random.below(self.nodes.len() as u64) as usize;
        let long = self.random.below(25 * S);
        match self.random.below(8) {
            0 => self.kill(node),
            1 if self.nodes[node].membership.is_none() => self.boot(node),
            1 => {
                self.kill(node);
                self.boot(node);
            }
            2 => self.pause(node, long),
            3 => self.stalled_until = self.now + long / 3,
            4 => {
                self.nodes[node].is_cut_off ^= true;
                if !self.nodes[node].is_cut_off {
                    // The bucket is followed anew after a connection.
                    let run = self.nodes[node].run;
                    self.retell(node, run);
                }
            }
            5 if node != other => drop(self.apart.insert((node.min(other), node.max(other)))),
            6 => self.apart.clear(),
            _ => {}
        }
    }

    /// Nothing goes wrong any more.
    pub fn heal(&mut self) {
        self.is_faulty = false;
        self.apart.clear();
        for node in 0..self.nodes.len() {
            if std::mem::take(&mut self.nodes[node].is_cut_off)
                || self.nodes[node].membership.is_none()
            {
                // What it missed is told again, as after a reconnection.
                let run = self.nodes[node].run;
                match self.nodes[node].membership.is_some() {
                    true => self.retell(node, run),
                    false => self.boot(node),
                }
            }
        }
    }

    fn retell(&mut self, node: usize, run: u64) {
        if let Some((revision, view)) = self.view.clone() {
            self.later(MS, node, run, Happening::View(revision, view.write()));
        }
    }

    /// Whether all nodes are full members and know the same view.
    pub fn is_settled(&self) -> bool {
        let Some((revision, view)) = &self.view else { return false };
        let all = |node: &Node| {
            node.paused_until <= self.now
                && node.membership.as_ref().is_some_and(|of| {
                    of.own().is_some_and(|(number, incarnation)| view.has(number, incarnation))
                        && !of.is_isolated()
                        && of.view.as_ref().is_some_and(|(known, _)| known == revision)
                })
        };
        let is_member = |state| state == MemberState::Member;
        self.nodes.iter().all(all)
            && view.members.len() == self.nodes.len()
            && view.members.iter().all(|member| is_member(member.state))
    }

    pub fn own(&self, node: usize) -> Option<(u8, u64)> {
        let own = self.nodes[node].membership.as_ref()?.own()?;
        Some((own.0.get(), own.1.0))
    }

    pub fn has(&self, node: usize, event: &MembershipEvent) -> bool {
        self.nodes[node].events.contains(event)
    }

    pub fn refusal(&self, node: usize) -> Option<JoinError> {
        self.nodes[node].events.iter().find_map(|event| match event {
            MembershipEvent::Refused(error) => Some(error.clone()),
            _ => None,
        })
    }

    pub fn members(&self) -> Vec<u8> {
        let view = self.view.as_ref().map(|(_, view)| view);
        view.into_iter().flat_map(|view| &view.members).map(|member| member.node.get()).collect()
    }
}

//! The members of a cluster as the key-value bucket has them: one value `view`, changed by compare-and-set, and a value
//! `lease.N` for each node.
//!
//! Both are JSON, so that an operator can read them with the engine's own tools, and begin with the version of their
//! format. A broker that finds a later version than its own says so and changes nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of the formats of this module.
pub const FORMAT: u32 = 1;

/// Node numbers are 0 to 63: sets of nodes are masks of 64 bits.
pub const NODES_MAX: usize = 64;

/// Bytes of a view that are read at most: 64 members with long names take a quarter.
pub const VIEW_BYTES_MAX: usize = 64 * 1024;

/// The number of a node, 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct NodeNumber(u8);

impl NodeNumber {
    /// A number; none if it is 64 or more.
    pub fn new(number: u8) -> Option<Self> {
        (usize::from(number) < NODES_MAX).then_some(Self(number))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The place of the node in a list of [`NODES_MAX`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The node as a set of one, as a mask.
    pub fn bit(self) -> u64 {
        1 << self.0
    }
}

impl fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u8> for NodeNumber {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        Self::new(number).ok_or_else(|| format!("{number} is no node number, which are 0 to 63"))
    }
}

impl From<NodeNumber> for u8 {
    fn from(node: NodeNumber) -> u8 {
        node.0
    }
}

/// One run of a node as a member: a node that starts or joins again has the next incarnation. Frames and claims of an
/// incarnation that is not in the view do not count.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize,
)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// Takes interest and retained messages from the others, and has no clients yet.
    Joining,
    /// Serves clients.
    Member,
    /// Gives its sessions away.
    Leaving,
}

impl MemberState {
    /// The name in the view and in answers to operators.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Member => "member",
            Self::Leaving => "leaving",
        }
    }
}

/// Versions of lanes that a node speaks, both included; two nodes use the highest that both speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct LaneVersions {
    /// The lowest.
    pub lowest: u16,
    /// The highest.
    pub highest: u16,
}

impl LaneVersions {
    /// The version that two nodes use; none if they have none in common.
    pub fn common(self, other: Self) -> Option<u16> {
        let highest = self.highest.min(other.highest);
        (highest >= self.lowest.max(other.lowest)).then_some(highest)
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Member {
    /// Its number.
    pub node: NodeNumber,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its name, unique in the cluster.
    pub name: String,
    /// The address for clients, as a server reference; empty if none is configured.
    #[serde(default)]
    pub advertise: String,
    /// Its versions of lanes.
    pub lanes: LaneVersions,
    /// What it does.
    pub state: MemberState,
    /// The store that it runs on, a random number made with it: the same name on the same store is the same broker, started
    /// again.
    pub store: u64,
    /// A random number made at its start, by which a node finds itself after an answer was lost.
    pub start: u64,
}

/// A number that was used, and by whom last: a node that returns gets its number again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Past {
    /// The number.
    pub node: NodeNumber,
    /// The name; empty if its node has another number now.
    pub name: String,
}

/// The members of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct View {
    /// The version of the format.
    pub format: u32,
    /// The name of the cluster.
    pub cluster: String,
    /// The highest incarnation that was given out. It begins with the time of the view's creation, so that a bucket that was
    /// lost and made again gives none out twice.
    pub incarnations: u64,
    /// The members by their numbers.
    pub members: Vec<Member>,
    /// Numbers in use and used before, by number.
    pub past: Vec<Past>,
}

/// What a node says of itself every three seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Lease {
    /// The version of the format.
    pub format: u32,
    /// The incarnation that renews it.
    pub incarnation: Incarnation,
    /// Its clock: microseconds since 1970. The engine adds its own time when it stores the value, so that two clocks can be
    /// compared.
    pub clock_us: u64,
    /// The members, as a mask, that it has not heard on their lanes for six seconds.
    #[serde(default)]
    pub unheard: u64,
    /// Its connections; none in leases of programs that do not say so.
    #[serde(default)]
    pub clients: Option<u32>,
}

/// Why a value of the bucket cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewError {
    /// A later broker wrote it.
    Newer {
        /// The version that it has.
        found: u32,
    },
    /// It is not what a broker writes.
    Damaged(String),
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer { found } => write!(
                f,
                "the cluster's list of members has format {found}, and this broker knows formats up to {FORMAT}: update \
                 this broker"
            ),
            Self::Damaged(why) => write!(
                f,
                "the cluster's list of members cannot be read ({why}): check who else may write to the bucket"
            ),
        }
    }
}

impl std::error::Error for ViewError {}

/// Only the version, which every format has.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

fn check_format(bytes: &[u8]) -> Result<(), ViewError> {
    let damaged = |error: serde_json::Error| ViewError::Damaged(error.to_string());
    if bytes.len() > VIEW_BYTES_MAX {
        return Err(ViewError::Damaged(format!("it has {} bytes", bytes.len())));
    }
    let Versioned { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    match format {
        FORMAT => Ok(()),
        0 => Err(ViewError::Damaged("it has format 0".to_owned())),
        found => Err(ViewError::Newer { found }),
    }
}

impl View {
    /// A cluster without members, made at a time in seconds since 1970.
    pub fn new(cluster: &str, made_s: u64) -> Self {
        let (members, past) = (Vec::new(), Vec::new());
        Self { format: FORMAT, cluster: cluster.to_owned(), incarnations: made_s, members, past }
    }

    /// A view as it is in the bucket.
    pub fn read(bytes: &[u8]) -> Result<Self, ViewError> {
        check_format(bytes)?;
        let view: Self =
            serde_json::from_slice(bytes).map_err(|error| ViewError::Damaged(error.to_string()))?;
        let ascends = view.members.windows(2).all(|pair| pair[0].node < pair[1].node)
            && view.past.windows(2).all(|pair| pair[0].node < pair[1].node);
        match ascends {
            true => Ok(view),
            false => Err(ViewError::Damaged("its numbers do not ascend".to_owned())),
        }
    }

    /// The view as it is in the bucket.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a view has a form in JSON")
    }

    /// The member with a number.
    pub fn member(&self, node: NodeNumber) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// Whether a node is a member with this incarnation.
    pub fn has(&self, node: NodeNumber, incarnation: Incarnation) -> bool {
        self.member(node).is_some_and(|member| member.incarnation == incarnation)
    }

    /// All members as a mask.
    pub fn mask(&self) -> u64 {
        self.members.iter().fold(0, |mask, member| mask | member.node.bit())
    }

    /// The number that the last node of this name had.
    pub(super) fn number_of(&self, name: &str) -> Option<NodeNumber> {
        self.past.iter().find(|past| past.name == name).map(|past| past.node)
    }

    /// Adds a member with the next incarnation, in the place of one with its number or its name.
    pub(super) fn add(&mut self, mut member: Member) {
        self.incarnations += 1;
        member.incarnation = Incarnation(self.incarnations);
        self.members.retain(|other| other.node != member.node && other.name != member.name);
        self.past.retain(|past| past.node != member.node);
        self.past
            .iter_mut()
            .filter(|past| past.name == member.name)
            .for_each(|past| past.name.clear());
        self.past.push(Past { node: member.node, name: member.name.clone() });
        self.past.sort_by_key(|past| past.node);
        self.members.push(member);
        self.members.sort_by_key(|member| member.node);
    }

    /// Removes a member; its number stays noted.
    pub(super) fn remove(&mut self, node: NodeNumber) {
        self.members.retain(|member| member.node != node);
    }
}

impl Lease {
    /// A lease as it is in the bucket.
    pub fn read(bytes: &[u8]) -> Result<Self, ViewError> {
        check_format(bytes)?;
        serde_json::from_slice(bytes).map_err(|error| ViewError::Damaged(error.to_string()))
    }

    /// The lease as it is in the bucket.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a lease has a form in JSON")
    }
}

//! Bans of clients, users and networks, kept in a file beside the store.
//!
//! The file is the truth: a change writes it, under another name first, and then goes to the cores. Each core has
//! the same list, refuses banned clients at CONNECT and ends their connections.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Query, State};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::admin::auth::Caller;
use crate::admin::clients::network;
use crate::admin::questions::ask_all;
use crate::admin::routes::{Route, delete, get, post};
use crate::admin::{Answer, Problem, Shared, tasks};
use crate::base::{limits, secret_file};
use crate::config::Role;
use crate::control::question::{BanList, Question};
use crate::control::{Command, Cores, EngineCommand};

/// The file's name.
const FILE: &str = "bans.json";

/// Bytes of a banned name, and of a reason, at most.
const TEXT_BYTES_MAX: usize = 1_024;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/bans", Role::Read, "Bans", list).answers::<Bans>(),
        post("/api/v1/bans", Role::Operate, "Ban a client, a user or a network", add)
            .body::<NewBan>()
            .answers::<Changed>(),
        delete("/api/v1/bans", Role::Operate, "Lift a ban", lift)
            .query::<Subject>()
            .answers::<Changed>(),
    ]
}

/// Who is banned: one of the three.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    /// A Client Identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    /// A user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// An address or a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<String>,
}

impl Subject {
    /// The subject in the form in which it is compared.
    fn checked(self) -> Result<Self, Problem> {
        let given = [&self.client, &self.user, &self.network].into_iter().flatten();
        let given: Vec<&String> = given.collect();
        match given[..] {
            [one] if one.is_empty() || one.len() > TEXT_BYTES_MAX => {
                let detail = format!("a name is empty, or longer than {TEXT_BYTES_MAX} bytes");
                return Err(Problem::bad_request(detail));
            }
            [_] => {}
            _ => return Err(Problem::bad_request("name one of client, user and network")),
        }
        let network = self.network.as_deref().map(network).transpose()?;
        Ok(Self { network: network.map(|network| network.trunc().to_string()), ..self })
    }
}

/// A ban.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
struct Ban {
    /// Who is banned.
    #[serde(flatten)]
    subject: Subject,
    /// When the ban ends, in seconds since 1970; null if it does not.
    until_s: Option<u64>,
    /// Why.
    reason: String,
    /// Who has banned.
    by: String,
    /// When, in seconds since 1970.
    since_s: u64,
}

impl Ban {
    fn holds(&self, now_s: u64) -> bool {
        self.until_s.is_none_or(|until_s| until_s > now_s)
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The bans and their file.
pub struct Kept {
    /// None when nothing is stored.
    file: Option<PathBuf>,
    bans: Mutex<Vec<Ban>>,
}

impl Kept {
    /// Reads the bans, and sends them to the cores.
    pub fn open(folder: Option<&Path>, cores: &Cores) -> io::Result<Self> {
        let file = folder.map(|folder| folder.join(FILE));
        let bans = file.as_deref().map_or_else(|| Ok(Vec::new()), read)?;
        if !bans.is_empty() {
            let list = Arc::new(for_cores(&bans));
            // The cores execute the command whether or not somebody waits.
            drop(cores.ask_all(|reply| {
                let question = Question::SetBans { bans: Arc::clone(&list), reply };
                Command::Engine(EngineCommand::Ask(question))
            }));
        }
        Ok(Self { file, bans: Mutex::new(bans) })
    }
}

fn read(file: &Path) -> io::Result<Vec<Ban>> {
    let unusable = |what: String| {
        let file = file.display();
        io::Error::other(format!("the bans in {file} cannot be read: {what}; repair or remove it"))
    };
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let bans: Vec<Ban> =
        serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    let now_s = now_s();
    Ok(bans.into_iter().filter(|ban| ban.holds(now_s)).take(limits::BANS_MAX).collect())
}

/// Replaces the file: a crash leaves the old one or the new one.
fn write(file: &Path, bans: &[Ban]) -> io::Result<()> {
    secret_file::replace(file, &serde_json::to_vec_pretty(bans)?)
}

/// The bans as cores compare them.
fn for_cores(bans: &[Ban]) -> BanList {
    let (mut list, now_s) = (BanList::default(), now_s());
    for ban in bans.iter().filter(|ban| ban.holds(now_s)) {
        let end = ban.until_s.map(|until_s| until_s - now_s);
        let Subject { client, user, network } = &ban.subject;
        if let Some(client) = client {
            list.clients.insert(client.as_str().into(), end);
        }
        if let Some(user) = user {
            list.users.insert(user.as_str().into(), end);
        }
        if let Some(network) = network.as_deref().and_then(|network| network.parse().ok()) {
            list.networks.push((network, end));
        }
    }
    list
}

/// All bans.
#[derive(Debug, Serialize, JsonSchema)]
struct Bans {
    /// The bans that have not ended, the oldest first.
    bans: Vec<Ban>,
    /// Whether they are kept across a restart of the broker: there is a folder for data.
    kept: bool,
}

async fn list(State(admin): State<Shared>) -> Answer<Bans> {
    let now_s = now_s();
    let bans = admin.bans.bans.lock().await;
    let bans = bans.iter().filter(|ban| ban.holds(now_s)).cloned().collect();
    Ok(Json(Bans { bans, kept: admin.bans.file.is_some() }))
}

/// A ban.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewBan {
    /// A Client Identifier.
    client: Option<String>,
    /// A user name.
    user: Option<String>,
    /// An address or a network.
    network: Option<String>,
    /// Seconds until the ban ends; without it, the ban does not end.
    seconds: Option<u64>,
    /// Why.
    #[serde(default)]
    reason: String,
}

/// What has changed.
#[derive(Debug, Serialize, JsonSchema)]
struct Changed {
    /// Connections that were ended.
    disconnected: u64,
    /// Bans that hold now.
    bans: usize,
}

async fn add(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<NewBan>,
) -> Answer<Changed> {
    let NewBan { client, user, network, seconds, reason } = body;
    let subject = Subject { client, user, network }.checked()?;
    if reason.len() > TEXT_BYTES_MAX {
        let detail = format!("the reason is longer than {TEXT_BYTES_MAX} bytes");
        return Err(Problem::bad_request(detail));
    }
    let since_s = now_s();
    let until_s = seconds.map(|seconds| since_s.saturating_add(seconds));
    let ban = Ban { subject, until_s, reason, by: caller.name.into(), since_s };
    change(&admin, |bans| {
        bans.retain(|other| other.subject != ban.subject);
        if bans.len() >= limits::BANS_MAX {
            let detail = format!("there are {} bans; lift some first", limits::BANS_MAX);
            return Err(Problem::new(axum::http::StatusCode::INSUFFICIENT_STORAGE, detail));
        }
        bans.push(ban);
        Ok(())
    })
    .await
}

async fn lift(State(admin): State<Shared>, Query(subject): Query<Subject>) -> Answer<Changed> {
    let subject = subject.checked()?;
    change(&admin, |bans| {
        let before = bans.len();
        bans.retain(|ban| ban.subject != subject);
        match bans.len() < before {
            true => Ok(()),
            false => Err(Problem::not_found("there is no such ban")),
        }
    })
    .await
}

/// Changes the bans, in the file first. A file that cannot be written changes nothing.
async fn change(
    admin: &Shared,
    edit: impl FnOnce(&mut Vec<Ban>) -> Result<(), Problem>,
) -> Answer<Changed> {
    // One change at a time, so that the cores have the last one in the end.
    let mut bans = admin.bans.bans.lock().await;
    let now_s = now_s();
    let mut changed: Vec<Ban> = bans.iter().filter(|ban| ban.holds(now_s)).cloned().collect();
    edit(&mut changed)?;
    if let Some(file) = admin.bans.file.clone() {
        let written = changed.clone();
        let written = tasks::beside(move || write(&file, &written)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|error| {
            Problem::unavailable(format!("the bans cannot be stored, nothing has changed: {error}"))
        })?;
    }
    *bans = changed;
    let list = Arc::new(for_cores(&bans));
    let ask = |reply| Question::SetBans { bans: Arc::clone(&list), reply };
    let disconnected = ask_all(admin, ask).await?.into_iter().sum();
    Ok(Json(Changed { disconnected, bans: bans.len() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_of_client_user_and_network() {
        let client = Some("c".to_owned());
        let one = Subject { client: client.clone(), ..Subject::default() };
        assert!(one.clone().checked().is_ok());
        assert!(Subject { user: client, ..one }.checked().is_err());
        assert!(Subject::default().checked().is_err());
        let network = |text: &str| {
            let network = Some(text.to_owned());
            Subject { network, ..Subject::default() }.checked().map(|of| of.network)
        };
        assert_eq!(network("10.1.2.3/8").expect("a network"), Some("10.0.0.0/8".to_owned()));
        assert_eq!(network("::ffff:10.1.2.3").expect("it"), Some("10.1.2.3/32".to_owned()));
        assert!(network("10.1.2").is_err());
    }

    #[test]
    fn bans_that_have_ended_do_not_reach_the_cores() {
        let ban = |client: &str, until_s| Ban {
            subject: Subject { client: Some(client.to_owned()), ..Subject::default() },
            until_s,
            reason: String::new(),
            by: String::new(),
            since_s: 0,
        };
        let list =
            for_cores(&[ban("past", Some(5)), ban("future", Some(u64::MAX)), ban("c", None)]);
        let mut clients: Vec<_> = list.clients.keys().map(|client| &**client).collect();
        clients.sort_unstable();
        assert_eq!(clients, ["c", "future"]);
        assert_eq!(list.clients["c"], None);
    }
}

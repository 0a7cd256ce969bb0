//! Users with passwords, and access rules, of the user database: they change while the broker runs, and are kept.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::Control;
use crate::access::database::{self, Account, Content, Edit, Refused};
use crate::admin::questions::{Listing, limit, sign, verify};
use crate::admin::routes::{Route, delete, get, post, put};
use crate::admin::tasks;
use crate::admin::{Answer, Problem, Shared};
use crate::config::Role;
use crate::control::{Command, EngineCommand};

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/users", Role::Read, "Users of the user database", list_users)
            .query::<Part>()
            .answers::<Users>(),
        get("/api/v1/users/{name}", Role::Read, "One user", show_user).answers::<User>(),
        post("/api/v1/users", Role::Admin, "Add a user", add_user)
            .body::<NewUser>()
            .answers::<Changed>(),
        put("/api/v1/users/{name}", Role::Admin, "Change a user", change_user)
            .body::<OtherUser>()
            .answers::<Changed>(),
        delete("/api/v1/users/{name}", Role::Admin, "Remove a user", remove_user)
            .answers::<Changed>(),
        get("/api/v1/rules", Role::Read, "Access rules of the user database", list_rules)
            .query::<Part>()
            .answers::<Rules>(),
        post("/api/v1/rules", Role::Admin, "Add an access rule", add_rule)
            .body::<NewRule>()
            .answers::<Changed>(),
        put("/api/v1/rules/{number}", Role::Admin, "Change an access rule", change_rule)
            .body::<OtherRule>()
            .answers::<Changed>(),
        delete("/api/v1/rules/{number}", Role::Admin, "Remove an access rule", remove_rule)
            .answers::<Changed>(),
    ]
}

/// The part of a list that is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Part {
    /// Entries at most.
    limit: Option<usize>,
    /// Where the part begins: `next` of the answer before.
    cursor: Option<String>,
}

/// A user, without the password.
#[derive(Debug, Serialize, JsonSchema)]
struct User {
    /// User name.
    name: String,
    /// Groups of the access rules that the user is a member of.
    groups: Vec<String>,
    /// Whether the user can authenticate by SCRAM-SHA-256.
    scram: bool,
    /// Whether the password file has a user of this name, which goes first.
    hidden: bool,
}

impl User {
    fn of(control: &Control, name: &str, account: &Account) -> Self {
        Self {
            name: name.to_owned(),
            groups: account.groups.iter().map(|group| group.to_string()).collect(),
            scram: account.has_verifier(),
            hidden: control.is_hidden(name, account),
        }
    }
}

/// Users in the order of their names.
#[derive(Debug, Serialize, JsonSchema)]
struct Users {
    /// Users.
    users: Vec<User>,
    /// The cursor of the part that follows; null at the end.
    next: Option<String>,
    /// Number of users in the database.
    total: usize,
}

/// The access control and its database.
fn database(admin: &Shared, what: &str) -> Result<(Arc<Control>, Arc<Content>), Problem> {
    let control = admin.broker.access.control();
    let found = control.and_then(|control| Some((Arc::clone(control), control.database()?)));
    found.ok_or_else(|| problem(Refused::NotKept(database::not_kept(what))))
}

fn problem(refused: Refused) -> Problem {
    let detail = refused.to_string();
    match refused {
        Refused::NotKept(_) | Refused::Exists(_) => Problem::new(StatusCode::CONFLICT, detail),
        Refused::Wrong(_) => Problem::bad_request(detail),
        Refused::Unknown(_) => Problem::not_found(detail),
        Refused::Full(_) => Problem::new(StatusCode::INSUFFICIENT_STORAGE, detail),
        Refused::Failed(_) => Problem::unavailable(detail),
    }
}

async fn list_users(State(admin): State<Shared>, Query(part): Query<Part>) -> Answer<Users> {
    let limit = limit(part.limit)?;
    let after = part.cursor.map(|cursor| verify(Listing::Users, &cursor)).transpose()?;
    let after = after.map(|name| String::from_utf8_lossy(&name).into_owned());
    let (control, content) = database(&admin, "users")?;
    let mut found = content.users_after(after.as_deref());
    let users: Vec<User> =
        found.by_ref().take(limit).map(|(name, of)| User::of(&control, name, of)).collect();
    let last = users.last().filter(|_| found.next().is_some());
    let next = last.map(|user| sign(Listing::Users, user.name.as_bytes()));
    Ok(Json(Users { users, next, total: content.users_len() }))
}

async fn show_user(State(admin): State<Shared>, Path(name): Path<String>) -> Answer<User> {
    let (control, content) = database(&admin, "users")?;
    let account = content.user(&name);
    let account = account.ok_or_else(|| problem(database::unknown_user(&name)))?;
    Ok(Json(User::of(&control, &name, account)))
}

/// A new user.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    /// User name.
    name: String,
    /// Password, of which only a hash is kept.
    password: String,
    /// Groups of the access rules that the user is a member of.
    #[serde(default)]
    groups: Vec<String>,
}

/// What changes of a user.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OtherUser {
    /// New password; without it, the password stays.
    password: Option<String>,
    /// All groups from now on; without them, the groups stay.
    groups: Option<Vec<String>>,
}

/// A change, and what it has done to clients.
#[derive(Debug, Serialize, JsonSchema)]
struct Changed {
    /// Number of the new rule; null for other changes.
    rule: Option<u32>,
    /// Connections that were ended.
    disconnected: u64,
    /// Subscriptions that were ended.
    subscriptions_ended: u64,
    /// Whether all connected clients have been checked; if not, the cores continue.
    complete: bool,
}

async fn add_user(State(admin): State<Shared>, Json(body): Json<NewUser>) -> Answer<Changed> {
    let NewUser { name, password, groups } = body;
    change(&admin, "users", Edit::AddUser { name, password, groups }).await
}

async fn change_user(
    State(admin): State<Shared>,
    Path(name): Path<String>,
    Json(body): Json<OtherUser>,
) -> Answer<Changed> {
    let OtherUser { password, groups } = body;
    if password.is_none() && groups.is_none() {
        return Err(Problem::bad_request("name a new password, new groups, or both"));
    }
    change(&admin, "users", Edit::ChangeUser { name, password, groups }).await
}

async fn remove_user(State(admin): State<Shared>, Path(name): Path<String>) -> Answer<Changed> {
    change(&admin, "users", Edit::RemoveUser { name }).await
}

/// An access rule.
#[derive(Debug, Serialize, JsonSchema)]
struct Rule {
    /// Number of the rule, which stays the same.
    number: u32,
    /// The clients that the rule is for, as in a line `for …` of the file of rules.
    #[serde(rename = "for")]
    who: String,
    /// The rule, as in a line `allow …` or `deny …` of the file of rules.
    rule: String,
}

/// Rules in the order in which they are asked, after those of the file.
#[derive(Debug, Serialize, JsonSchema)]
struct Rules {
    /// Rules.
    rules: Vec<Rule>,
    /// The cursor of the part that follows; null at the end.
    next: Option<String>,
    /// Number of rules in the database.
    total: usize,
}

async fn list_rules(State(admin): State<Shared>, Query(part): Query<Part>) -> Answer<Rules> {
    let limit = limit(part.limit)?;
    let after = part.cursor.map(|cursor| verify(Listing::Rules, &cursor)).transpose()?;
    let (_, content) = database(&admin, "rules")?;
    let all = content.rules();
    let last = after.and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let begin = match last {
        None => 0,
        Some(last) => {
            let place = all.iter().position(|rule| rule.number == last);
            let gone =
                || Problem::new(StatusCode::GONE, "the rules have changed; begin without cursor");
            place.ok_or_else(gone)? + 1
        }
    };
    let left = &all[begin..];
    let shown = &left[..left.len().min(limit)];
    let last = shown.last().filter(|_| shown.len() < left.len());
    let next = last.map(|rule| sign(Listing::Rules, &rule.number.to_le_bytes()));
    let rule = |of: &database::Entry| Rule {
        number: of.number,
        who: of.who.to_string(),
        rule: of.rule.to_string(),
    };
    Ok(Json(Rules { rules: shown.iter().map(rule).collect(), next, total: all.len() }))
}

/// A new access rule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewRule {
    /// The clients that the rule is for, such as `user alice`, `group meters` or `everyone`.
    #[serde(rename = "for")]
    who: String,
    /// The rule, such as `allow publish meters/%u/#`.
    rule: String,
    /// Number of the rule before which this one is asked; without it, this one is the last.
    before: Option<u32>,
}

/// What takes the place of an access rule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OtherRule {
    /// The clients that the rule is for, such as `user alice`, `group meters` or `everyone`.
    #[serde(rename = "for")]
    who: String,
    /// The rule, such as `allow publish meters/%u/#`.
    rule: String,
}

async fn add_rule(State(admin): State<Shared>, Json(body): Json<NewRule>) -> Answer<Changed> {
    let NewRule { who, rule, before } = body;
    change(&admin, "rules", Edit::AddRule { who, rule, before }).await
}

async fn change_rule(
    State(admin): State<Shared>,
    Path(number): Path<u32>,
    Json(body): Json<OtherRule>,
) -> Answer<Changed> {
    let OtherRule { who, rule } = body;
    change(&admin, "rules", Edit::ChangeRule { number, who, rule }).await
}

async fn remove_rule(State(admin): State<Shared>, Path(number): Path<u32>) -> Answer<Changed> {
    change(&admin, "rules", Edit::RemoveRule { number }).await
}

/// Makes a change on a thread of its own, as hashes and files take time, and has all cores check their clients.
async fn change(admin: &Shared, what: &str, change: Edit) -> Answer<Changed> {
    let (control, _) = database(admin, what)?;
    let made = tasks::beside(move || control.change_database(change)).await;
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the change failed");
    let rule = made.map_err(failed)?.map_err(problem)?;
    let check = |reply| Command::Engine(EngineCommand::CheckAccess(reply));
    let checked = admin.broker.ask(check).await;
    let complete = checked.iter().all(Option::is_some);
    let all = || checked.iter().flatten();
    Ok(Json(Changed {
        rule,
        disconnected: all().map(|core| core.clients_disconnected).sum(),
        subscriptions_ended: all().map(|core| core.subscriptions_ended).sum(),
        complete,
    }))
}

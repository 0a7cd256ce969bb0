//! `broker ctl`: the client of the admin interface, and what the broker's program knows for it. The client is a crate of
//! its own, which is compiled for size.

pub use ringmq_ctl::{ClusterFlags, CtlFlags, Target};
use ringmq_ctl::{CtlCommand, Known, Outcome, TokenCommand};

use super::access::new_password;
use super::{Exit, Failure};
use crate::admin::auth::tokens;
use crate::config::{AdminBind, Bind, Settings};

/// Runs the command.
pub(super) fn run(flags: &CtlFlags, settings: &Settings) -> Result<Exit, Failure> {
    let outcome = match &flags.what {
        CtlCommand::Token { file, what } => {
            let file = file.as_ref().unwrap_or(&settings.admin.access.tokens_file);
            token(file, what)
        }
        _ => {
            let new_password = |user: &str| new_password(user).map_err(|error| error.to_string());
            ringmq_ctl::run(flags, &Known { places: places(settings), new_password: &new_password })
        }
    };
    outcome.map(exit).map_err(|error| Failure::of(exit(error.outcome()), "ctl")(error))
}

/// The exit codes of this command have the numbers of those of the broker.
fn exit(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Done => Exit::Success,
        Outcome::No => Exit::Other,
        Outcome::Usage => Exit::Configuration,
        Outcome::Unreachable => Exit::Listen,
        Outcome::NotAllowed => Exit::Descriptors,
        Outcome::InPart => Exit::Store,
    }
}

/// Where the configuration has the interface.
fn places(settings: &Settings) -> Vec<Target> {
    let place = |bind: &AdminBind| match bind {
        AdminBind::Unix => settings.admin_socket().ok().map(Target::Unix),
        AdminBind::Bind(Bind::Path(path)) => Some(Target::Unix(path.clone())),
        AdminBind::Bind(Bind::Address(address)) => Some(Target::Tcp {
            host: address.ip().to_string(),
            port: address.port(),
            tls: settings.admin.tls.is_used(),
        }),
    };
    settings.admin.listen.iter().filter_map(place).collect()
}

/// Changes the file of tokens.
fn token(file: &std::path::Path, what: &TokenCommand) -> Result<Outcome, ringmq_ctl::Error> {
    use ringmq_ctl::Error;
    if file.as_os_str().is_empty() {
        let what = "no file of tokens: set admin.access.tokens_file in the configuration and name that with \
                    --config, or use --file";
        return Err(Error::Usage(what.to_owned()));
    }
    match what {
        TokenCommand::Add { role, name } => {
            let role = role.parse().map_err(Error::Usage)?;
            let token = tokens::add(file, role, name).map_err(Error::Usage)?;
            ringmq_ctl::print_text(&format!("{token}\n"))?;
            Ok(Outcome::Done)
        }
        TokenCommand::Remove { name } => match tokens::remove(file, name).map_err(Error::Usage)? {
            true => Ok(Outcome::Done),
            false => Err(Error::No(format!("{} has no token {name:?}", file.display()))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogLevel, Role};

    #[test]
    fn the_place_is_found_from_the_configuration() {
        let settings = |text: &str| Settings::from_toml(text).expect("it parses");
        let address = settings("[admin]\nlisten = [\"127.0.0.1:9883\"]");
        let found = Target::find(None, places(&address)).expect("a place");
        assert_eq!(found.to_string(), "http://127.0.0.1:9883");
        let missing = settings("[admin]\nlisten = [\"unix:/nowhere/admin.sock\"]");
        let Err(ringmq_ctl::Error::Unreachable(what)) = Target::find(None, places(&missing)) else {
            panic!("no socket")
        };
        assert!(what.contains("unix:/nowhere/admin.sock"), "{what}");
        let named = Target::Unix("/x".into());
        assert_eq!(Target::find(Some(&named), places(&missing)).expect("it is named"), named);
    }

    #[test]
    fn the_client_has_the_roles_and_the_levels_of_the_configuration() {
        assert_eq!(Role::ALL.map(Role::name), ringmq_ctl::ROLES);
        assert_eq!(LogLevel::ALL.map(LogLevel::name).to_vec(), ringmq_ctl::level_names());
    }
}

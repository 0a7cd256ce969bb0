//! Options of bridges, which follow `connection`. This version has no bridges of its own.

use super::refused;
use super::syntax::Line;
use super::translation::{Outcome, Translator};

/// Options of the section that `connection` begins.
const OPTIONS: &[&str] = &[
    "address",
    "addresses",
    "topic",
    "round_robin",
    "start_type",
    "idle_timeout",
    "threshold",
    "restart_timeout",
    "keepalive_interval",
    "cleansession",
    "local_cleansession",
    "local_clientid",
    "local_username",
    "local_password",
    "remote_clientid",
    "remote_username",
    "remote_password",
    "clientid",
    "username",
    "password",
    "notifications",
    "notifications_local_only",
    "notification_topic",
    "try_private",
];

/// Refuses an option of a bridge; none if the option is of something else.
pub(super) fn take(translator: &mut Translator, line: &Line) -> Option<Outcome> {
    let option = line.option.as_str();
    if option == "connection" {
        translator.section.is_bridge = true;
        return Some(refused(
            "bridges are not supported by this version; let a bridge of the other broker connect to this one, or \
             remove the section",
        ));
    }
    let is_of_bridge = OPTIONS.contains(&option) || option.starts_with("bridge_");
    is_of_bridge.then(|| match translator.section.is_bridge {
        true => refused("bridges are not supported by this version; remove the section"),
        false => refused("an option of a bridge, which begins with `connection NAME`"),
    })
}

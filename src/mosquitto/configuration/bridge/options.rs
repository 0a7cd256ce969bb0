//! The options of a bridge, one by one.

use std::net::IpAddr;

use super::super::syntax::Line;
use super::super::translation::{Effect, Outcome, Translator};
use super::super::{ignored, refused};
use super::{Draft, tls, topics};
use crate::base::secret_file;

/// Options of a bridge whose names do not begin with `bridge_`.
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

/// The port of a server without one.
const PORT: u16 = 1883;

/// Messages that wait before a lazy bridge connects, unless `threshold` says otherwise.
const THRESHOLD: i64 = 10;

/// The longest time before a first attempt, in seconds.
const FIRST_S_MAX: i64 = 60;

/// Whether an option is one of a bridge.
pub(super) fn is_of_bridge(option: &str) -> bool {
    OPTIONS.contains(&option) || option.starts_with("bridge_")
}

/// Takes an option of this bridge.
pub(super) fn take(
    translator: &mut Translator,
    bridge: usize,
    line: &Line,
    place: usize,
) -> Outcome {
    let option = line.option.as_str();
    if let Some(outcome) = tls::take(translator, bridge, line, place) {
        return outcome;
    }
    let draft = &mut translator.bridges[bridge];
    let by = Some(place);
    match option {
        "address" | "addresses" => return take_addresses(translator, bridge, line, place),
        "topic" => {
            draft.options.insert(option.to_owned(), place);
            let topic = topics::take(line, place)?;
            draft.rules.extend(topic.rules);
            draft.shares.extend(topic.share.map(|share| (share, place)));
        }
        "keepalive_interval" => {
            draft.set("keep_alive_s", line.number(0..=65_535)?.max(5), by);
        }
        "restart_timeout" => return take_restart_timeout(translator, bridge, line, place),
        "remote_clientid" | "clientid" => draft.set("client_identifier", line.text()?, by),
        "remote_username" | "username" => draft.set("username", line.text()?, by),
        "remote_password" | "password" => {
            draft.set("password", line.text()?, by);
            if secret_file::is_open_to_others(&line.file) {
                let remark = "every user can read this file with a password; run chmod 600 on it";
                return Ok(Effect::Warned(remark.to_owned()));
            }
        }
        "local_username" => {
            draft.set("user", line.text()?, by);
            let note = "rules apply to this user, where Mosquitto lets a bridge do everything";
            return Ok(Effect::Noted(note.to_owned()));
        }
        "local_clientid" => {
            draft.set("local_client_identifier", line.text()?, by);
            let note = "rules know the bridge by it; its session has the name $bridge/NAME";
            return Ok(Effect::Noted(note.to_owned()));
        }
        "local_password" => return ignored("the bridge is a part of the broker"),
        "cleansession" => draft.set("clean_start", line.boolean()?, by),
        "local_cleansession" => draft.set("queue.offline", !line.boolean()?, by),
        "notifications" => {
            let profile = if line.boolean()? { "mosquitto" } else { "none" };
            draft.set("profile", profile, by);
        }
        "notifications_local_only" => {
            if line.boolean()? {
                draft.options.insert(option.to_owned(), place);
                let note = "the state is on $SYS/broker/bridges/NAME/state";
                return Ok(Effect::Noted(note.to_owned()));
            }
        }
        "round_robin" => {
            let prefer = if line.boolean()? { "any" } else { "first" };
            draft.set("prefer", prefer, by);
        }
        "notification_topic" => {
            let topic = line.text()?;
            draft.options.insert(option.to_owned(), place);
            draft.set("notification_topic", topic, by);
        }
        "start_type" => return take_start(draft, line, place),
        "idle_timeout" => draft.set("idle_s", line.number(0..=86_400)?.max(1), by),
        "threshold" => draft.set("lazy_messages", line.number(1..=i64::from(u32::MAX))?, by),
        "try_private" => draft.set("bridge_bit", line.boolean()?, by),
        "bridge_protocol_version" => draft.set("version", version(line)?, by),
        "bridge_outgoing_retain" => {
            let mode = if line.boolean()? { "always" } else { "clear" };
            draft.set("retained", mode, by);
        }
        "bridge_max_packet_size" => {
            draft.set("packet_bytes_max", line.number(0..=268_435_460)?, by);
        }
        "bridge_receive_maximum" => draft.set("receive_maximum", line.number(1..=65_535)?, by),
        "bridge_session_expiry_interval" => {
            draft.set("session_expiry_s", line.number(0..=4_294_967_295)?, by);
        }
        "bridge_bind_address" => match line.word()?.parse::<IpAddr>() {
            Ok(address) => draft.set("bind", address.to_string(), by),
            Err(_) => return refused("a name is not resolved; give an address of this machine"),
        },
        "bridge_max_topic_alias" => {
            draft.set("topic_alias_maximum", line.number(0..=65_535)?, by);
        }
        "bridge_attempt_unsubscribe" => draft.set("unsubscribe_out", line.boolean()?, by),
        "bridge_reload_type" => match line.word()? {
            mode @ ("immediate" | "lazy") => draft.set("reload", mode, by),
            other => return refused(format!("{other:?} is neither lazy nor immediate")),
        },
        "bridge_tcp_keepalive" => return take_tcp_keep_alive(draft, line, place),
        "bridge_tcp_user_timeout" => {
            draft.set("tcp.user_timeout_ms", line.number(0..=i64::from(i32::MAX))?, by);
        }
        _ => return refused("not supported by this version; remove the line"),
    }
    Ok(Effect::Taken)
}

/// Takes when the bridge connects.
fn take_start(draft: &mut Draft, line: &Line, place: usize) -> Outcome {
    match line.word()? {
        "automatic" => Ok(Effect::Taken),
        "lazy" => {
            draft.set("start", "lazy", Some(place));
            if !draft.keys.contains_key("lazy_messages") {
                draft.set("lazy_messages", THRESHOLD, None);
            }
            Ok(Effect::Taken)
        }
        "once" => {
            draft.set("start", "once", Some(place));
            Ok(Effect::Noted("`broker ctl bridge start` connects it again".to_owned()))
        }
        "manual" => refused("Mosquitto does not have it either; use automatic"),
        other => refused(format!("{other:?} is neither automatic, lazy nor once")),
    }
}

/// Takes when TCP probes the connection: after how long, how often, and how many probes may have no answer.
fn take_tcp_keep_alive(draft: &mut Draft, line: &Line, place: usize) -> Outcome {
    let words: Vec<&str> = line.words()?.collect();
    let [idle, interval, probes] = words[..] else {
        return refused(
            "takes three numbers: seconds before a probe, seconds between probes, and probes",
        );
    };
    for (key, word, most) in [
        ("tcp.keep_alive_idle_s", idle, 32_767),
        ("tcp.keep_alive_interval_s", interval, 32_767),
        ("tcp.keep_alive_probes", probes, 127),
    ] {
        match word.parse::<i64>() {
            Ok(number) if (1..=most).contains(&number) => draft.set(key, number, Some(place)),
            _ => return refused(format!("{word:?} is not a number from 1 to {most}")),
        }
    }
    Ok(Effect::Taken)
}

fn version(line: &Line) -> Result<&'static str, String> {
    match line.word()? {
        "mqttv31" => Ok("3.1"),
        "mqttv311" => Ok("3.1.1"),
        "mqttv50" => Ok("5"),
        other => Err(format!("{other:?} is not one of mqttv31, mqttv311, mqttv50")),
    }
}

/// Takes addresses, `HOST` or `HOST:PORT`; an IPv6 address has a port, and no brackets.
fn take_addresses(
    translator: &mut Translator,
    bridge: usize,
    line: &Line,
    place: usize,
) -> Outcome {
    let address = |word: &str| match word.rsplit_once(':') {
        None => Ok((word.to_owned(), PORT)),
        Some((host, port)) => match port.parse() {
            Ok(port) if port > 0 => Ok((host.trim_matches(['[', ']']).to_owned(), port)),
            _ => Err(format!("the port of {word:?} is not a number from 1 to 65535")),
        },
    };
    let words = line.words()?.take_while(|word| !word.starts_with('#'));
    let addresses: Vec<(String, u16)> = words.map(address).collect::<Result<_, _>>()?;
    if addresses.is_empty() {
        return Err(format!("{} has no value", line.option));
    }
    let draft = &mut translator.bridges[bridge];
    if let Some(earlier) = draft.options.insert("address".to_owned(), place) {
        return refused(format!("{}; name all addresses in one line", translator.set_at(earlier)));
    }
    draft.addresses = addresses;
    Ok(Effect::Taken)
}

/// Takes the time before attempts: a constant one, or the first and the longest one, and after which a connection is
/// stable.
fn take_restart_timeout(
    translator: &mut Translator,
    bridge: usize,
    line: &Line,
    place: usize,
) -> Outcome {
    let number = |word: &str| {
        let number = word.parse::<i64>().ok().filter(|number| (0..=86_400).contains(number));
        number.ok_or_else(|| format!("{word:?} is not a number of seconds up to 86400"))
    };
    let numbers: Vec<i64> = line.words()?.map(number).collect::<Result<_, _>>()?;
    let (base, cap, stable) = match numbers[..] {
        [constant] => (constant.max(1), constant.max(1), None),
        [base, cap] => (base.max(1), cap, None),
        [base, cap, stable] => (base.max(1), cap, Some(stable)),
        _ => return refused("takes one number of seconds, or two, or three"),
    };
    if cap < base {
        return refused("the longest time is shorter than the first one; exchange them");
    }
    let draft = &mut translator.bridges[bridge];
    draft.set("reconnect.first_ms", base.min(FIRST_S_MAX) * 1_000, Some(place));
    draft.set("reconnect.most_s", cap, Some(place));
    if let Some(stable) = stable {
        draft.set("reconnect.stable_s", stable, Some(place));
    }
    match base > FIRST_S_MAX {
        true => Ok(Effect::Noted("the first attempt is after a minute".to_owned())),
        false => Ok(Effect::Taken),
    }
}

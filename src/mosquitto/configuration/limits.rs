//! Options that limit what clients can use, and those of the protocol.

use toml::Value;

use super::syntax::Line;
use super::translation::{Effect, Generation, Outcome, Translator};
use super::{ignored, refused};

/// The largest value of `limits.queue_messages_max`.
const QUEUE_MESSAGES_MAX: i64 = 100_000_000;

/// The largest value of `limits.queue_bytes_max` and `limits.memory_bytes_max`.
const BYTES_MAX: i64 = 1_099_511_627_776;

/// The largest value of `limits.inflight_max`.
const INFLIGHT_MAX: i64 = 30_000;

/// Values that Mosquitto has by default.
pub(super) fn defaults(translator: &mut Translator) {
    let packet_bytes_max = match translator.generation {
        Generation::V2_0 => 268_435_455,
        Generation::V2_1 => 2_000_000,
    };
    for (option, key, value) in [
        ("max_inflight_messages", "limits.inflight_max", 20),
        ("max_inflight_messages", "limits.receive_maximum", 20),
        ("max_queued_messages", "limits.queue_messages_max", 1_000),
        ("max_queued_bytes", "limits.queue_bytes_max", BYTES_MAX),
        ("max_packet_size", "limits.packet_bytes_max", packet_bytes_max),
    ] {
        if translator.option(option).is_none() {
            translator.set(key, value, None);
        }
    }
}

/// Takes an option of this kind; none if the option is of another kind.
pub(super) fn take(translator: &mut Translator, line: &Line, place: usize) -> Option<Outcome> {
    let outcome = match line.option.as_str() {
        "max_inflight_messages" => take_inflight(translator, line, place),
        "max_queued_messages" => {
            let most = QUEUE_MESSAGES_MAX;
            take_number(translator, place, "limits.queue_messages_max", -1..=i64::MAX, (most, most))
        }
        "max_queued_bytes" => {
            let most = (BYTES_MAX, BYTES_MAX);
            take_number(translator, place, "limits.queue_bytes_max", 0..=i64::MAX, most)
        }
        "max_packet_size" => take_packet_size(translator, line, place),
        "memory_limit" => {
            let most = (0, BYTES_MAX);
            take_number(translator, place, "limits.memory_bytes_max", 0..=i64::MAX, most)
        }
        "global_max_connections" => take_count(translator, line, place, "limits.connections_max"),
        "global_max_clients" => take_count(translator, line, place, "limits.sessions_max"),
        "max_keepalive" => take_keep_alive(translator, line, place),
        "persistent_client_expiration" => take_expiration(translator, line, place),
        "sys_interval" => {
            take_number(translator, place, "mqtt.sys_interval_s", 0..=65_535, (0, 65_535))
        }
        "retain_available" => line.boolean().map(|is_available| {
            translator.set("mqtt.retain_available", is_available, Some(place));
            Effect::Taken
        }),
        "max_inflight_bytes" => {
            let most = (0, BYTES_MAX);
            take_number(translator, place, "limits.inflight_bytes_max", 0..=i64::MAX, most)
        }
        "message_size_limit" => {
            take_number(translator, place, "limits.payload_bytes_max", 0..=268_435_455, (0, 268_435_455))
        }
        "queue_qos0_messages" => line.boolean().map(|are_queued| {
            translator.set("limits.queue_qos0", are_queued, Some(place));
            Effect::Taken
        }),
        "retain_expiry_interval" => ignored("retained messages expire by themselves"),
        "allow_duplicate_messages" => {
            ignored("a client with overlapping subscriptions receives one copy")
        }
        "retry_interval" | "store_clean_interval" => ignored("no effect, as in Mosquitto"),
        "set_tcp_nodelay" => ignored("TCP_NODELAY is always set"),
        "packet_buffer_size" => ignored("there is no such buffer"),
        "upgrade_outgoing_qos" => line.boolean().and_then(|is_asked| match is_asked {
            false => Ok(Effect::Taken),
            true => refused(
                "the specification forbids a QoS above that of the message; remove the line, and publish with the QoS \
                 that subscribers need",
            ),
        }),
        _ => return None,
    };
    Some(outcome)
}

/// Takes a number of one key. `most` are the values for 0 and for what the key does not reach.
fn take_number(
    translator: &mut Translator,
    place: usize,
    key: &str,
    range: std::ops::RangeInclusive<i64>,
    most: (i64, i64),
) -> Outcome {
    let number = translator.lines[place].number(range)?;
    let value = if number <= 0 { most.0 } else { number.min(most.1) };
    translator.set(key, value, Some(place));
    translator.options.insert(translator.lines[place].option.clone(), place);
    Ok(match number > most.1 {
        true => Effect::Noted(format!("the largest value of {key}")),
        false => Effect::Taken,
    })
}

/// Takes a number of connections or clients; -1 is no limit.
fn take_count(translator: &mut Translator, line: &Line, place: usize, key: &str) -> Outcome {
    let count = line.number(-1..=100_000_000)?;
    if count > 0 {
        translator.set(key, count, Some(place));
    }
    match count {
        0 => refused("0 would admit nobody; use -1 for no limit"),
        _ => Ok(Effect::Taken),
    }
}

fn take_inflight(translator: &mut Translator, line: &Line, place: usize) -> Outcome {
    let count = match line.number(-1..=65_535)? {
        ..=0 => 65_535,
        count => count,
    };
    translator.options.insert(line.option.clone(), place);
    translator.set("limits.inflight_max", count.min(INFLIGHT_MAX), Some(place));
    translator.set("limits.receive_maximum", count, Some(place));
    Ok(match count > INFLIGHT_MAX {
        true => Effect::Noted("the largest value of limits.inflight_max".to_owned()),
        false => Effect::Taken,
    })
}

fn take_packet_size(translator: &mut Translator, line: &Line, place: usize) -> Outcome {
    const SMALLEST: i64 = 128;
    let size = line.number(20..=268_435_455)?;
    translator.options.insert(line.option.clone(), place);
    translator.set("limits.packet_bytes_max", size.max(SMALLEST), Some(place));
    Ok(match size < SMALLEST {
        true => Effect::Noted("the smallest value of limits.packet_bytes_max".to_owned()),
        false => Effect::Taken,
    })
}

fn take_keep_alive(translator: &mut Translator, line: &Line, place: usize) -> Outcome {
    let seconds = line.number(0..=65_535)?;
    if (1..10).contains(&seconds) {
        return refused("from 10 to 65535, or 0 for no limit");
    }
    for key in ["limits.keep_alive_max_s", "limits.keep_alive_v3_max_s"] {
        translator.set(key, seconds, Some(place));
    }
    Ok(Effect::Taken)
}

/// Takes a duration such as `2d`, or `0` or `never` for none.
fn take_expiration(translator: &mut Translator, line: &Line, place: usize) -> Outcome {
    let word = line.word()?;
    let seconds = match word {
        "0" | "never" => i64::from(u32::MAX),
        _ => duration(word).ok_or_else(|| {
            format!(
                "{word:?} is not a duration such as 2d: a number with s, h, d, w, m (30 days) or y (365 days)"
            )
        })?,
    };
    translator.set("limits.session_expiry_max_s", Value::Integer(seconds), Some(place));
    Ok(Effect::Taken)
}

fn duration(word: &str) -> Option<i64> {
    const DAY: i64 = 86_400;
    let unit = word.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'h' => 3_600,
        'd' => DAY,
        'w' => 7 * DAY,
        'm' => 30 * DAY,
        'y' => 365 * DAY,
        _ => return None,
    };
    let count: i64 = word[..word.len() - 1].parse().ok().filter(|count| *count > 0)?;
    count.checked_mul(seconds).map(|seconds| seconds.min(i64::from(u32::MAX)))
}

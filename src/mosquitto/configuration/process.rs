//! Options about the process: persistence, the log, the PID file, the user.

use std::path::Path;

use super::syntax::Line;
use super::translation::{Effect, Outcome, Translator};
use super::{ignored, refused};
use crate::base::log_sink::{CONVERSIONS, Stamp};

/// Kinds of lines in Mosquitto's log.
const LOG_TYPES: &[&str] = &[
    "debug",
    "error",
    "warning",
    "notice",
    "information",
    "subscribe",
    "unsubscribe",
    "websockets",
    "internal",
    "none",
    "all",
];

/// Takes an option of this kind; none if the option is of another kind.
pub(super) fn take(translator: &mut Translator, line: &Line, place: usize) -> Option<Outcome> {
    let outcome = match line.option.as_str() {
        "persistence" | "retained_persistence" => line.boolean().map(|_| {
            translator.options.insert("persistence".to_owned(), place);
            Effect::Taken
        }),
        "persistence_location" | "persistence_file" => {
            line.text().map(str::to_owned).and_then(|_| translator.note(place))
        }
        "autosave_interval" | "autosave_on_changes" => {
            ignored("what is acknowledged is on disk; storage.sync has the alternatives")
        }
        "connection_messages" => line.boolean().map(|are_logged| {
            translator.set("log.connections", are_logged, Some(place));
            Effect::Taken
        }),
        "log_dest" => take_log_dest(translator, line, place),
        "log_type" => take_log_type(translator, line, place),
        "log_facility" => line.number(0..=7).map(|number| {
            translator.set("log.facility", format!("local{number}"), Some(place));
            Effect::Taken
        }),
        "log_timestamp" => line.boolean().map(|has_time| {
            translator.options.insert(line.option.clone(), place);
            if !has_time {
                translator.set("log.timestamp_format", "none", Some(place));
            }
            Effect::Taken
        }),
        "log_timestamp_format" => take_timestamp_format(translator, line, place),
        "pid_file" => line.text().map(str::to_owned).and_then(|file| {
            translator.set("pid_file", file, Some(place));
            translator.note(place)
        }),
        "user" => line.word().map(str::to_owned).map(|user| match user.as_str() {
            "root" => Effect::Noted("the user is not changed".to_owned()),
            user => {
                translator.set("user", user, Some(place));
                Effect::Noted("where it is started as root".to_owned())
            }
        }),
        _ => return None,
    };
    Some(outcome)
}

fn take_log_dest(translator: &mut Translator, line: &Line, place: usize) -> Outcome {
    let text = line.text()?.to_owned();
    let (kind, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let to = match (kind, rest.trim()) {
        ("stdout" | "stderr" | "syslog" | "none", _) => kind.to_owned(),
        ("file", "") => return refused("names no file: `log_dest file /PATH`"),
        ("file", file) => {
            let file = std::path::absolute(file).map_err(|error| error.to_string())?;
            format!("file:{}", file.display())
        }
        ("topic", _) => {
            translator.options.insert("log_dest topic".to_owned(), place);
            translator.set("log.topics", true, Some(place));
            return Ok(Effect::Noted("errors, warnings and information".to_owned()));
        }
        ("dlt" | "android", _) => {
            return refused("not supported; use stdout, stderr, syslog or file");
        }
        _ => {
            return refused(format!(
                "{kind:?} is not one of stdout, stderr, syslog, file, topic, none"
            ));
        }
    };
    match translator.options.insert(line.option.clone(), place) {
        Some(_) if to != "none" => {
            ignored("one destination is supported by this version: the first one")
        }
        _ => {
            translator.set("log.to", to, Some(place));
            Ok(Effect::Taken)
        }
    }
}

fn take_timestamp_format(translator: &mut Translator, line: &Line, place: usize) -> Outcome {
    let format = line.text()?;
    if let Err(conversion) = Stamp::of_format(format) {
        return refused(format!("{conversion} is not supported; use {CONVERSIONS}"));
    }
    let has_time =
        translator.option("log_timestamp").is_none_or(|(_, of)| of.boolean() == Ok(true));
    if has_time {
        translator.set("log.timestamp_format", format, Some(place));
    }
    Ok(Effect::Noted("times are in UTC".to_owned()))
}

fn take_log_type(translator: &mut Translator, line: &Line, place: usize) -> Outcome {
    let word = line.word()?;
    if !LOG_TYPES.contains(&word) {
        return refused(format!("{word:?} is not one of {}", LOG_TYPES.join(", ")));
    }
    translator.options.insert(format!("log_type {word}"), place);
    match word {
        "websockets" | "internal" => ignored("there are no lines of this kind"),
        "subscribe" | "unsubscribe" => ignored("subscriptions are logged at level trace"),
        _ => Ok(Effect::Taken),
    }
}

/// Sets the keys of options that belong together.
pub(super) fn finish(translator: &mut Translator) {
    finish_storage(translator);
    translator.set("log.format", "mosquitto", None);
    let topics = translator.options.get("log_dest topic").copied();
    if topics.is_some() && translator.option("log_dest").is_none() {
        translator.set("log.to", "none", topics);
    }
    let given = |name: &str| translator.options.get(&format!("log_type {name}")).copied();
    let levels = [
        (&["all", "debug"][..], "debug"),
        (&["information", "notice"], "info"),
        (&["warning"], "warn"),
        (&["error"], "error"),
    ];
    let highest = levels
        .iter()
        .find_map(|(names, level)| Some((names.iter().find_map(|name| given(name))?, *level)));
    match (highest, given("none")) {
        (Some((place, level)), None) => translator.set("log.level", level, Some(place)),
        (_, Some(place)) => {
            translator.set("log.to", "none", Some(place));
            if topics.is_some() {
                translator.set("log.topics", false, Some(place));
            }
        }
        (None, None) => {}
    }
}

fn finish_storage(translator: &mut Translator) {
    let kept = translator.option("persistence");
    let kept = kept.filter(|(_, line)| line.boolean() == Ok(true)).map(|(place, _)| place);
    let sqlite = translator.options.get("persist_sqlite").copied();
    let kept = sqlite.or(kept);
    let database = match sqlite {
        Some(place) => translator.option("persist_sqlite_file").map_or_else(
            || (Some(place), "mosquitto.sqlite3".to_owned()),
            |(by, line)| (Some(by), line.value.clone()),
        ),
        None => translator
            .option("persistence_file")
            .map_or((None, "mosquitto.db".to_owned()), |(by, line)| (Some(by), line.value.clone())),
    };
    let location = translator.option("persistence_location");
    let location = location.map(|(place, line)| (place, line.value.clone()));
    let Some(kept) = kept else {
        let by = translator.option("persistence").map(|(place, _)| place);
        return translator.set("storage.data", "none", by);
    };
    let (by, database) = database;
    let beside = Path::new(&database).parent().filter(|_| sqlite.is_some());
    let beside = beside.map(|folder| folder.to_string_lossy().into_owned());
    let (place, folder) = location.unwrap_or((kept, beside.unwrap_or_default()));
    let folder = Path::new(&folder).join("ringmq");
    translator.set("storage.data", folder.to_string_lossy().as_ref(), Some(place));
    let file = folder.with_file_name(database);
    translator.set("storage.import_mosquitto", file.to_string_lossy().as_ref(), by);
    translator.outcomes[kept] =
        Ok(Effect::Noted("what is acknowledged is on disk, in a folder of its own".to_owned()));
}

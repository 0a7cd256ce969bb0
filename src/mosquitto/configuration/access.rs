//! Options about who may connect and what clients may do.

use super::listener::{self, unless_false};
use super::syntax::Line;
use super::translation::{Effect, Outcome, Translator};
use super::{go_auth, ignored, refused};

/// The plugin of dynamic security, and its file, among the options.
const DYNAMIC_SECURITY: &str = "mosquitto_dynamic_security";
const DYNAMIC_FILE: &str = "mosquitto_dynamic_security_file";

/// What options of plugins are for: the plugin of the line before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plugin {
    /// There is none.
    None,
    /// Passwords in a file.
    PasswordFile,
    /// Access rules in a file.
    AclFile,
    /// Clients, groups and roles in a file, which commands change.
    DynamicSecurity,
    /// A store in an SQLite database.
    PersistSqlite,
    /// Passwords and rules in files, and a server.
    GoAuth,
    /// A plugin that is refused.
    Refused,
}

/// Takes an option of this kind; none if the option is of another kind.
pub(super) fn take(translator: &mut Translator, line: &Line, place: usize) -> Option<Outcome> {
    let option = line.option.as_str();
    let outcome = match option {
        "per_listener_settings" => take_per_listener(translator, line, place),
        "allow_anonymous" => line.boolean().map(|_| store(translator, "allow_anonymous", place)),
        "listener_allow_anonymous" => line.boolean().map(|_| {
            let own = translator.section.listener;
            translator.listeners[own].options.insert(option.to_owned(), place);
            Effect::Taken
        }),
        "password_file" | "acl_file" => {
            line.text().map(str::to_owned).map(|_| store(translator, option, place))
        }
        "plugin" | "global_plugin" | "auth_plugin" => {
            line.text().map(str::to_owned).and_then(|path| take_plugin(translator, &path, place))
        }
        "plugin_load" => line.text().map(str::to_owned).and_then(|text| {
            let (_name, path) = text.split_once(' ').unwrap_or(("", &text));
            take_plugin(translator, path.trim(), place)
        }),
        "plugin_use" => Ok(Effect::Noted("its file applies to all listeners".to_owned())),
        "auth_plugin_deny_special_chars" => line.boolean().and_then(|denies| match denies {
            true => Ok(Effect::Taken),
            false => ignored("names with `+`, `#` or `/` never open a pattern"),
        }),
        "check_retain_source" => line.boolean().and_then(|is_asked| match is_asked {
            false => Ok(Effect::Taken),
            true => ignored("a retained message is checked when it is published, not again later"),
        }),
        "enable_control_api" => {
            unless_false(line, "`broker ctl` answers what $CONTROL/broker/v1 does")
        }
        _ if option.starts_with("plugin_opt_") || option.starts_with("auth_opt_") => {
            take_plugin_option(translator, line, place)
        }
        _ => return take_identifiers(translator, line, place),
    };
    Some(outcome)
}

/// Takes options about Client Identifiers.
fn take_identifiers(translator: &mut Translator, line: &Line, place: usize) -> Option<Outcome> {
    let outcome = match line.option.as_str() {
        "allow_zero_length_clientid" => line.boolean().map(|is_allowed| {
            translator.set("mqtt.assigned_client_identifiers", is_allowed, Some(place));
            Effect::Taken
        }),
        "clientid_prefixes" => line.text().map(str::to_owned).map(|prefix| {
            translator.set("mqtt.client_identifier_prefix", prefix, Some(place));
            Effect::Taken
        }),
        "auto_id_prefix" => line.text().map(str::to_owned).map(|prefix| {
            match translator.option("per_listener_settings") {
                Some(_) => listener::keep_prefix(translator, place),
                None => translator.set("mqtt.assigned_identifier_prefix", prefix, Some(place)),
            }
            Effect::Taken
        }),
        "listener_auto_id_prefix" => line.text().map(str::to_owned).map(|_| {
            listener::keep_prefix(translator, place);
            Effect::Taken
        }),
        _ => return None,
    };
    Some(outcome)
}

fn take_per_listener(translator: &mut Translator, line: &Line, place: usize) -> Outcome {
    let is_asked = line.boolean()?;
    let is_late = ["allow_anonymous", "password_file", "acl_file"]
        .iter()
        .any(|option| translator.option(option).is_some());
    match is_asked {
        true if is_late => refused("has to be before allow_anonymous, password_file and acl_file"),
        true => {
            translator.options.insert(line.option.clone(), place);
            let note =
                "allow_anonymous, password_file and acl_file belong to the listener before them";
            Ok(Effect::Noted(note.to_owned()))
        }
        false => Ok(Effect::Taken),
    }
}

/// Stores an option that belongs to the listener before it if `per_listener_settings` is set.
fn store(translator: &mut Translator, option: &str, place: usize) -> Effect {
    let own = translator.section.listener;
    let options = match translator.option("per_listener_settings") {
        Some(_) => &mut translator.listeners[own].options,
        None => &mut translator.options,
    };
    options.insert(option.to_owned(), place);
    Effect::Taken
}

/// Takes a plugin by the name of its file.
fn take_plugin(translator: &mut Translator, path: &str, place: usize) -> Outcome {
    let file = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let name = file.split('.').next().unwrap_or(file).replace('-', "_");
    let (plugin, outcome) = match name.as_str() {
        "mosquitto_password_file" => {
            (Plugin::PasswordFile, Ok(Effect::Noted("as password_file".to_owned())))
        }
        "mosquitto_acl_file" => (Plugin::AclFile, Ok(Effect::Noted("as acl_file".to_owned()))),
        "mosquitto_dynamic_security" => {
            let note = "the file of plugin_opt_config_file is used as it is";
            store(translator, DYNAMIC_SECURITY, place);
            (Plugin::DynamicSecurity, Ok(Effect::Noted(note.to_owned())))
        }
        "mosquitto_persist_sqlite" => {
            translator.options.insert("persist_sqlite".to_owned(), place);
            (Plugin::PersistSqlite, Ok(Effect::Noted("the database is imported".to_owned())))
        }
        "go_auth" => (Plugin::GoAuth, go_auth::take_plugin(translator, place)),
        _ => (
            Plugin::Refused,
            refused(format!(
                "the plugin {file} cannot be loaded: only plugins whose function this broker has are taken over"
            )),
        ),
    };
    translator.section.plugin = plugin;
    outcome
}

fn take_plugin_option(translator: &mut Translator, line: &Line, place: usize) -> Outcome {
    line.text()?;
    let name = line.option.split_once("_opt_").map_or("", |(_, name)| name);
    match (translator.section.plugin, name) {
        (Plugin::None, _) => refused("an option of a plugin, which begins with `plugin FILE`"),
        (Plugin::PasswordFile, "password_file") | (Plugin::AclFile, "acl_file") => {
            Ok(store(translator, name, place))
        }
        (Plugin::DynamicSecurity, "config_file") => Ok(store(translator, DYNAMIC_FILE, place)),
        (Plugin::DynamicSecurity, "password_init_file") => ignored(
            "the file of plugin_opt_config_file has to be there; `mosquitto_ctrl dynsec init` makes one",
        ),
        (Plugin::PersistSqlite, "db_file") => {
            translator.options.insert("persist_sqlite_file".to_owned(), place);
            Ok(Effect::Taken)
        }
        (Plugin::PersistSqlite, "sync" | "flush_period" | "page_size") => {
            ignored("what is acknowledged is on disk; storage.sync has the alternatives")
        }
        (Plugin::GoAuth, _) => go_auth::take(translator, line, name, place),
        (Plugin::Refused, _) => refused("an option of a plugin that is refused"),
        _ => refused("the plugin has no such option; correct the name, or remove the line"),
    }
}

/// Whether a listener admits anonymous clients, if it says so itself, and the place of that.
pub(super) fn anonymous_of(translator: &Translator, number: usize) -> Option<(bool, usize)> {
    let own = translator.of_listener(number, "listener_allow_anonymous");
    let own = own.or_else(|| translator.of_listener(number, "allow_anonymous"));
    own.and_then(|(place, line)| Some((line.boolean().ok()?, place)))
}

/// Sets the keys of options that several listeners may have.
pub(super) fn finish(translator: &mut Translator) {
    let given = translator.option("allow_anonymous");
    let given = given.and_then(|(place, line)| Some((line.boolean().ok()?, Some(place))));
    // A broker that only this machine reaches admits everybody, unless it is told otherwise.
    let (anonymous, by) = given.unwrap_or((listener::is_local_only(translator), None));
    translator.set("access.anonymous", anonymous, by);
    if let Some((file, place)) = common_file(translator, "password_file") {
        translator.set("access.password_file", file, Some(place));
    }
    let has_dynamic_security = finish_dynamic_security(translator);
    if has_dynamic_security {
        let reason = "not supported together with dynamic security; name the same file for all listeners, or remove it";
        refuse_own_files(translator, "password_file", reason);
    }
    if go_auth::finish(translator) {
        return;
    }
    let Some(rules) = finish_rules(translator) else { return };
    if has_dynamic_security {
        let reason = "not supported together with dynamic security, whose rules decide alone; move the rules to its roles";
        translator.outcomes[rules] = refused(reason);
        refuse_own_files(translator, "acl_file", reason);
    }
    translator.set("access.acl_format", "mosquitto", Some(rules));
    // Mosquitto believes User Names that it cannot check, and its rules go by them.
    let has_file = |of| translator.of_listener(of, "password_file").is_some();
    if translator.option("password_file").is_none() && !listener::used(translator).all(has_file) {
        translator.set("access.unverified_names", true, None);
    }
}

/// Sets the key of the rules of all listeners, if they have the same ones. The place of the first option, if there is one.
fn finish_rules(translator: &mut Translator) -> Option<usize> {
    if let Some((file, place)) = common_file(translator, "acl_file") {
        translator.set("access.acl_file", file, Some(place));
        return Some(place);
    }
    let mut own = listener::used(translator)
        .filter_map(|listener| own_file(translator, listener, "acl_file"));
    own.next().map(|(_, place)| place)
}

/// The file of all listeners that an option names, if they have the same one, with the place of its line.
fn common_file(translator: &Translator, option: &str) -> Option<(String, usize)> {
    let common = |place, line: &Line| Some((line.value.clone(), place));
    if let Some((place, line)) = translator.option(option) {
        return common(place, line);
    }
    let mut files =
        listener::used(translator).map(|listener| translator.of_listener(listener, option));
    let (place, first) = files.next()??;
    let is_same =
        |other: Option<(usize, &Line)>| other.is_some_and(|(_, of)| of.value == first.value);
    if files.all(is_same) { common(place, first) } else { None }
}

/// The file that a listener has of its own, with the place of its line.
pub(super) fn own_file(
    translator: &Translator,
    listener: usize,
    option: &str,
) -> Option<(String, usize)> {
    let (place, line) = translator.of_listener(listener, option)?;
    common_file(translator, option).is_none().then(|| (line.value.clone(), place))
}

/// Refuses files that differ between listeners.
fn refuse_own_files(translator: &mut Translator, option: &str, reason: &str) {
    let own = |listener| own_file(translator, listener, option).map(|(_, place)| place);
    let places: Vec<usize> = listener::used(translator).filter_map(own).collect();
    for place in places {
        translator.outcomes[place] = refused(reason);
    }
}

/// Whether an option is set for all listeners.
fn is_everywhere(translator: &Translator, option: &str) -> bool {
    translator.option(option).is_some()
        || listener::used(translator).all(|of| translator.of_listener(of, option).is_some())
}

/// Sets the key of dynamic security; whether it is asked for.
fn finish_dynamic_security(translator: &mut Translator) -> bool {
    let of_listeners = 0..translator.listeners.len();
    let mut plugins = of_listeners.filter_map(|of| translator.of_listener(of, DYNAMIC_SECURITY));
    let global = translator.option(DYNAMIC_SECURITY);
    let Some(plugin) = global.or_else(|| plugins.next()).map(|(place, _)| place) else {
        return false;
    };
    if finish_file(translator, DYNAMIC_FILE, "access.dynamic_security").is_none() {
        translator.outcomes[plugin] = refused("needs its file; add a line plugin_opt_config_file");
    } else if !is_everywhere(translator, DYNAMIC_SECURITY) {
        translator.outcomes[plugin] = refused(
            "dynamic security applies to all listeners in this version, but some have none; name it for each of them",
        );
    }
    true
}

/// Sets the key of a file that applies to all listeners. The place of the option, if there is one.
fn finish_file(translator: &mut Translator, option: &str, key: &str) -> Option<usize> {
    let global = translator.option(option);
    let of_listeners =
        (0..translator.listeners.len()).filter_map(|of| translator.of_listener(of, option));
    let all = global.into_iter().chain(of_listeners);
    let files: Vec<(String, usize)> = all.map(|(at, line)| (line.value.clone(), at)).collect();
    let (first, place) = files.first().cloned()?;
    translator.set(key, first.as_str(), Some(place));
    for (_, other) in files.into_iter().filter(|(file, _)| *file != first) {
        let earlier = translator.set_at(place);
        translator.outcomes[other] = refused(format!(
            "one file applies to all listeners in this version ({earlier}); put everything in one file"
        ));
    }
    Some(place)
}

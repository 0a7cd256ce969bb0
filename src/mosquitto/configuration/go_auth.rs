//! Options of the plugin go-auth: its backends `files` and `http`, of which the first that says yes decides.

use super::syntax::Line;
use super::translation::{Effect, Outcome, Translator};
use super::{ignored, refused};

/// The plugin among the options.
const PLUGIN: &str = "go_auth";

/// Options of the plugin that are kept until all are known.
const KEPT: &[&str] = &[
    "backends",
    "files_password_path",
    "files_acl_path",
    "cache",
    "auth_cache_seconds",
    "acl_cache_seconds",
    "http_host",
    "http_port",
    "http_getuser_uri",
    "http_superuser_uri",
    "http_aclcheck_uri",
    "http_with_tls",
    "http_params_mode",
    "http_response_mode",
    "http_timeout",
    "disable_superuser",
];

/// Options that have no effect here.
const WITHOUT_EFFECT: &[&str] = &[
    "auth_jitter_seconds",
    "acl_jitter_seconds",
    "cache_type",
    "cache_reset",
    "cache_refresh",
    "hasher_algorithm",
    "hasher_iterations",
    "hasher_keylen",
    "hasher_salt_size",
    "log_level",
    "log_dest",
    "log_file",
    "retry_count",
    "http_user_agent",
];

/// How long answers are cached by default, in seconds.
const CACHE_S: i64 = 30;

/// How long the plugin waits for a server by default, in seconds.
const TIMEOUT_S: i64 = 5;

/// Takes the line that names the plugin.
pub(super) fn take_plugin(translator: &mut Translator, place: usize) -> Outcome {
    translator.options.insert(PLUGIN.to_owned(), place);
    Ok(Effect::Noted("its backends files and http".to_owned()))
}

/// Takes an option of the plugin.
pub(super) fn take(translator: &mut Translator, line: &Line, name: &str, place: usize) -> Outcome {
    let value = line.text()?;
    match name {
        "backends" => {
            let backends = value.split(',').map(str::trim);
            if let Some(other) = backends.clone().find(|of| !["files", "http"].contains(of)) {
                return refused(format!(
                    "the backend {other:?} is not supported; use files, http or both, or `mosquitto_password_file`"
                ));
            }
        }
        "hasher" if !["pbkdf2", "argon2id"].contains(&value) => {
            return refused("hashes of this kind cannot be verified; use pbkdf2 or argon2id");
        }
        "hasher_salt_encoding" if value != "base64" => {
            return refused("salts of hashes have to be in base64; write the passwords again");
        }
        "http_method" if value != "POST" => {
            return refused("the server is sent POST requests; let it accept them");
        }
        "http_params_mode" if !["json", "form"].contains(&value) => {
            return refused("is neither json nor form");
        }
        "http_response_mode" if !["status", "json", "text"].contains(&value) => {
            return refused("is not one of status, json, text");
        }
        "http_port" | "auth_cache_seconds" | "acl_cache_seconds" | "http_timeout" => {
            line.number(0..=65_535)?;
        }
        "cache" | "http_with_tls" | "disable_superuser" => drop(line.boolean()?),
        _ => {}
    }
    match name {
        "hasher" | "hasher_salt_encoding" | "http_method" => {
            Ok(Effect::Noted("as here".to_owned()))
        }
        "http_verify_peer" => {
            line.boolean()?;
            Ok(Effect::Noted("the certificate of the server is always verified".to_owned()))
        }
        _ if KEPT.contains(&name) => {
            translator.options.insert(key(name), place);
            Ok(Effect::Taken)
        }
        _ if WITHOUT_EFFECT.contains(&name) => ignored("no effect here"),
        _ => refused("the plugin has no such option, or it is not supported; remove the line"),
    }
}

fn key(name: &str) -> String {
    format!("{PLUGIN} {name}")
}

/// The line of an option of the plugin, with its place.
fn option(translator: &Translator, name: &str) -> Option<(usize, Line)> {
    translator.option(&key(name)).map(|(place, line)| (place, line.clone()))
}

fn number(translator: &Translator, name: &str) -> Option<i64> {
    option(translator, name).and_then(|(_, line)| line.number(0..=65_535).ok())
}

fn is_set(translator: &Translator, name: &str) -> bool {
    option(translator, name).is_some_and(|(_, line)| line.boolean() == Ok(true))
}

/// Sets the keys of the plugin. Returns whether its backends decide, so that rules of a file do not decide alone.
pub(super) fn finish(translator: &mut Translator) -> bool {
    let Some((plugin, _)) = translator.option(PLUGIN) else { return false };
    let Some((place, line)) = option(translator, "backends") else {
        translator.outcomes[plugin] = refused("needs a line auth_opt_backends, such as files,http");
        return false;
    };
    let has = |backend: &str| line.value.split(',').any(|of| of.trim() == backend);
    for (option, is_in_file) in [("password_file", has("files")), ("acl_file", has("files"))] {
        let of_listeners = (0..translator.listeners.len())
            .filter_map(|listener| translator.of_listener(listener, option));
        let all = translator.option(option).into_iter().chain(of_listeners);
        let double: Vec<usize> = all.map(|(at, _)| at).filter(|_| is_in_file).collect();
        for at in double {
            translator.outcomes[at] =
                refused("the plugin go-auth has a file of its own; put everything in one file");
        }
    }
    let files = option(translator, "files_password_path").filter(|_| has("files"));
    match files {
        Some((by, path)) => {
            translator.set("access.password_file", path.value.as_str(), Some(by));
        }
        None if has("files") => {
            translator.outcomes[place] = refused("files needs a line auth_opt_files_password_path");
            return false;
        }
        None => {}
    }
    let rules = option(translator, "files_acl_path").filter(|_| has("files"));
    if let Some((by, path)) = &rules {
        translator.set("access.acl_file", path.value.as_str(), Some(*by));
        translator.set("access.acl_format", "mosquitto", Some(*by));
    }
    if !has("http") {
        return true;
    }
    if let Err(missing) = finish_http(translator, has("files"), rules.is_some()) {
        translator.outcomes[place] = refused(format!("http needs a line auth_opt_{missing}"));
    }
    true
}

/// Sets the keys of the server; the error is the name of an option that is missing.
fn finish_http(
    translator: &mut Translator,
    has_files: bool,
    has_rules: bool,
) -> Result<(), &'static str> {
    let needed = |name: &'static str| option(translator, name).ok_or(name);
    let (_, host) = needed("http_host")?;
    let user = needed("http_getuser_uri")?;
    let acl = needed("http_aclcheck_uri")?;
    let is_superuser_asked = !is_set(translator, "disable_superuser");
    let superuser = match is_superuser_asked {
        true => Some(needed("http_superuser_uri")?),
        false => None,
    };
    let is_secure = is_set(translator, "http_with_tls");
    let (scheme, port) = if is_secure { ("https", 443) } else { ("http", 80) };
    let port = number(translator, "http_port").unwrap_or(port);
    let url = |uri: &Line| {
        let slash = if uri.value.starts_with('/') { "" } else { "/" };
        format!("{scheme}://{}:{port}{slash}{}", host.value, uri.value)
    };
    // Without a file of rules, the backend `files` allows everything to everybody.
    let is_asked_about_topics = has_rules || !has_files;
    let text = |name: &str, otherwise: &str| {
        option(translator, name).map_or(otherwise.to_owned(), |(_, line)| line.value)
    };
    let (params, answer) = (text("http_params_mode", "json"), text("http_response_mode", "status"));
    let timeout_ms = 1_000 * number(translator, "http_timeout").unwrap_or(TIMEOUT_S).clamp(1, 60);
    let is_cached = is_set(translator, "cache");
    let cache_s = |name: &str| match is_cached {
        true => number(translator, name).unwrap_or(CACHE_S),
        false => 0,
    };
    let (user_s, acl_s) = (cache_s("auth_cache_seconds"), cache_s("acl_cache_seconds").max(1));
    for (table, is_used, (place, uri), seconds) in
        [("http", true, &user, user_s), ("authorization", is_asked_about_topics, &acl, acl_s)]
    {
        if !is_used {
            translator.outcomes[*place] =
                ignored("the backend files without a file of rules allows everything");
            continue;
        }
        let key = |name: &str| format!("access.{table}.{name}");
        translator.set(&key("url"), url(uri), Some(*place));
        translator.set(&key("params"), params.as_str(), None);
        translator.set(&key("answer"), answer.as_str(), None);
        translator.set(&key("timeout_ms"), timeout_ms, None);
        translator.set(&key("cache_s"), seconds, None);
    }
    translator.set("access.http.after_passwords", true, Some(user.0));
    if is_asked_about_topics {
        translator.set("access.authorization.after_rules", true, Some(acl.0));
    }
    if let Some((place, uri)) = superuser {
        match is_asked_about_topics {
            true => {
                let url = url(&uri);
                translator.set("access.authorization.superuser_url", url, Some(place));
            }
            false => {
                translator.outcomes[place] =
                    ignored("the backend files without a file of rules allows everything");
            }
        }
    }
    Ok(())
}

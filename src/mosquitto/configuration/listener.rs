//! Options of listeners. Those before the first `listener` are of the default one.

use std::net::SocketAddr;

use toml::Value;

use super::syntax::Line;
use super::translation::{Draft, Effect, Outcome, Translator, Written};
use super::{access, ignored, refused};
use crate::config::Addresses;
use crate::config::listener::check_mount_point;

/// The port of the default listener.
const PORT: u16 = 1883;

/// Topic Aliases that Mosquitto accepts, and sets, by default.
const TOPIC_ALIASES: i64 = 10;

/// The option that names the prefix of assigned Client Identifiers.
const PREFIX: &str = "listener_auto_id_prefix";

/// Options of TLS, which have no effect without a certificate.
const OF_TLS: &[&str] = &["cafile", "capath", "crlfile", "tls_version", "require_certificate"];

/// Takes an option of this kind; none if the option is of another kind.
pub(super) fn take(translator: &mut Translator, line: &Line, place: usize) -> Option<Outcome> {
    let outcome = match line.option.as_str() {
        "listener" => begin(translator, line, place),
        "port" => line.number(1..=65_535).and_then(|_| store(translator, 0, place)),
        "bind_address" => {
            line.text().map(str::to_owned).and_then(|_| store_once(translator, 0, place))
        }
        "bind_interface" => {
            line.text().map(str::to_owned).and_then(|_| keep_once(translator, place))
        }
        "socket_domain" => one_of(line, &["ipv4", "ipv6"]).and_then(|()| keep(translator, place)),
        "protocol" => {
            one_of(line, &["mqtt", "websockets", "http_api"]).and_then(|()| keep(translator, place))
        }
        "max_connections" => line.number(-1..=100_000_000).and_then(|count| match count {
            0 => keep(translator, place)
                .map(|_| Effect::Noted("0 is no limit, as in Mosquitto".to_owned())),
            _ => keep(translator, place),
        }),
        "max_topic_alias" | "max_topic_alias_broker" => {
            line.number(0..=65_535).and_then(|_| keep(translator, place))
        }
        "websockets_origin" => line.text().map(str::to_owned).map(|_| {
            let several = format!("websockets_origin {place:06}");
            translator.listeners[translator.section.listener].options.insert(several, place);
            Effect::Taken
        }),
        "websockets_log_level" => ignored("the log levels of libwebsockets do not exist here"),
        "websockets_headers_size" => {
            ignored("websocket.request_bytes_max limits the request to 32 KiB")
        }
        "http_dir" => line.text().map(str::to_owned).and_then(|_| keep_once(translator, place)),
        _ => return take_tls(translator, line, place),
    };
    Some(outcome)
}

fn take_tls(translator: &mut Translator, line: &Line, place: usize) -> Option<Outcome> {
    let outcome = match line.option.as_str() {
        "cafile" | "certfile" | "keyfile" | "crlfile" | "capath" => {
            line.text().map(str::to_owned).and_then(|_| keep_once(translator, place))
        }
        "require_certificate" | "use_identity_as_username" | "use_subject_as_username" => {
            line.boolean().and_then(|_| keep(translator, place))
        }
        "use_username_as_clientid" => line.boolean().and_then(|_| keep(translator, place)),
        "tls_version" => match line.word() {
            Ok("tlsv1.3" | "tlsv1.2") => keep(translator, place),
            Ok("tlsv1.1" | "tlsv1") => {
                refused("TLS 1.0 and 1.1 are not supported; use tlsv1.2, or remove the line")
            }
            Ok(other) => refused(format!("{other:?} is neither tlsv1.3 nor tlsv1.2")),
            Err(what) => Err(what),
        },
        "ciphers" => take_ciphers(line),
        "ciphers_tls1.3" => take_ciphers_of_1_3(line),
        "dhparamfile" => ignored("key exchange with finite fields is not used"),
        "tls_keyform" => match line.word() {
            Ok("pem") => Ok(Effect::Taken),
            Ok(_) => refused("OpenSSL engines are not supported; use a key in a PEM file"),
            Err(what) => Err(what),
        },
        "tls_engine" | "tls_engine_kpass_sha1" => {
            refused("OpenSSL engines are not supported; use a key in a PEM file")
        }
        "disable_client_cert_date_checks" => line.boolean().and_then(|is_asked| match is_asked {
            false => Ok(Effect::Taken),
            true => refused("expired certificates are always refused; renew them"),
        }),
        "psk_file" | "psk_hint" => {
            refused("pre-shared keys are not supported; use certificates, or passwords over TLS")
        }
        "enable_proxy_protocol" => match line.word() {
            Ok("1" | "2" | "true") => keep(translator, place),
            Ok("0" | "false") => Ok(Effect::Taken),
            Ok(other) => refused(format!("{other:?} is neither 1 nor 2")),
            Err(what) => Err(what),
        },
        "proxy_protocol_v2_require_tls" => line.boolean().and_then(|_| keep(translator, place)),
        _ => return take_new(translator, line, place),
    };
    Some(outcome)
}

/// Takes options of the protocol.
fn take_new(translator: &mut Translator, line: &Line, place: usize) -> Option<Outcome> {
    let outcome = match line.option.as_str() {
        "max_qos" | "maximum_qos" => {
            line.number(0..=2).and_then(|_| keep_as(translator, "max_qos", place))
        }
        "mount_point" => {
            line.text().and_then(check_mount_point).and_then(|()| keep_once(translator, place))
        }
        "accept_protocol_versions" => versions(line).and_then(|_| keep(translator, place)),
        _ => return None,
    };
    Some(outcome)
}

/// The versions that `accept_protocol_versions` lists by number.
fn versions(line: &Line) -> Result<Vec<Value>, String> {
    let version = |word: &str| match word {
        "3" => Ok("3.1".into()),
        "4" => Ok("3.1.1".into()),
        "5" => Ok("5.0".into()),
        other => Err(format!("{other:?} is not one of 3, 4, 5")),
    };
    let words = line.text()?.split([',', ' ']).filter(|word| !word.is_empty());
    words.map(version).collect()
}

/// Takes a boolean option that asks for something this version does not have.
pub(super) fn unless_false(line: &Line, instead: &str) -> Outcome {
    match line.boolean()? {
        false => Ok(Effect::Taken),
        true => refused(format!("not supported by this version; {instead}")),
    }
}

fn one_of(line: &Line, words: &[&str]) -> Result<(), String> {
    let word = line.word()?;
    match words.contains(&word) {
        true => Ok(()),
        false => Err(format!("{word:?} is not one of {}", words.join(", "))),
    }
}

/// Suites of TLS 1.2, in the words of OpenSSL, that may be named in lists with words such as HIGH.
pub(super) fn take_ciphers(line: &Line) -> Outcome {
    let word = line.word()?;
    let can_agree = word.split([':', ',', ' ']).any(|suite| {
        let is_of_these =
            suite.starts_with("ECDHE-") && (suite.contains("GCM") || suite.contains("CHACHA20"));
        let is_group = ["DEFAULT", "HIGH", "ALL", "ECDHE", "kECDHE", "EECDH", "AESGCM", "CHACHA20"];
        let first = suite.split('+').next().unwrap_or(suite);
        is_of_these || is_group.contains(&first) || suite.starts_with("@SECLEVEL")
    });
    match can_agree {
        true => ignored("TLS 1.2 uses ECDHE with AES-GCM or ChaCha20 only"),
        false => refused(
            "none of these suites is supported: TLS 1.2 uses ECDHE with AES-GCM or ChaCha20; remove the line",
        ),
    }
}

const SUITES_OF_1_3: [&str; 3] =
    ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];

pub(super) fn take_ciphers_of_1_3(line: &Line) -> Outcome {
    let word = line.word()?;
    let named: Vec<&str> = word.split(':').collect();
    match SUITES_OF_1_3.iter().all(|suite| named.contains(suite)) {
        true => Ok(Effect::Noted("the three suites of TLS 1.3".to_owned())),
        false => refused(format!(
            "not supported by this version; remove the line: TLS 1.3 uses {}",
            SUITES_OF_1_3.join(", ")
        )),
    }
}

/// Begins the section of a listener.
fn begin(translator: &mut Translator, line: &Line, place: usize) -> Outcome {
    translator.listeners.push(Draft::default());
    translator.section.listener = translator.listeners.len() - 1;
    let port = line.number(0..=65_535)?;
    if port == 0 && host(line).is_empty() {
        return refused(
            "port 0 is for a Unix socket, whose path follows: `listener 0 /run/name.sock`",
        );
    }
    keep(translator, place)
}

/// What follows the port of a listener.
fn host(line: &Line) -> &str {
    line.value.split_once(' ').map_or("", |(_, host)| host.trim())
}

/// Keeps an option of the listener whose section it is in.
fn keep(translator: &mut Translator, place: usize) -> Outcome {
    store(translator, translator.section.listener, place)
}

/// Keeps an option of the listener whose section it is in, under the name that it has now.
fn keep_as(translator: &mut Translator, name: &str, place: usize) -> Outcome {
    let listener = translator.section.listener;
    translator.listeners[listener].options.insert(name.to_owned(), place);
    Ok(Effect::Taken)
}

/// Keeps a prefix of assigned Client Identifiers for the listener whose section it is in.
pub(super) fn keep_prefix(translator: &mut Translator, place: usize) {
    let listener = translator.section.listener;
    translator.listeners[listener].options.insert(PREFIX.to_owned(), place);
}

fn keep_once(translator: &mut Translator, place: usize) -> Outcome {
    store_once(translator, translator.section.listener, place)
}

fn store(translator: &mut Translator, listener: usize, place: usize) -> Outcome {
    let option = translator.lines[place].option.clone();
    translator.listeners[listener].options.insert(option, place);
    Ok(Effect::Taken)
}

/// Stores an option that is a text, which may be given once.
fn store_once(translator: &mut Translator, listener: usize, place: usize) -> Outcome {
    let option = translator.lines[place].option.clone();
    match translator.listeners[listener].options.insert(option, place) {
        Some(earlier) => Err(format!("{}; remove one of them", translator.set_at(earlier))),
        None => Ok(Effect::Taken),
    }
}

/// Whether only the default listener exists, and only this machine reaches it.
pub(super) fn is_local_only(translator: &Translator) -> bool {
    let default = &translator.listeners[0].options;
    translator.listeners.len() == 1
        && !["port", "bind_address", "bind_interface"]
            .iter()
            .any(|option| default.contains_key(*option))
}

/// The numbers of the listeners that are opened: the default one only if it has options, or if there is no other.
pub(super) fn used(translator: &Translator) -> impl Iterator<Item = usize> {
    let has_default = is_local_only(translator) || !translator.listeners[0].options.is_empty();
    usize::from(!has_default)..translator.listeners.len()
}

/// The keys of all listeners. `ports` are used by a broker that serves this machine only.
pub(super) fn finish(translator: &mut Translator, ports: &[u16]) -> Vec<Vec<Written>> {
    let mut all = Vec::new();
    let is_local_only = is_local_only(translator);
    finish_aliases(translator);
    let used: Vec<usize> = used(translator).collect();
    for number in used {
        let binds = match is_local_only {
            true => {
                let ports = if ports.is_empty() { &[PORT] } else { ports };
                let all = ports.iter().flat_map(|&port| Addresses::loopback(port).0);
                all.map(|address| address.to_string()).collect()
            }
            false => binds(translator, number),
        };
        let word =
            translator.of_listener(number, "protocol").and_then(|(_, line)| line.word().ok());
        if word == Some("http_api") {
            finish_admin(translator, number, &binds);
            continue;
        }
        let of_all = keys(translator, number);
        let place = of_address(translator, number);
        for bind in binds {
            let bind = Written { key: "bind".to_owned(), value: bind.into(), by: place };
            all.push([bind].into_iter().chain(of_all.iter().cloned()).collect());
        }
    }
    all
}

/// The place of the line that names the address of a listener.
fn of_address(translator: &Translator, number: usize) -> Option<usize> {
    let options = &translator.listeners[number].options;
    ["listener", "port", "bind_address"].iter().find_map(|name| options.get(*name).copied())
}

/// What a listener is bound to.
fn binds(translator: &mut Translator, number: usize) -> Vec<String> {
    let (port, host) = match translator.of_listener(number, "listener") {
        Some((_, line)) => (line.word().ok().and_then(|port| port.parse().ok()), host(line)),
        None => {
            let port = translator.of_listener(0, "port").and_then(|(_, line)| line.word().ok());
            let host = translator.of_listener(0, "bind_address").map(|(_, line)| &*line.value);
            (port.and_then(|port| port.parse().ok()), host.unwrap_or_default())
        }
    };
    let port: u16 = port.unwrap_or(PORT);
    // It takes precedence over an address, as in Mosquitto.
    let has_interface = port != 0 && translator.of_listener(number, "bind_interface").is_some();
    let host = if has_interface { "" } else { host };
    if port == 0 {
        return vec![format!("unix:{host}")];
    }
    let domain = translator.of_listener(number, "socket_domain");
    let domain = domain.map(|(place, line)| (place, line.value.starts_with("ipv6")));
    match (host, domain) {
        ("", None) => vec![format!(":{port}")],
        ("", Some((_, false))) => vec![format!("0.0.0.0:{port}")],
        ("", Some((_, true))) => vec![format!("[::]:{port}")],
        (host, None) => vec![with_port(host, port)],
        (host, Some((place, is_ipv6))) => {
            let found = with_port(host, port).parse::<Addresses>().map(|found| found.0);
            let fits = |address: &SocketAddr| address.is_ipv6() == is_ipv6;
            let fitting = found.map(|found| found.into_iter().filter(fits).collect::<Vec<_>>());
            match fitting {
                Ok(fitting) if !fitting.is_empty() => {
                    fitting.iter().map(ToString::to_string).collect()
                }
                _ => {
                    translator.outcomes[place] =
                        refused("the host has no address of this kind; name an address");
                    Vec::new()
                }
            }
        }
    }
}

fn with_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The keys of a listener but its address.
fn keys(translator: &mut Translator, number: usize) -> Vec<Written> {
    let mut keys = Vec::new();
    let mut set =
        |key: &str, value: Value, by| keys.push(Written { key: key.to_owned(), value, by });
    let has_path =
        translator.of_listener(number, "listener").is_some_and(|(_, line)| line.word() == Ok("0"));
    let certificate = ["certfile", "keyfile"]
        .iter()
        .find_map(|name| translator.of_listener(number, name))
        .map(|(place, _)| place);
    let protocol = translator.of_listener(number, "protocol");
    let protocol = protocol.map(|(place, line)| (place, line.value.starts_with("websockets")));
    let is_websocket = protocol.is_some_and(|(_, is_websocket)| is_websocket);
    let (transport, by) = match (is_websocket, certificate) {
        (true, None) => ("ws", protocol.map(|(place, _)| place)),
        (true, certificate) => ("wss", certificate),
        (false, None) if has_path => ("unix", of_address(translator, number)),
        (false, None) => ("tcp", protocol.map(|(place, _)| place)),
        (false, certificate) => ("tls", certificate),
    };
    set("transport", transport.into(), by);
    if let Some((place, line)) = translator.of_listener(number, "bind_interface") {
        match has_path {
            false => set("interface", line.value.as_str().into(), Some(place)),
            true => translator.outcomes[place] = ignored("a Unix socket is on no interface"),
        }
    }
    if let Some((place, _)) = translator.of_listener(number, "http_dir") {
        translator.outcomes[place] =
            ignored("the broker serves no files; `protocol http_api` has a dashboard");
    }
    if let Some((place, line)) = translator.of_listener(number, "max_connections") {
        let count = line.number(-1..=100_000_000).unwrap_or_default().max(0);
        set("connections_max", count.into(), Some(place));
    }
    if let Some((anonymous, place)) = access::anonymous_of(translator, number) {
        set("anonymous", anonymous.into(), Some(place));
    }
    for key in ["password_file", "acl_file"] {
        if let Some((file, place)) = access::own_file(translator, number, key) {
            set(key, file.into(), Some(place));
        }
    }
    if let Some((place, line)) = translator.of_listener(number, "use_username_as_clientid") {
        set("username_as_client_identifier", (line.boolean() == Ok(true)).into(), Some(place));
    }
    if let Some((place, line)) = translator.of_listener(number, "accept_protocol_versions") {
        set("versions", versions(line).unwrap_or_default().into(), Some(place));
    }
    if let Some((place, line)) = translator.of_listener(number, "max_qos") {
        set("maximum_qos", line.number(0..=2).unwrap_or(2).into(), Some(place));
    }
    if let Some((place, line)) = translator.of_listener(number, "mount_point") {
        set("mount_point", line.value.as_str().into(), Some(place));
    }
    if let Some((place, line)) = translator.of_listener(number, PREFIX) {
        set("assigned_identifier_prefix", line.value.as_str().into(), Some(place));
    }
    if let Some((place, _)) = translator.of_listener(number, "enable_proxy_protocol") {
        let all: &[&str] = if has_path { &["unix"] } else { &["0.0.0.0/0", "::/0"] };
        let all: Vec<Value> = all.iter().map(|&of| of.into()).collect();
        set("proxy_protocol_from", all.into(), Some(place));
        translator.outcomes[place] = Ok(Effect::Noted(
            "every peer is trusted to be a proxy: let nobody else reach this listener".to_owned(),
        ));
    }
    if let Some((place, line)) = translator.of_listener(number, "proxy_protocol_v2_require_tls")
        && line.boolean() == Ok(true)
    {
        match translator.of_listener(number, "enable_proxy_protocol") {
            Some(_) => set("proxy_protocol_requires_tls", true.into(), Some(place)),
            None => {
                translator.outcomes[place] = ignored("no effect without enable_proxy_protocol");
            }
        }
    }
    if is_websocket {
        keys.extend(keys_of_websocket(translator, number));
    }
    match certificate {
        Some(_) => keys.extend(keys_of_tls(translator, number)),
        None => {
            for option in OF_TLS {
                if let Some((place, _)) = translator.of_listener(number, option) {
                    translator.outcomes[place] =
                        ignored("no effect without certfile and keyfile, as in Mosquitto");
                }
            }
            refuse_identity(translator, number, "needs certfile, keyfile and require_certificate");
        }
    }
    keys
}

/// The keys of a WebSocket listener: any path, and its origins.
fn keys_of_websocket(translator: &Translator, number: usize) -> Vec<Written> {
    let written = |key: &str, value, by| Written { key: key.to_owned(), value, by };
    let mut keys = vec![written("websocket.path", vec![Value::from("*")].into(), None)];
    let options = translator.listeners[number].options.range("websockets_origin".to_owned()..);
    let places: Vec<usize> = options
        .filter(|(name, _)| name.starts_with("websockets_origin "))
        .map(|(_, &place)| place)
        .collect();
    if let Some(&first) = places.first() {
        let origins: Vec<Value> =
            places.iter().map(|&place| translator.lines[place].value.as_str().into()).collect();
        keys.push(written("websocket.origins", origins.into(), Some(first)));
    }
    keys
}

/// Refuses options that take the user name from a certificate that no client is asked for.
fn refuse_identity(translator: &mut Translator, number: usize, reason: &str) {
    for option in ["use_identity_as_username", "use_subject_as_username"] {
        if let Some((place, line)) = translator.of_listener(number, option)
            && line.boolean() == Ok(true)
        {
            translator.outcomes[place] =
                refused(format!("{reason}: without them Mosquitto admits nobody"));
        }
    }
}

fn keys_of_tls(translator: &mut Translator, number: usize) -> Vec<Written> {
    let mut keys = Vec::new();
    let mut set = |key: &str, value: Value, by: usize| {
        keys.push(Written { key: format!("tls.{key}"), value, by: Some(by) });
    };
    for (option, key) in [("certfile", "certificate"), ("keyfile", "key")] {
        if let Some((place, line)) = translator.of_listener(number, option) {
            set(key, line.value.as_str().into(), place);
        }
    }
    if let Some((place, line)) = translator.of_listener(number, "tls_version") {
        let versions: &[&str] = match line.value.starts_with("tlsv1.3") {
            true => &["1.3"],
            false => &["1.2", "1.3"],
        };
        let versions: Vec<Value> = versions.iter().map(|&version| version.into()).collect();
        set("versions", versions.into(), place);
    }
    let required = translator.of_listener(number, "require_certificate");
    let required = required.filter(|(_, line)| line.boolean() == Ok(true)).map(|(place, _)| place);
    let Some(required) = required else {
        for option in ["cafile", "capath", "crlfile"] {
            if let Some((place, _)) = translator.of_listener(number, option) {
                translator.outcomes[place] =
                    ignored("clients are asked for no certificate without require_certificate");
            }
        }
        refuse_identity(translator, number, "needs require_certificate true");
        return keys;
    };
    set("client_certificate", "required".into(), required);
    let authorities = ["cafile", "capath"].map(|name| translator.of_listener(number, name));
    match authorities {
        [Some((place, line)), None] | [None, Some((place, line))] => {
            set("client_ca", line.value.as_str().into(), place);
        }
        [Some(_), Some((place, _))] => {
            translator.outcomes[place] =
                refused("one of cafile and capath is read; copy the file into the folder");
        }
        [None, None] => {
            translator.outcomes[required] =
                refused("needs the certificate authorities of clients; name their file in cafile");
        }
    }
    if let Some((place, line)) = translator.of_listener(number, "crlfile") {
        set("client_crl", vec![Value::from(line.value.as_str())].into(), place);
    }
    if let Some((place, line)) = translator.of_listener(number, "use_identity_as_username")
        && line.boolean() == Ok(true)
    {
        set("identity", "cn".into(), place);
    }
    if let Some((place, line)) = translator.of_listener(number, "use_subject_as_username")
        && line.boolean() == Ok(true)
    {
        set("identity", "subject".into(), place);
    }
    keys
}

/// Topic Aliases are the same for all listeners here: the lowest number is safe for every client.
fn finish_aliases(translator: &mut Translator) {
    for (option, key) in [
        ("max_topic_alias", "limits.topic_alias_maximum"),
        ("max_topic_alias_broker", "limits.topic_alias_outgoing_max"),
    ] {
        let of = |number| {
            let (place, line) = translator.of_listener(number, option)?;
            Some((line.number(0..=65_535).ok()?, place))
        };
        let given: Vec<(i64, usize)> = (0..translator.listeners.len()).filter_map(of).collect();
        let lowest = given.iter().min().copied();
        let (count, place) = lowest.map_or((TOPIC_ALIASES, None), |(count, at)| (count, Some(at)));
        translator.set(key, count, place);
        for (_, other) in given.into_iter().filter(|(number, _)| *number != count) {
            translator.outcomes[other] =
                ignored("the lowest number of all listeners applies to all of them");
        }
    }
}

/// The HTTP interface of Mosquitto 2.1: the admin interface of this broker.
fn finish_admin(translator: &mut Translator, number: usize, binds: &[String]) {
    let Some((place, _)) = translator.of_listener(number, "protocol") else { return };
    if !cfg!(feature = "admin") {
        translator.outcomes[place] = ignored("this broker was built without the admin interface");
        return;
    }
    if let Some((place, _)) = translator.of_listener(number, "http_dir") {
        translator.outcomes[place] =
            Ok(Effect::Noted("the dashboard of this broker, in place of these files".to_owned()));
    }
    let all: Vec<Value> =
        ["unix".to_owned()].iter().chain(binds).map(|bind| bind.as_str().into()).collect();
    translator.set("admin.listen", all, Some(place));
    let files = ["certfile", "keyfile"].map(|name| {
        translator.of_listener(number, name).map(|(place, line)| (place, line.value.clone()))
    });
    match files {
        [Some((place, certificate)), Some((other, key))] => {
            translator.set("admin.tls.certificate", certificate, Some(place));
            translator.set("admin.tls.key", key, Some(other));
        }
        _ => translator.set("admin.insecure", true, Some(place)),
    }
    translator.outcomes[place] = Ok(Effect::Noted(
        "the admin interface, with the routes of this broker; it needs a token but for health"
            .to_owned(),
    ));
}

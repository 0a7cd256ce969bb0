//! Log lines that clients can cause are rate-limited, and names chosen by clients are truncated: no
//! source file bypasses this.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Code that serves clients.
const SERVING: [&str; 7] = [
    "src/access",
    "src/engine",
    "src/executor",
    "src/base/pool.rs",
    "src/session",
    "src/transport",
    "src/wire",
];

/// Exceptions: code that logs at start, at the operator's request, or once for an unresponsive
/// core.
const OF_THE_OPERATOR: [&str; 7] = [
    "src/access/methods/jwt.rs",
    "src/access/methods/jwt/remote.rs",
    "src/access/mod.rs",
    "src/executor/storage.rs",
    "src/executor/placement.rs",
    "src/control/turns.rs",
    "src/transport/tls/certificates.rs",
];

/// Fields with client-chosen values.
const NAMES: [&str; 7] =
    ["client", "client_identifier", "user", "owner", "topic", "filter", "share"];

fn sources(of: &Path, found: &mut Vec<PathBuf>) {
    if of.is_file() {
        return found.push(of.to_owned());
    }
    for entry in fs::read_dir(of).expect("a folder of sources") {
        sources(&entry.expect("an entry of it").path(), found);
    }
}

/// The arguments of each call of a macro.
fn calls<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!("{name}!(");
    let end = |from: &str| {
        let mut depth = 1;
        from.find(|character| {
            depth += i32::from(character == '(') - i32::from(character == ')');
            depth == 0
        })
    };
    let calls = text.match_indices(&begin).map(|(place, _)| &text[place + begin.len()..]);
    calls.map(|call| &call[..end(call).unwrap_or(call.len())]).collect()
}

fn serving() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    SERVING.iter().for_each(|path| sources(&root.join(path), &mut found));
    let text = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a readable file");
        (path.strip_prefix(root).expect("below the root").to_owned(), text)
    };
    let all: Vec<_> = found.into_iter().map(text).collect();
    assert!(all.len() > 100, "{}", all.len());
    all
}

#[test]
fn every_line_that_a_client_can_cause_is_rate_limited() {
    let mut rated = 0;
    for (path, text) in serving() {
        rated += calls(&text, "rated").len() + calls(&text, "rated_by").len();
        if OF_THE_OPERATOR.iter().any(|of| path == Path::new(of)) {
            continue;
        }
        for level in ["error", "warn", "info"] {
            let calls = calls(&text, &format!("tracing::{level}"));
            assert!(calls.is_empty(), "{}: use log_rate::rated!({level}, …)", path.display());
        }
    }
    assert!(rated > 15, "{rated}");
}

#[test]
fn every_client_chosen_name_in_the_log_is_truncated() {
    let mut names = 0;
    for (path, text) in serving() {
        for kind in ["rated", "rated_by", "tracing::debug", "tracing::trace"] {
            for call in calls(&text, kind) {
                for argument in call.split(',').map(str::trim) {
                    let Some((field, value)) = argument.split_once(" = ") else {
                        // A variable of that name, assigned from name() just before.
                        let is_name = NAMES.contains(&argument.trim_start_matches(['%', '?']));
                        names += usize::from(is_name);
                        let before = text.split(call).next().unwrap_or_default();
                        let near =
                            &before[before.floor_char_boundary(before.len().saturating_sub(300))..];
                        assert!(!is_name || near.contains("name("), "{}: {call}", path.display());
                        continue;
                    };
                    if NAMES.contains(&field) {
                        names += 1;
                        let is_cut = ["name(", "map(name)", "map(user_name)"];
                        let is_cut = is_cut.iter().any(|cut| value.contains(cut));
                        assert!(is_cut, "{}: {argument}: use log_rate::name", path.display());
                    }
                }
            }
        }
    }
    assert!(names > 8, "{names}");
}

/// The arguments of a macro, divided at its own commas.
fn arguments(call: &str) -> Vec<&str> {
    let (mut depth, mut in_text, mut begin, mut found) = (0, false, 0, Vec::new());
    let mut before = ' ';
    for (place, character) in call.char_indices() {
        match character {
            '"' if before != '\\' => in_text = !in_text,
            '(' | '[' | '{' if !in_text => depth += 1,
            ')' | ']' | '}' if !in_text => depth -= 1,
            ',' if !in_text && depth == 0 => {
                found.push(call[begin..place].trim());
                begin = place + 1;
            }
            _ => {}
        }
        before = character;
    }
    found.push(call[begin..].trim());
    found
}

/// The names of the fields in a call of a log macro, whose first arguments are skipped.
fn fields(call: &str, skipped: usize) -> impl Iterator<Item = &str> {
    let fields = arguments(call).into_iter().skip(skipped);
    let fields = fields.take_while(|argument| !argument.starts_with('"') && !argument.is_empty());
    fields.filter(|argument| !argument.starts_with("target:")).map(|argument| {
        let name = argument.split_once(" = ").map_or(argument, |(name, _)| name);
        name.trim_start_matches(['%', '?'])
    })
}

#[test]
fn every_key_of_a_json_line_is_documented_and_every_documented_key_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut keys = BTreeSet::from(["timestamp", "level", "message", "left_out"].map(str::to_owned));
    for file in files.iter().filter(|file| !file.ends_with("src/base/log_rate.rs")) {
        let text = fs::read_to_string(file).expect("a readable file");
        let kinds =
            ["error", "warn", "info", "debug", "trace"].map(|level| format!("tracing::{level}"));
        let kinds = kinds.iter().map(|kind| (kind.as_str(), 0));
        for (kind, skipped) in kinds.chain([("rated", 2), ("rated_by", 2)]) {
            for call in calls(&text, kind) {
                for key in fields(call, skipped) {
                    let is_taken = ["timestamp", "level", "message"].contains(&key);
                    assert!(!is_taken, "{}: {key} twice in a line: {call}", file.display());
                    keys.insert(key.to_owned());
                }
            }
        }
    }
    let is_name = |key: &String| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    assert!(keys.iter().all(is_name), "{keys:?}");
    let text = fs::read_to_string(root.join("docs/operations.md")).expect("a readable file");
    let marker = "<!-- keys of JSON lines: compared with the sources by tests/log.rs -->";
    let (_, after) = text.split_once(marker).expect("the list of keys");
    let list = after.trim_start().split("\n\n").next().expect("the list");
    let documented: BTreeSet<String> =
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let shown: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    assert_eq!(documented, keys, "docs/operations.md: {}.", shown.join(", "));
}

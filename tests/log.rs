//! Log lines that clients can cause are rate-limited, and names chosen by clients are truncated: no
//! source file bypasses this.

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
const OF_THE_OPERATOR: [&str; 6] = [
    "src/access/methods/jwt.rs",
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
        rated += calls(&text, "rated").len();
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
        for kind in ["rated", "tracing::debug", "tracing::trace"] {
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
                        let is_cut = value.contains("name(") || value.contains("map(name");
                        assert!(is_cut, "{}: {argument}: use log_rate::name", path.display());
                    }
                }
            }
        }
    }
    assert!(names > 8, "{names}");
}

//! Checks the tests against `clauses.tsv`: each statement has a test or a reason why it has none,
//! and each test named after a statement refers to an existing one. `tests/CONFORMANCE.md` is
//! generated from both; `RINGMQ_REWRITE=1` rewrites it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

/// A row of `clauses.tsv`.
struct Clause {
    /// `5.0` or `3.1.1`.
    document: &'static str,
    name: &'static str,
    binds: &'static str,
    statement: &'static str,
    /// Why there is no test; empty if there must be one.
    reason: &'static str,
}

impl Clause {
    /// The prefix of the tests' names: `mqtt_3_3_2_2_`, or `mqtt_311_3_3_2_2_`.
    fn prefix(&self) -> String {
        let numbers = self.name["MQTT-".len()..].replace(['.', '-'], "_");
        let document = if self.document == "5.0" { "" } else { "311_" };
        format!("mqtt_{document}{numbers}_")
    }
}

fn clauses() -> Vec<Clause> {
    let mut document = "5.0";
    let mut clauses = Vec::new();
    for line in include_str!("clauses.tsv").lines().filter(|line| !line.starts_with('#')) {
        if line == "3.1.1:" {
            document = "3.1.1";
            continue;
        }
        let mut columns = line.split('\t');
        let mut column = || columns.next().unwrap_or_default();
        let (name, binds, statement, reason) = (column(), column(), column(), column());
        assert!(["server", "client", "both", "transport"].contains(&binds), "{line}");
        assert!(name.starts_with("MQTT-") && !statement.is_empty(), "{line}");
        clauses.push(Clause { document, name, binds, statement, reason });
    }
    clauses
}

/// The functions marked as tests: name and module.
fn tests() -> BTreeSet<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let mut tests = BTreeSet::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the sources of this test") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = path.strip_prefix(&root).expect("under it").with_extension("");
                let names: Vec<_> = module.iter().map(|name| name.to_string_lossy()).collect();
                let module = names.join("::").replace("::mod", "");
                add_tests(&path, &module, &mut tests);
            }
        }
    }
    tests
}

fn add_tests(source: &Path, module: &str, tests: &mut BTreeSet<(String, String)>) {
    let source = std::fs::read_to_string(source).expect("a source of text");
    let mut is_marked = false;
    for line in source.lines() {
        if line == "#[test]" {
            is_marked = true;
        } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_marked) {
            let name = rest.split('(').next().expect("a name").to_owned();
            tests.insert((name, module.to_owned()));
            is_marked = false;
        }
    }
}

#[test]
fn every_statement_has_a_test_or_a_reason_and_every_test_names_a_statement() {
    let tests = tests();
    let clauses = clauses();
    let mut wrong = String::new();
    for clause in &clauses {
        let count = tests.iter().filter(|(test, _)| test.starts_with(&clause.prefix())).count();
        let (document, name) = (clause.document, clause.name);
        if count == 0 && clause.reason.is_empty() {
            writeln!(wrong, "{document} [{name}] has neither test nor reason").expect("a String");
        }
        if count > 0 && !clause.reason.is_empty() {
            writeln!(wrong, "{document} [{name}] has a test and a reason why not")
                .expect("a String");
        }
    }
    for (test, module) in tests.iter().filter(|(test, _)| test.starts_with("mqtt_")) {
        if !clauses.iter().any(|clause| test.starts_with(&clause.prefix())) {
            writeln!(wrong, "{module}::{test} names no statement of clauses.tsv")
                .expect("a String");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_generated_list_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/CONFORMANCE.md");
    let list = list();
    if std::env::var_os("RINGMQ_REWRITE").is_some() {
        std::fs::write(&path, &list).expect("the list is written");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    let rewrite = "RINGMQ_REWRITE=1 cargo test --test conformance up_to_date";
    assert!(stored == list, "tests/CONFORMANCE.md is out of date; run: {rewrite}");
}

fn list() -> String {
    let (tests, clauses) = (tests(), clauses());
    let mut out = String::from(
        "# Conformance\n\n\
         Generated from `tests/conformance/` by `RINGMQ_REWRITE=1 cargo test --test conformance \
         up_to_date`; a test fails if the file is out of date.\n\n\
         Statements are paraphrased; the OASIS documents are authoritative. Each is tested over real \
         sockets against the `broker` command, or has a reason why it is not. A statement that \
         binds clients is tested by the server's response to a client that violates it.\n",
    );
    for document in ["5.0", "3.1.1"] {
        let title = match document {
            "5.0" => "MQTT 5.0",
            _ => "MQTT 3.1.1, where it differs",
        };
        let of_document = || clauses.iter().filter(|clause| clause.document == document);
        let is_tested =
            |clause: &&Clause| tests.iter().any(|(test, _)| test.starts_with(&clause.prefix()));
        let (tested, all) = (of_document().filter(is_tested).count(), of_document().count());
        write!(out, "\n## {title}\n\n{tested} of {all} statements are tested.\n\n").expect("fits");
        out.push_str("| Statement | Binds | Requirement | Test, or why there is none |\n");
        out.push_str("| --- | --- | --- | --- |\n");
        for clause in of_document() {
            let names: Vec<String> = tests
                .iter()
                .filter(|(test, _)| test.starts_with(&clause.prefix()))
                .map(|(test, module)| format!("`{module}::{test}`"))
                .collect();
            let last = if names.is_empty() { clause.reason.to_owned() } else { names.join("<br>") };
            let Clause { name, binds, statement, .. } = clause;
            writeln!(out, "| {name} | {binds} | {statement} | {last} |").expect("a String");
        }
    }
    out
}

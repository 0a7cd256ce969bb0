//! The documents of the repository: their links lead somewhere, and the command line is documented as it is.

#[path = "documents/blocks.rs"]
mod blocks;
#[cfg(all(feature = "admin", feature = "completions", target_os = "linux"))]
#[path = "../tools/pages/src/explained.rs"]
mod explained;
#[path = "documents/figures.rs"]
mod figures;
#[cfg(all(feature = "admin", feature = "completions", target_os = "linux"))]
#[path = "../tools/pages/src/man.rs"]
mod man;
#[cfg(all(feature = "admin", feature = "completions", target_os = "linux"))]
#[path = "documents/reference.rs"]
mod reference;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "examples/README.md",
        "tools/README.md",
        "tests/CONFORMANCE.md",
    ]
    .map(|name| root().join(name))
    .into();
    for entry in std::fs::read_dir(root().join("docs")).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    paths
}

/// The text without its code blocks.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The anchors of a document's headings, made as forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut wrong = Vec::new();
    for path in documents() {
        let text = read(&path);
        for rest in prose(&text).split("](").skip(1) {
            let target = rest.split(')').next().expect("a first part");
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => path.clone(),
                file => path.parent().expect("a folder").join(file),
            };
            let is_there =
                file.exists() && (anchor.is_empty() || anchors(&read(&file)).contains(anchor));
            if !is_there {
                wrong.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

fn broker(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_broker")).args(arguments).output();
    String::from_utf8_lossy(&output.expect("the broker runs").stdout).into_owned()
}

/// The help of a broker that is called as `mosquitto`.
fn help_of_mosquitto() -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    #[cfg(unix)]
    std::os::unix::process::CommandExt::arg0(&mut command, "mosquitto");
    let output = command.arg("-h").output().expect("the broker runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The long flags in a text, `--name`.
fn flags(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
    let is_flag =
        |word: &&str| word.strip_prefix("--").is_some_and(|name| name.starts_with(|c| c != '-'));
    words.filter(is_flag).collect()
}

/// Commands of `broker ctl` with flags.
const CTL: [&[&str]; 22] = [
    &["cluster", "status"],
    &["health"],
    &["top"],
    &["clients"],
    &["client"],
    &["kick"],
    &["ban", "add"],
    &["user", "list"],
    &["user", "add"],
    &["rule", "list"],
    &["rule", "add"],
    &["subs"],
    &["retained", "list"],
    &["retained", "clear"],
    &["publish"],
    &["reload"],
    &["log"],
    &["trace"],
    &["drain"],
    &["rebalance"],
    &["token", "add"],
    &["api"],
];

#[test]
fn the_command_line_is_documented_as_it_is() {
    let text = read(&root().join("docs/command-line.md"));
    let help = broker(&["--help"]);
    let of_commands = [
        &["platform", "--help"][..],
        &["mosquitto", "check", "--help"],
        &["passwd", "add", "--help"],
        &["acl", "check", "--help"],
        &["store", "inspect", "--help"],
        &["store", "end-session", "--help"],
        &["store", "import", "mosquitto", "--help"],
    ]
    .map(broker)
    .concat()
        + &CTL.map(|command| broker(&[&["ctl"], command, &["--help"]].concat())).concat()
        + &help_of_mosquitto();
    let (documented, shared, of_commands) = (flags(&text), flags(&help), flags(&of_commands));
    let accepted: BTreeSet<&str> = shared.union(&of_commands).copied().collect();
    for flag in &accepted {
        assert!(documented.contains(flag), "docs/command-line.md lacks {flag}");
    }
    for flag in &documented {
        assert!(accepted.contains(flag), "docs/command-line.md has {flag}, the broker has not");
    }
    let (_, codes) = help.split_once("Exit codes:").expect("the entries exist");
    for code in codes.split(|c: char| !c.is_ascii_digit()).filter(|code| !code.is_empty()) {
        assert!(text.contains(&format!("\n| {code} |")), "docs/command-line.md lacks code {code}");
    }
}

/// What `broker acl check` answers to these arguments, with the rules in a file.
fn decision(folder: &Path, file: &str, asked: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(["acl", "check", "--file", file])
        .args(asked)
        .current_dir(folder)
        .output();
    String::from_utf8_lossy(&output.expect("the broker runs").stdout).into_owned()
}

#[test]
fn the_documented_decisions_of_rules_are_those_of_the_command() {
    let text = read(&root().join("docs/access.md"));
    for asked in [
        ["meter-1", "meters/meter-2/power", "--publish"],
        ["meter-1", "commands/meter-1/#", "--subscribe"],
    ] {
        let answer = decision(root(), "deploy/acl.txt", &asked);
        assert!(text.contains(&answer), "docs/access.md lacks: {answer}");
    }
}

#[test]
fn the_rules_in_the_tour_decide_as_it_shows() {
    let text = read(&root().join("README.md"));
    let (_, rules) = text.split_once("$ cat acl.txt\n").expect("the rules");
    let (rules, _) = rules.split_once("$ ").expect("another command follows");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tour");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("acl.txt"), rules).expect("a file");
    let answer = decision(&folder, "acl.txt", &["alice", "home/door", "--publish"]);
    assert!(text.contains(&answer), "README.md lacks: {answer}");
}

/// The references are made from the keys and the command line of a broker with the default features.
#[cfg(all(feature = "admin", feature = "completions", target_os = "linux"))]
#[test]
fn the_references_are_those_of_the_keys_and_the_command_line() {
    use clap::CommandFactory as _;
    for (name, made) in [
        ("docs/configuration-reference.md", reference::configuration_page()),
        ("docs/command-reference.md", reference::command_page(ringmq::cli::Flags::command())),
    ] {
        let path = root().join(name);
        if std::env::var_os("WRITE_REFERENCES").is_some() {
            std::fs::write(&path, made).expect("the file is written");
            continue;
        }
        // Where line ends are converted on checkout.
        let is_same =
            std::fs::read_to_string(&path).is_ok_and(|text| text.replace('\r', "") == made);
        assert!(is_same, "{name} is old: WRITE_REFERENCES=1 cargo test --test documents writes it");
    }
}

#[cfg(all(feature = "admin", feature = "completions", target_os = "linux"))]
#[test]
fn manual_pages_are_valid_and_have_every_key_and_flag() {
    use clap::CommandFactory as _;
    let program = man::program(ringmq::cli::Flags::command()).expect("a page");
    let program = String::from_utf8(program).expect("text");
    let configuration = man::configuration();
    let plain = |page: &str| page.replace("\\-", "-").replace("\\(dq", "\"");
    for flag in flags(&broker(&["--help"])) {
        assert!(plain(&program).contains(flag), "ringmq(1) lacks {flag}");
    }
    for section in explained::configuration() {
        for (key, default) in section.groups.iter().flat_map(|group| &group.keys) {
            let line = format!("\\fB{key} = {default}\\fR");
            assert!(plain(&configuration).contains(&line), "ringmq.toml(5) lacks {line}");
        }
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, page) in [("ringmq.1", program), ("ringmq.toml.5", configuration)] {
        std::fs::write(folder.join(name), page).expect("a file");
        let output =
            Command::new("mandoc").args(["-Tlint", "-Werror", name]).current_dir(&folder).output();
        match output {
            Ok(output) => assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
            ),
            Err(error) => println!("SKIPPED: {name} is not checked by mandoc: {error}"),
        }
    }
}

#[test]
fn the_manual_page_has_each_exit_code_signal_and_variable_of_the_command_line() {
    let text = read(&root().join("docs/command-line.md"));
    let page = read(&root().join("deploy/man/sections.1"));
    for heading in ["\n## Exit codes\n", "\n## Signals\n", "\n## Environment variables\n"] {
        let (_, section) = text.split_once(heading).expect("the heading exists");
        let section = section.split("\n## ").next().expect("a first part");
        let rows = section.lines().filter(|line| line.starts_with("| ")).skip(2);
        for cell in rows.filter_map(|row| row.split(" | ").next()) {
            for word in cell.split([' ', ',', '|', '`']).filter(|word| !word.is_empty()) {
                assert!(page.contains(word), "deploy/man/sections.1 lacks {word}");
            }
        }
    }
}

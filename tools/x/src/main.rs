//! The front door of ringmq's recurring commands: `cargo x help`.

use std::path::Path;
use std::process::{Command, ExitCode};

/// What a command does and how it is run.
struct Entry {
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    /// The program and its first arguments, the settings of its environment, and the place of the given
    /// arguments.
    run: Run,
}

enum Run {
    /// This program; the given arguments follow.
    Program(&'static [&'static str]),
    /// `.ci/run` with these steps, in all variants.
    Steps(&'static [&'static str]),
    /// The first given argument is the value of an environment variable, others follow the program.
    Setting(&'static str, &'static [&'static str]),
}

use Run::{Program, Setting, Steps};

const SIMULATION: &[&str] = &[
    "cargo",
    "test",
    "--profile",
    "planted",
    "--no-default-features",
    "--features",
    "store",
    "--test",
    "simulation",
    "--",
];
const CRASH: &[&str] = &["cargo", "test", "--release", "--test", "crash", "--", "--nocapture"];
const COUNTS: &[&str] = &[
    "cargo",
    "test",
    "--quiet",
    "--package",
    "x",
    "--test",
    "architecture",
    "--",
    "--nocapture",
    "counts",
];

const ENTRIES: &[Entry] = &[
    Entry {
        name: "test",
        arguments: "[CARGO TEST ARGUMENT…]",
        help: "all tests, on the default executor and one core",
        run: Program(&["cargo", "test"]),
    },
    Entry {
        name: "everywhere",
        arguments: "",
        help: "conformance, access, interop and transports on every executor, on 1, 2 and 4 cores",
        run: Steps(&["everywhere"]),
    },
    Entry {
        name: "simulate",
        arguments: "[SECONDS]",
        help: "several cores, lanes and a network under a seeded scheduler (tests/simulation)",
        run: Setting("RINGMQ_SIM_SECONDS", SIMULATION),
    },
    Entry {
        name: "plant",
        arguments: "[FAULT…]",
        help: "checks that the simulation finds each fault of tests/simulation/plants, or those named",
        run: Program(&["tests/simulation/plant"]),
    },
    Entry {
        name: "crash",
        arguments: "[SECONDS]",
        help: "kills the broker again and again; nothing acknowledged may be lost (tests/crash)",
        run: Setting("RINGMQ_CRASH_SECONDS", CRASH),
    },
    Entry {
        name: "fuzz",
        arguments: "TARGET SECONDS [LIBFUZZER OPTION…]",
        help: "one fuzz target of tests/fuzz/fuzz_targets",
        run: Program(&["tests/fuzz/run"]),
    },
    Entry {
        name: "hostile",
        arguments: "[--short] [FLAG…]",
        help: "what innocent clients notice of hostile ones, and what these make the broker hold",
        run: Program(&["tools/hostile"]),
    },
    Entry {
        name: "instructions",
        arguments: "[ARGUMENT…]",
        help: "instructions of the data path, compared with benches/instructions.tsv (valgrind)",
        run: Program(&["cargo", "run", "--quiet", "--release", "--package", "instructions", "--"]),
    },
    Entry {
        name: "bench",
        arguments: "[CARGO BENCH ARGUMENT…]",
        help: "microbenchmarks of benches/",
        run: Program(&["cargo", "bench"]),
    },
    Entry {
        name: "scenarios",
        arguments: "[short|long|floors]",
        help: "the broker under every load, each delivery verified",
        run: Program(&["tools/scenarios.sh"]),
    },
    Entry {
        name: "executors",
        arguments: "[ROUNDS]",
        help: "CPU time, memory and system calls of the executors, side by side",
        run: Program(&["tools/executors"]),
    },
    Entry {
        name: "cross",
        arguments: "[TARGET…]",
        help: "builds for other processors and systems, tested under emulation",
        run: Program(&["tools/cross"]),
    },
    Entry {
        name: "package",
        arguments: "[--test]",
        help: "the Debian package; --test also installs, starts and removes it (root)",
        run: Program(&["tools/package"]),
    },
    Entry {
        name: "counts",
        arguments: "",
        help: "size of types, imports between parts, long functions, and their aims",
        run: Program(COUNTS),
    },
    Entry {
        name: "ci",
        arguments: "[STEP…]",
        help: "the project's own check, or the named steps of it; their names are at the end of .ci/run",
        run: Program(&[".ci/run"]),
    },
];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = if arguments.is_empty() { "help".to_owned() } else { arguments.remove(0) };
    if ["help", "--help", "-h"].contains(&&*name) {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(entry) = ENTRIES.iter().find(|entry| entry.name == name) else {
        eprintln!("error: unknown command '{name}'\n\n{}", help());
        return ExitCode::from(2);
    };
    if arguments.iter().any(|argument| ["--help", "-h"].contains(&&**argument)) {
        println!("cargo x {} {}\n\n{}", entry.name, entry.arguments, entry.help);
        println!("\nruns: {:?}", command(&entry.run, Vec::new()));
        return ExitCode::SUCCESS;
    }
    let mut command = command(&entry.run, arguments);
    eprintln!("$ {command:?}");
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("error: {}: {error}", command.get_program().display());
            ExitCode::FAILURE
        }
    }
}

/// The table of commands.
fn help() -> String {
    let mut text =
        "Recurring commands of ringmq.\n\nUsage: cargo x COMMAND [ARGUMENT…]\n\n".to_owned();
    for Entry { name, arguments, help, .. } in ENTRIES {
        text += &format!("  {:<36} {help}\n", format!("{name} {arguments}"));
    }
    text + "\nRuns from the repository's root. `cargo x COMMAND --help` shows what a command runs.\n"
}

/// The process that does it, in the repository's root.
fn command(run: &Run, mut arguments: Vec<String>) -> Command {
    let (Program(words) | Steps(words) | Setting(_, words)) = run;
    let program = match run {
        Steps(_) => ".ci/run",
        Program(_) | Setting(..) => words[0],
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the root");
    let mut command = match program {
        "cargo" => Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into())),
        script => Command::new(root.join(script)),
    };
    command.current_dir(root);
    match run {
        Program(words) => command.args(&words[1..]),
        Steps(steps) => command.env("ALL", "1").args(*steps),
        Setting(variable, words) => {
            if !arguments.is_empty() {
                command.env(variable, arguments.remove(0));
            }
            command.args(&words[1..])
        }
    };
    command.args(arguments);
    command
}

//! Counts instructions with valgrind's callgrind, and compares them with the limits in
//! `benches/instructions.tsv`: on a shared machine times are noise, and counts are not.
//!
//! ```sh
//! cargo run --release -p instructions              # fails if a count exceeds its limit
//! cargo run --release -p instructions -- --rewrite # rewrites the table with the new counts
//! ```
//!
//! `valgrind` must be installed (Debian: `valgrind`). The existing crates for this are not used
//! because they need a separately installed runner of exactly the same version, and store their
//! counts in `target/`, where reviewers do not see them grow.
//!
//! `valgrind --tool=callgrind PROGRAM --run-cases NAME` shows where a case spends its instructions,
//! with the program that the first command names when it fails, and a part of the case's name.
//!
mod callgrind;
mod cases;
mod table;
#[path = "../world.rs"]
mod world;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use cases::CASES;
use table::Table;

/// The argument with which this program runs its own copy under valgrind; the next argument selects
/// the cases whose names contain it.
const RUN_CASES: &str = "--run-cases";

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../instructions.tsv");

fn main() -> ExitCode {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    if has(RUN_CASES) {
        let mut arguments = std::env::args().skip_while(|argument| argument != RUN_CASES).skip(1);
        cases::run(&arguments.next().unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        println!("SKIPPED: the table is for x86_64 Linux");
        return ExitCode::SUCCESS;
    }
    if cfg!(target_feature = "sse3") {
        eprintln!(
            "error: this is built for more than the baseline of x86_64, which the table counts: \
             unset target-cpu and target-feature in RUSTFLAGS and Cargo's configuration"
        );
        return ExitCode::FAILURE;
    }
    match count(has("--rewrite")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all counts are within their limits.
fn count(rewrites: bool) -> Result<bool, Box<dyn Error>> {
    let totals = callgrind::totals(RUN_CASES)?;
    if totals.len() != CASES.len() {
        return Err(format!("{} cases, but {} counts", CASES.len(), totals.len()).into());
    }
    let each = |(case, total): (&cases::Case, u64)| (case.name, total as f64 / case.operations);
    let counted: Vec<_> = CASES.iter().zip(totals).map(each).collect();
    let path = Path::new(TABLE);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let table = Table::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let (report, is_within) = table.judge(&counted);
    print!("{report}");
    if rewrites {
        std::fs::write(path, table.updated(&counted).to_string())?;
        println!("{} rewritten", path.display());
    } else if !is_within {
        println!(
            "If it is worth its instructions, say why in the commit that runs\n\
             cargo run --release -p instructions -- --rewrite\n\
             Another rustc counts differently: run it on the commit before with the same one."
        );
    }
    Ok(is_within || rewrites)
}

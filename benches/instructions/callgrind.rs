//! This program once more, under `valgrind --tool=callgrind`, and the totals it leaves.

use std::error::Error;
use std::fs;
use std::process::Command;

/// The function that is counted; callgrind writes a file whenever it returns.
const COUNTED: &str = "instructions::cases::counted";

/// Which of its copies of memcpy and the like the C library takes depends on the processor; these
/// make it the same on all of them (GNU libc's `glibc.cpu.hwcaps`).
const SAME_ON_ALL: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-ERMS,-FSRM,-RTM";

/// Instructions of each call of the counted function, in order.
pub fn totals(argument: &str) -> Result<Vec<u64>, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    // Beside the program, which lies in a folder of `target`.
    let folder = program.with_file_name("instructions-counted");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let out = folder.join("counts");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let run = Command::new("valgrind")
        // The environment lies on the stack, and moves what comes after it.
        .env_clear()
        .env("PATH", path)
        .env("GLIBC_TUNABLES", SAME_ON_ALL)
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--dump-after={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg(argument)
        .output()
        .map_err(|error| format!("cannot run valgrind (Debian: apt install valgrind): {error}"))?;
    if !run.status.success() {
        let said = String::from_utf8_lossy(&run.stderr);
        return Err(format!("valgrind: {}\n{said}", run.status).into());
    }
    let part = |number: usize| fs::read_to_string(folder.join(format!("counts.{number}"))).ok();
    (1..).map_while(part).map(|text| total(&text)).collect()
}

fn total(text: &str) -> Result<u64, Box<dyn Error>> {
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    let line = line.ok_or("callgrind wrote no totals")?;
    Ok(line.trim().parse()?)
}

//! Runs this program again under `valgrind --tool=callgrind`, and reads the totals.

use std::error::Error;
use std::fs;
use std::process::Command;

/// The function that is counted; callgrind writes a file whenever it returns.
const COUNTED: &str = "instructions::cases::counted";

/// The C library selects its variants of memcpy and similar functions by processor; these settings
/// select the same ones everywhere (GNU libc's `glibc.cpu.hwcaps`).
const SAME_ON_ALL: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-ERMS,-FSRM,-RTM";

/// Instructions of each call of the counted function, in order.
pub fn totals(argument: &str) -> Result<Vec<u64>, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    // In the folder of the program, which is below `target`.
    let folder = program.with_file_name("instructions-counted");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let out = folder.join("counts");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let run = Command::new("valgrind")
        // The environment is on the stack, and shifts the addresses of what follows.
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

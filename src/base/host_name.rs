//! The name of this machine.

use std::fs;

/// The name of this machine, as the system or the environment has it; `host` if neither has one.
pub fn host_name() -> String {
    let by_system = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let by_environment =
        || ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|of| std::env::var(of).ok());
    let host = by_system.or_else(by_environment).unwrap_or_default();
    match host.trim() {
        "" => "host".to_owned(),
        host => host.to_owned(),
    }
}

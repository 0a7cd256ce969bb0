//! Limits of this process's control group: processor time and memory. See cgroups(7).

use std::path::{Path, PathBuf};

/// The lowest limits of the group and its ancestors; `None` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Processor time as a number of processors, such as 1.5.
    pub processors: Option<f64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
}

impl Limits {
    /// Reads the limits of this process.
    pub fn here() -> Self {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::read(Path::new("/sys/fs/cgroup"), &groups)
    }

    /// Reads the limits from a tree like `/sys/fs/cgroup` and a text like `/proc/self/cgroup`.
    pub fn read(root: &Path, groups: &str) -> Self {
        let mut limits = Self::default();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
            let group = group.trim_start_matches('/');
            // Version 2 has one tree; version 1 has a tree for each set of controllers.
            let tree = match controllers {
                "" => root.to_owned(),
                controllers => root.join(controllers),
            };
            // A container may see its own group as the root of the tree.
            let all = tree.join(group).ancestors().map(Path::to_owned).collect::<Vec<PathBuf>>();
            for folder in all.iter().filter(|folder| folder.starts_with(&tree)) {
                limits.lower(folder);
            }
        }
        limits
    }

    fn lower(&mut self, folder: &Path) {
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| text(name)?.trim().parse::<f64>().ok();
        let of_2 = text("cpu.max").and_then(|text| {
            let (quota, period) = text.trim().split_once(' ')?;
            Some((quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?))
        });
        let of_1 = || {
            let quota = number("cpu.cfs_quota_us").filter(|&quota| quota > 0.0)?;
            Some((quota, number("cpu.cfs_period_us")?))
        };
        if let Some((quota, period)) = of_2.or_else(of_1) {
            let processors = quota / period;
            self.processors = Some(self.processors.map_or(processors, |p| p.min(processors)));
        }
        let bytes = ["memory.max", "memory.limit_in_bytes"]
            .iter()
            .find_map(|name| text(name)?.trim().parse::<u64>().ok());
        // Version 1 represents "unlimited" as a number near the largest possible one.
        if let Some(bytes) = bytes.filter(|&bytes| bytes < 1 << 60) {
            self.memory_bytes = Some(self.memory_bytes.map_or(bytes, |m| m.min(bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> PathBuf {
        let name = format!("ringmq-cgroup-{}-{}", std::process::id(), files[0].1.trim().len());
        let root = std::env::temp_dir().join(name);
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn the_lowest_limit_of_the_group_and_its_ancestors_applies() {
        let root = tree(&[
            ("a/b/cpu.max", "150000 100000\n"),
            ("a/cpu.max", "max 100000\n"),
            ("a/memory.max", "1000000\n"),
            ("a/b/memory.max", "max\n"),
        ]);
        let limits = Limits::read(&root, "0::/a/b\n");
        assert_eq!(limits, Limits { processors: Some(1.5), memory_bytes: Some(1_000_000) });
        assert_eq!(Limits::read(&root, "0::/\n"), Limits::default());
        std::fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn version_1_is_read_too() {
        let root = tree(&[
            ("cpu,cpuacct/x/cpu.cfs_quota_us", "50000"),
            ("cpu,cpuacct/x/cpu.cfs_period_us", "100000"),
            ("memory/x/memory.limit_in_bytes", "9223372036854771712"),
        ]);
        let limits = Limits::read(&root, "3:cpu,cpuacct:/x\n2:memory:/x\n");
        assert_eq!(limits, Limits { processors: Some(0.5), memory_bytes: None });
        std::fs::remove_dir_all(root).expect("removed");
    }
}

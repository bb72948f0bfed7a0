//! What memory there is for this process, and how much of it the process has: both as Linux tells.

use std::{
    fs,
    path::{Path, PathBuf},
    ptr,
};

/// The bytes that this process may use: the machine's, or those of a cgroup that it is in, whichever is least. 4 GiB where
/// Linux says neither.
#[must_use]
pub fn available() -> usize {
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Of version 2 "max" does not parse, and means no limit.
    let limits =
        limit_files(&cgroups).into_iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    machine().into_iter().chain(limits).min().unwrap_or(4 << 30)
}

fn machine() -> Option<usize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = total.trim_end_matches("kB").trim().parse().ok()?;
    Some(kib.saturating_mul(1 << 10))
}

/// Where the limits are of the groups that `/proc/self/cgroup` names, and of those that they are in. A container has its own
/// at the root, whatever it is called outside.
fn limit_files(cgroups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        // A line is `number:controllers:path`; that of version 2 names no controllers.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            some if some.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let groups = Path::new(path.trim_start_matches('/')).ancestors();
        files.extend(groups.map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

/// The bytes that are there of what this process has asked for; 0 where Linux does not say.
#[must_use]
pub fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size()
}

/// Has the kernel give this process pages of the common size alone, and none of 2 MiB: the allocator asks for those, and one
/// that a few bytes are put into, or that the kernel has made of 512, has all of them in memory, with nothing in them.
/// A server at rest had 41 MiB in place of 23. (Redis asks its operators to switch them off.)
pub fn forgo_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages were not switched off");
    }
}

/// Has the allocator give back to the system what it has kept of this thread's, at once: some 50 ns for each of its pages. By itself it does so as
/// the thread goes on allocating; of what other threads have freed it learns only then.
pub fn give_back() {
    // SAFETY: it takes nothing and returns nothing, any thread may call it at any time, and what is in use stays as it is.
    // Without it a server that was at --resident-bytes-max took nothing more when half of its buckets were gone, one time in
    // three (`tests/limits.py`).
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

/// The bytes that the allocator has ready: what is in use, and what it keeps for more.
#[must_use]
pub fn allocator() -> usize {
    let (mut bytes, not_asked) = (0, ptr::null_mut());
    // SAFETY: each pointer is null, which says that the figure is not asked for, or leads to `bytes`, which is written to
    // before this returns, and by nobody else.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_process_info(
            not_asked,
            not_asked,
            not_asked,
            not_asked,
            not_asked,
            &raw mut bytes,
            not_asked,
            not_asked,
        );
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_group_is_looked_for_in_those_around_it_too() {
        let files = |cgroups| limit_files(cgroups).iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        let unified = ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"];
        assert_eq!(files("0::/a/b\n"), unified);
        let old = ["/sys/fs/cgroup/memory/pod:1/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        assert_eq!(files("9:cpu,cpuacct:/x\n4:hugetlb,memory:/pod:1\n"), old);
        assert_eq!(files("nonsense\n"), [""; 0]);
    }

    #[test]
    fn what_is_written_to_is_resident() {
        let much = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(resident() >= much.len(), "{}", resident());
        assert!(available() >= much.len());
        give_back();
        assert_eq!(much.iter().map(|byte| usize::from(*byte)).sum::<usize>(), much.len(), "what is in use stays");
    }
}

//! The worst case: all that the settings allow to be held at the same time, in memory and in descriptors, and whether this machine
//! has as much.
//!
//! The sum of memory is an upper bound of what is held on purpose: buffers, caches, queues, stacks. It leaves out the buffers of
//! sockets and of files, which are the kernel's, and bodies that are being sent and that the cache does not hold: pages of listings,
//! and what it has let go of meanwhile.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::Error;
use crate::config::limits::{self, MIN_DEFAULT_CONNECTIONS, RATED_CLIENTS};
use crate::config::plan::Plan;
use crate::config::units::AccessLog;
use crate::files::page::size;
use crate::files::{archive, compress, listing, upload};
use crate::net;
use crate::observe::log;

/// The stack of a thread, of which most is never touched.
const STACK_BYTES: u64 = 2 << 20;
/// The program itself, once it runs.
const PROGRAM_BYTES: u64 = 16 << 20;
/// Threads beside workers and pool: main, guardian, signals, log, messages, two watchers, compressor, control, ending.
const OTHER_THREADS: u64 = 10;
/// What is noted of a client whose rate or connections are counted.
const CLIENT_BYTES: u64 = 128;

/// One part of a sum.
struct Row {
    what: &'static str,
    count: u64,
    each: u64,
}

impl Row {
    fn total(&self) -> u64 {
        self.count.saturating_mul(self.each)
    }
}

/// What the settings allow to be held, and what there is.
pub struct Budget {
    memory: Vec<Row>,
    descriptors: Vec<Row>,
    /// What this machine, or the group that it has put this process into, has of memory, if it says.
    memory_there: Option<u64>,
    descriptors_there: u64,
}

impl Budget {
    /// The worst case of a plan on this machine, where this process may have so many descriptors.
    pub fn new(plan: &Plan, descriptors_there: usize) -> Budget {
        Budget {
            memory: memory(plan),
            descriptors: descriptors(plan),
            memory_there: memory_of_this_machine(),
            descriptors_there: descriptors_there as u64,
        }
    }

    /// Refuses a plan that this machine can not hold.
    ///
    /// # Errors
    ///
    /// What is missing, and what to do.
    pub fn check(&self) -> Result<(), Error> {
        let (needed, there) = (sum(&self.descriptors), self.descriptors_there);
        if needed > there {
            let advice = "raise the limit (ulimit -n), or lower --connections or --queue";
            return Err(Error(format!("the worst case takes {needed} file descriptors, and this process may have {there}: {advice}")));
        }
        let needed = sum(&self.memory);
        match self.memory_there {
            Some(there) if needed > there => {
                let most = self.memory.iter().max_by_key(|row| row.total()).map_or("", |row| row.what);
                let advice = format!("most of it for {most}; lower --connections, --cache-size or --blocking-threads");
                Err(Error(format!("the worst case takes {} of memory, and there are {}: {advice}", size(needed), size(there))))
            }
            _ => Ok(()),
        }
    }

    /// How many connections fit, if their number is the one thing that may change. Descriptors are a hard bound. As for memory, it
    /// is not fewer than even a small machine holds in practice.
    fn connections_that_fit(&self, connections: u64) -> u64 {
        let over_descriptors = sum(&self.descriptors).saturating_sub(self.descriptors_there);
        let over_memory = self.memory_there.map_or(0, |there| sum(&self.memory).saturating_sub(there));
        let each: u64 = self.memory.iter().filter(|row| row.count == connections).map(|row| row.each).sum();
        let by_memory = connections.saturating_sub(over_memory.div_ceil(each.max(1))).max(MIN_DEFAULT_CONNECTIONS as u64);
        connections.saturating_sub(over_descriptors).clamp(1, by_memory)
    }

    /// Both sums, for people.
    pub fn describe(&self) -> String {
        let mut text = String::from("memory, in the worst case:\n");
        for row in self.memory.iter().filter(|row| row.total() > 0) {
            // writing to memory does not fail
            let _ = writeln!(text, "  {:<42} {:>8} x {:>9} {:>10}", row.what, row.count, size(row.each), size(row.total()));
        }
        let there = self.memory_there.map_or_else(String::new, |there| format!(" of {}", size(there)));
        let _ = writeln!(text, "  {:<42} {:>31}{there}", "sum", size(sum(&self.memory)));
        text.push_str("  beside it, the kernel holds what sockets send and receive (net.ipv4.tcp_mem), and files as there is room\n");
        text.push_str("file descriptors, in the worst case:\n");
        for row in &self.descriptors {
            let _ = writeln!(text, "  {:<42} {:>31}", row.what, row.total());
        }
        let _ = writeln!(text, "  {:<42} {:>31} of {}", "sum", sum(&self.descriptors), self.descriptors_there);
        text
    }
}

/// Lowers the number of connections, if nobody has named it, to what this machine can hold in the worst case.
pub fn fit(mut plan: Plan, descriptors_there: usize) -> Plan {
    if plan.connections_by_default {
        plan.connections = Budget::new(&plan, descriptors_there).connections_that_fit(plan.connections as u64) as usize;
    }
    plan
}

fn sum(rows: &[Row]) -> u64 {
    rows.iter().fold(0, |sum, row| sum.saturating_add(row.total()))
}

fn memory(plan: &Plan) -> Vec<Row> {
    let limits = &plan.limits;
    let (threads, connections, pool) = (plan.threads as u64, plan.connections as u64, limits.blocking_threads as u64);
    let on = |is_on: bool, count: u64| if is_on { count } else { 0 };
    let row = |what, count, each| Row { what, count, each };
    let accounts = plan.uploads.iter().flat_map(|uploads| &uploads.accounts);
    let password_bytes = accounts.map(|account| upload::verify_bytes(&account.hash)).max().unwrap_or(0);
    vec![
        row("the program", 1, PROGRAM_BYTES),
        row("stacks of threads", threads + pool + OTHER_THREADS, STACK_BYTES),
        row("connections: --connections", connections, net::connection_bytes(limits)),
        row("the same, for their uploads", on(plan.uploads.is_some(), connections), upload::UPLOAD_BYTES),
        row("connections that were told 503", plan.lingering as u64, net::LINGERING_BYTES),
        row("spare buffers of workers: --threads", threads, net::SPARE_BYTES),
        row("files kept ready: --cache-size", 1, limits.cache_size),
        row("compression: --compress-max", on(plan.compress, 1), compress::best_bytes(limits.compress_max)),
        row("compression while somebody waits", on(plan.compress, pool), compress::QUICK_WORK_BYTES),
        row("listings: --listing-limit", on(plan.listing, (listing::AT_ONCE + upload::TELLING) as u64), listing::making_bytes(limits)),
        row("archives: --archive-jobs, --archive-limit", on(plan.archive, limits.archive_jobs as u64), archive::archive_bytes(limits)),
        row("passwords being checked", upload::VERIFYING as u64, password_bytes),
        row("lines of the access log", on(plan.access_log != AccessLog::Off, threads + 1), log::LANE_BYTES as u64),
        row("clients and their rates: --rate-limit", on(plan.clients.rate.is_some(), RATED_CLIENTS as u64), CLIENT_BYTES),
        row("clients and their connections", on(plan.clients.connections.is_some(), connections + plan.queue as u64), CLIENT_BYTES),
    ]
}

fn descriptors(plan: &Plan) -> Vec<Row> {
    let row = |what, count, each: usize| Row { what, count: count as u64, each: each as u64 };
    vec![
        row("connections: --connections", plan.connections, 1),
        row("connections in the queue: --queue", plan.queue, 1),
        row("connections that were told 503", plan.lingering, 1),
        row("files of uploads under way", if plan.uploads.is_some() { plan.open_uploads } else { 0 }, 1),
        row("files kept open by the cache", plan.cached_descriptors, 1),
        row("workers: --threads", plan.threads, limits::WORKER_DESCRIPTORS),
        row("listeners, logs, and all else", 1, limits::RESERVED_DESCRIPTORS),
    ]
}

/// The memory that this process can have: what the machine has, or less if its group has less.
fn memory_of_this_machine() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let of_machine = read(Path::new("/proc/meminfo")).and_then(|text| total_memory(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let of_groups = groups.lines().filter_map(group_folder).flat_map(|(folder, below, file)| {
        // each group above has a say too; in a container, its own is the first
        let folders: Vec<_> = Path::new(&below).ancestors().map(|path| folder.join(path.strip_prefix("/").unwrap_or(path))).collect();
        folders.into_iter().filter_map(move |folder| read(&folder.join(file))?.trim().parse().ok())
    });
    of_groups.chain(of_machine).min()
}

/// The bytes in the line `MemTotal:       24683844 kB`.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Where the bound of memory of a group stands, by a line of `/proc/self/cgroup`: the folder of all groups, the path below, the file.
fn group_folder(line: &str) -> Option<(&'static Path, String, &'static str)> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    if number == "0" && controllers.is_empty() {
        return Some((Path::new("/sys/fs/cgroup"), path.to_owned(), "memory.max"));
    }
    let is_of_memory = controllers.split(',').any(|name| name == "memory");
    is_of_memory.then(|| (Path::new("/sys/fs/cgroup/memory"), path.to_owned(), "memory.limit_in_bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_says() {
        assert_eq!(total_memory("MemTotal:       24683844 kB\nMemFree: 1 kB\n"), Some(24_683_844 * 1024));
        assert_eq!(total_memory(""), None);
        assert_eq!(group_folder("0::/user.slice"), Some((Path::new("/sys/fs/cgroup"), "/user.slice".to_owned(), "memory.max")));
        assert_eq!(group_folder("4:memory:/a"), Some((Path::new("/sys/fs/cgroup/memory"), "/a".to_owned(), "memory.limit_in_bytes")));
        assert_eq!(group_folder("3:cpu,cpuacct:/a"), None);
        assert!(memory_of_this_machine().is_some_and(|bytes| bytes > 1 << 20));
    }

    fn budget(connections: u64, memory_there: u64, descriptors_there: u64) -> Budget {
        let row = |what, count, each| Row { what, count, each };
        Budget {
            memory: vec![row("the program", 1, 1000), row("connections", connections, 100)],
            descriptors: vec![row("connections", connections, 1), row("others", 1, 10)],
            memory_there: Some(memory_there),
            descriptors_there,
        }
    }

    #[test]
    fn what_fits_and_what_does_not() {
        assert_eq!(budget(50, 6000, 60).check(), Ok(()));
        assert!(budget(50, 5999, 60).check().is_err_and(|Error(line)| line.contains("memory") && line.contains("for connections")));
        assert!(budget(50, 6000, 59).check().is_err_and(|Error(line)| line.contains("60 file descriptors")));
        let rows = [
            // memory, descriptors, connections that fit of 2000
            (201_000, 2010, 2000),
            (200_999, 2010, 1999),
            (200_900, 2010, 1999),
            (200_899, 2010, 1998),
            (201_000, 2009, 1999),
            (10, 2010, 1024),
            (10, 1000, 990),
            (201_000, 1, 1),
        ];
        for (memory, descriptors, fitting) in rows {
            assert_eq!(budget(2000, memory, descriptors).connections_that_fit(2000), fitting, "{memory}, {descriptors}");
        }
        assert_eq!(budget(50, 10, 60).connections_that_fit(50), 50, "so few are always allowed");
        let mut unknown = budget(50, 0, 60);
        unknown.memory_there = None;
        assert_eq!(unknown.check(), Ok(()));
    }
}

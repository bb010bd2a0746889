//! What the kernel knows about the broker's process and about this one: CPU time, memory, disk.

use std::fs;

/// A process and those that it started: a broker may be several.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(pid) = family.get(next) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            family.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|it| it.parse::<u32>().ok()),
            );
        }
        next += 1;
    }
    family
}

/// The CPU time of a process and its children in nanoseconds, threads that have ended included.
///
/// The process CPU clock counts scheduler run time, not ticks, so it is exact over short intervals,
/// which utime and stime of /proc/PID/stat (10 ms each) are not.
pub fn cpu_ns(pid: u32) -> Option<u64> {
    family(pid).into_iter().map(one_cpu_ns).sum()
}

fn one_cpu_ns(pid: u32) -> Option<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: both calls only write to the places given to them.
    unsafe {
        if libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) != 0 {
            return None;
        }
        read_clock(clock)
    }
}

/// The CPU time of this process in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    // SAFETY: the clock exists on every Linux.
    unsafe { read_clock(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(0) }
}

/// Nanoseconds of a clock that only moves forward, the same in all threads.
#[inline]
pub fn now_ns() -> u64 {
    // SAFETY: the clock exists on every Linux.
    unsafe { read_clock(libc::CLOCK_MONOTONIC).unwrap_or(0) }
}

unsafe fn read_clock(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return None;
    }
    Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Resident bytes; of a process with children, what they share is counted once.
///
/// From smaps_rollup: the counters behind VmRSS are kept per CPU and are off by some hundred
/// kilobytes, which matters when a few thousand connections are weighed.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let kilobytes = |path: String, key: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let kilobytes: u64 = match family(pid).as_slice() {
        [alone] => kilobytes(format!("/proc/{alone}/smaps_rollup"), "Rss:")
            .or_else(|| kilobytes(format!("/proc/{alone}/status"), "VmRSS:"))?,
        family => family
            .iter()
            .map(|pid| kilobytes(format!("/proc/{pid}/smaps_rollup"), "Pss:"))
            .sum::<Option<u64>>()?,
    };
    Some(kilobytes * 1024)
}

/// Bytes that the process and its children caused to be sent to the storage layer.
pub fn disk_write_bytes(pid: u32) -> Option<u64> {
    let of_one = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes:"))?;
        line.trim().parse::<u64>().ok()
    };
    family(pid).into_iter().map(of_one).sum()
}

/// User and system time in milliseconds, to see where a broker spends its time; in ticks of 10 ms.
pub fn user_system_ms(pid: u32) -> Option<(u64, u64)> {
    let mut sum = (0, 0);
    for pid in family(pid) {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = text[text.rfind(')')? + 1..]
            .split_ascii_whitespace()
            .skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        sum = (sum.0 + user * 10, sum.1 + system * 10);
    }
    Some(sum)
}

/// Ends a process as a crash would: it gets no chance to save anything.
pub fn kill(pid: u32) {
    // SAFETY: has no memory effects. A process that is gone already is as dead as it should be.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
}

/// Asks for as many open files as the kernel gives; returns how many that is.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` and `wanted` outlive the calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        for wanted in [1 << 20, 1 << 18, limit.rlim_max] {
            let wanted = libc::rlimit {
                rlim_cur: wanted,
                rlim_max: limit.rlim_max.max(wanted),
            };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) == 0 {
                return wanted.rlim_cur;
            }
        }
    }
    limit.rlim_cur
}

/// What is compared between the beginning and the end of the measured interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    pub at_ns: u64,
    pub broker_cpu_ns: Option<u64>,
    pub own_cpu_ns: u64,
    pub user_system_ms: Option<(u64, u64)>,
    pub disk_write_bytes: Option<u64>,
}

impl Snapshot {
    pub fn take(broker_pid: Option<u32>) -> Snapshot {
        Snapshot {
            at_ns: now_ns(),
            broker_cpu_ns: broker_pid.and_then(cpu_ns),
            own_cpu_ns: own_cpu_ns(),
            user_system_ms: broker_pid.and_then(user_system_ms),
            disk_write_bytes: broker_pid.and_then(disk_write_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Children of this process that come and go are those of other tests.
    static CHILDREN: Mutex<()> = Mutex::new(());

    #[test]
    fn this_process_can_be_measured() {
        let _none = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = std::process::id();
        let before = Snapshot::take(Some(pid));
        let mut sum = 0u64;
        while now_ns() < before.at_ns + 30_000_000 {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        std::hint::black_box(sum);
        let after = Snapshot::take(Some(pid));
        let by_pid = after.broker_cpu_ns.unwrap() - before.broker_cpu_ns.unwrap();
        assert!(by_pid > 1_000_000, "{by_pid}");
        assert!(after.own_cpu_ns - before.own_cpu_ns > 1_000_000);
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(user_system_ms(pid).is_some());
    }

    #[test]
    fn children_are_counted() {
        let _mine = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        assert!(family(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

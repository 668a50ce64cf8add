//! CPU time and peak memory of this process, read from `/proc`: Linux only.
#![allow(dead_code, reason = "not every bench uses all of it")]

use std::fs::read_to_string;

/// User and system time in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    // Fields 14 and 15, in hundredths of a second. The name before them may contain spaces.
    let stat = read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// The peak of the resident memory.
pub(crate) fn peak_mebibytes() -> f64 {
    let status = read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

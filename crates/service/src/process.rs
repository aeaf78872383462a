//! What the process itself uses.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

/// Its metrics in Prometheus' text.
#[cfg(test)]
pub(crate) const NAMES: [&str; 3] = ["process_memory_usage_bytes", "process_cpu_time_seconds_total", "process_start_time_seconds"];

/// Measures memory, processor time and start time from now on.
pub(crate) fn measure(meter: &Meter) {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    meter
        .u64_observable_gauge("process.memory.usage")
        .with_unit("By")
        .with_description("Resident memory")
        .with_callback(|observer| {
            if let Some(bytes) = resident() {
                observer.observe(bytes, &[]);
            }
        })
        .build();
    meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("Processor time")
        .with_callback(|observer| {
            let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return };
            observer.observe(seconds(usage.user_time()), &[KeyValue::new("cpu.mode", "user")]);
            observer.observe(seconds(usage.system_time()), &[KeyValue::new("cpu.mode", "system")]);
        })
        .build();
    meter
        .f64_observable_gauge("process.start_time")
        .with_unit("s")
        .with_description("Start of the process since the Unix epoch")
        .with_callback(move |observer| observer.observe(started, &[]))
        .build();
}

fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

/// Resident bytes; none where there is no `/proc`.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kibibytes * 1024)
}

//! `status/metrics`: what the repository is like and what this mount does, for Prometheus.

use crate::control::glance::Overview;
use crate::control::glance::metrics::{Process, process, repository};
use crate::control::glance::openmetrics::{Exposition, Kind};
use crate::fs::meters::{Metered, Meters};
use crate::ops::OpsError;

/// The whole text. Without an overview it says so and has everything else: who watches must see that, and what the mount does.
pub fn text(measured: &Process<'_>, meters: &Meters, overview: &Result<Overview, OpsError>) -> String {
    let mut text = Exposition::default();
    process(&mut text, measured);
    operations(&mut text, meters);
    let readable = u8::from(overview.is_ok());
    let help = "1 when the catalog of this host can be read; when it is 0, what it would tell is missing below.";
    text.single(Kind::Gauge, "backyfs_catalog_readable", help, readable);
    if let Ok(overview) = overview {
        repository(&mut text, overview);
    }
    text.finish()
}

fn operations(text: &mut Exposition, meters: &Meters) {
    let help = "Bytes that programs wrote into the mount.";
    text.single(Kind::Counter, "backyfs_mount_written_bytes_total", help, meters.written_bytes());
    let help = "Bytes that programs read from the mount.";
    text.single(Kind::Counter, "backyfs_mount_read_bytes_total", help, meters.read_bytes());
    let metered = meters.all();
    // What was never asked for is left out, to keep the text short.
    let used = || metered.iter().filter(|metered| metered.took.count + metered.running > 0);
    let label = |metered: &Metered| [("operation", metered.operation.name())];
    let help = "How long the kernel waited for an answer of the mount.";
    let mut took = text.family(Kind::Histogram, "backyfs_operation_duration_seconds", help);
    used().for_each(|metered| took.histogram(&label(metered), &metered.took));
    let mut running =
        text.family(Kind::Gauge, "backyfs_operations_running", "Requests of the kernel not answered yet.");
    used().for_each(|metered| running.sample(&label(metered), metered.running));
    let help = "Requests of the kernel that failed, by error. That something does not exist is no failure.";
    let mut errors = text.family(Kind::Counter, "backyfs_operation_errors_total", help);
    for metered in used() {
        for (error, count) in &metered.errors {
            errors.sample(&[("operation", metered.operation.name()), ("error", error)], count);
        }
    }
}

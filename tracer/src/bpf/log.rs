//! Diagnostics of the BPF side, through aya-log's own ring buffer, to stderr.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use env_logger::Target;
use log::LevelFilter;

use super::watch;

/// Forwards the programs' log records to the `log` facade until the process ends.
///
/// # Errors
/// When the log's ring buffer cannot be opened.
pub fn forward(ebpf: &mut Ebpf) -> Result<()> {
    // The programs have already filtered by level. A second call finds the logger in place, which is as good.
    let _ = env_logger::builder()
        .filter_level(LevelFilter::Trace)
        .target(Target::Stderr)
        .try_init();
    let logger = EbpfLogger::init(ebpf).context("opening the log of the BPF programs")?;
    let mut logger = watch::readable(logger).context("watching the log of the BPF programs")?;
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}

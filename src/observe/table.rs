//! One lookup table, published by the thread that watches its file.

use super::{Counter, Gauge};

/// The cells of a table.
#[derive(Debug, Default)]
pub struct TableMetrics {
    /// Of the version in use.
    pub rows: Gauge,
    /// What the version in use takes, compiled.
    pub bytes: Gauge,
    /// When the version in use was loaded, in seconds since 1970.
    pub loaded_s: Gauge,
    /// Versions that were taken, the first included.
    pub loads: Counter,
    /// Versions that were refused.
    pub failures: Counter,
}

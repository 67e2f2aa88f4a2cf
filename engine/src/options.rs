//! Options: plain data with defaults, each with its unit and bounds.

use std::path::PathBuf;
use std::time::Duration;

use highwater_io::{Access, OpenMode};
use highwater_segment::{MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES};

use crate::error::{Error, ErrorKind, Result};

pub use highwater_io::system::BackendChoice;

/// The longest log name.
pub const MAX_NAME_BYTES: usize = 249;
/// The segment size of a new log, in bytes.
pub const DEFAULT_SEGMENT_BYTES: u64 = 128 << 20;
/// The most logs of one engine.
pub const MAX_LOGS: usize = 4096;
/// The most shards of one engine.
pub const MAX_SHARDS: usize = 256;
/// The most shards an engine has without being asked for more.
pub const SHARDS_DEFAULT_MAX: usize = 16;
/// For how long a log knows a producer that appends nothing: a day, as Kafka's brokers do
/// (`producer.id.expiration.ms`).
pub const DEFAULT_PRODUCER_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long [`Engine::open`](crate::Engine::open) waits for a lock whose owner was just killed.
pub(crate) const LOCK_WAIT: Duration = Duration::from_millis(250);
/// The bytes of batches that one group gathers at the most, but at least one batch.
pub(crate) const GROUP_BYTES: usize = 256 << 10;
/// The most spares a log keeps, and an opening takes over; others are removed for good.
pub(crate) const SPARES_MAX: usize = 2;
/// The most writes of one log in flight.
pub(crate) const WRITES_IN_FLIGHT: usize = 8;

/// How an engine is opened. Checked by [`Engine::open`](crate::Engine::open).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The directory of the engine; made if it does not exist.
    pub directory: PathBuf,
    /// Which backend serves the shards.
    pub backend: BackendChoice,
    /// How many shards - threads that write logs - there are, 1 to [`MAX_SHARDS`]; `None`: one for
    /// each core this process may run on, at most [`SHARDS_DEFAULT_MAX`]. A
    /// [`LocalEngine`](crate::LocalEngine) is one shard, the caller's thread.
    pub shards: Option<usize>,
    /// Whether each shard keeps to a core of its own, if there are as many as shards; not by
    /// default. It is for machines that leave those cores to them: where the program's own threads
    /// want them too, a shard that may not move waits for its turn.
    pub pin_shards: bool,
    /// The most appends waiting in the queue to one shard, 1 to 1,048,576; 1024 by default.
    pub queue_batches: usize,
    /// The most bytes of appends waiting in the queue to one shard and in the shard, 1 MiB to
    /// 4 GiB; 64 MiB by default. One log holds three quarters of it at the most. A single batch may
    /// be larger: it goes alone.
    pub queue_bytes: usize,
    /// The most bytes of what was just written that a shard keeps in memory for readers of this
    /// process, at most 4 GiB; 64 MiB by default. Nothing is kept for a log that nobody reads.
    pub tail_cache_bytes: usize,
    /// Whether due logs of a shard share one flush of their file system (a *flush round*), where
    /// their segments were prepared before their use: many logs then cost about as many flushes
    /// as one. Only on ext4 and XFS, not with `data=journal`; the segments of such an engine must
    /// not be cloned (reflinked) while they are in use, as writing to a shared block is more than
    /// a write in place. See docs/durability.md, assumption 12.
    pub shared_flush: bool,
}

/// What of the options each shard needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardSettings {
    pub(crate) tail_cache_bytes: usize,
    pub(crate) shared_flush: bool,
}

impl From<&Options> for ShardSettings {
    fn from(options: &Options) -> Self {
        let Options { tail_cache_bytes, shared_flush, .. } = *options;
        ShardSettings { tail_cache_bytes, shared_flush }
    }
}

impl Options {
    /// Returns the default options for the engine in `directory`.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Options {
            directory: directory.into(),
            backend: BackendChoice::Auto,
            shards: None,
            pin_shards: false,
            queue_batches: 1024,
            queue_bytes: 64 << 20,
            tail_cache_bytes: 64 << 20,
            shared_flush: false,
        }
    }

    /// Checks the bounds.
    pub(crate) fn validate(&self) -> Result<()> {
        let error = |option: &str, why: &str| {
            Err(Error::new(ErrorKind::Config, "use option", option).detail(why))
        };
        if self.shards.is_some_and(|shards| !(1..=MAX_SHARDS).contains(&shards)) {
            return error("shards", "it must be between 1 and 256");
        }
        if !(1..=1 << 20).contains(&self.queue_batches) {
            return error("queue_batches", "it must be between 1 and 1048576");
        }
        if !((1 << 20)..=(4 << 30)).contains(&self.queue_bytes) {
            return error("queue_bytes", "it must be between 1 MiB and 4 GiB");
        }
        if self.tail_cache_bytes > 4 << 30 {
            return error("tail_cache_bytes", "it must be at most 4 GiB");
        }
        Ok(())
    }
}

/// Which shard of an engine, numbered from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl std::fmt::Display for ShardId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// When a log is flushed for appends that nobody waits for: at the first of these. All `None` and
/// not `every_group`: when the kernel and the roll of a segment make it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPolicy {
    /// Flush behind every group of writes.
    pub every_group: bool,
    /// Flush when so many records are unflushed (Kafka's `log.flush.interval.messages`).
    pub records: Option<u64>,
    /// Flush when so many bytes are unflushed.
    pub bytes: Option<u64>,
    /// Flush when the oldest unflushed record is so old (Kafka's `log.flush.interval.ms`).
    pub interval: Option<Duration>,
}

impl FlushPolicy {
    /// Never for its own sake.
    pub const NONE: FlushPolicy =
        FlushPolicy { every_group: false, records: None, bytes: None, interval: None };
    /// Behind every group of writes.
    pub const EVERY_GROUP: FlushPolicy = FlushPolicy { every_group: true, ..FlushPolicy::NONE };
}

impl Default for FlushPolicy {
    /// 16 MiB or 100 ms, whichever comes first: bounds what a power cut can take without being
    /// felt by a disk.
    fn default() -> Self {
        FlushPolicy {
            bytes: Some(16 << 20),
            interval: Some(Duration::from_millis(100)),
            ..FlushPolicy::NONE
        }
    }
}

/// How a log is opened or made.
///
/// ```
/// use std::time::Duration;
/// use highwater::{FlushPolicy, LogOptions};
///
/// // A week or 100 GiB, whichever is less; what nobody waits for is flushed within a second.
/// let options = LogOptions {
///     retention: Some(Duration::from_secs(7 * 24 * 3600)),
///     retention_bytes: Some(100 << 30),
///     flush: FlushPolicy { interval: Some(Duration::from_secs(1)), ..FlushPolicy::NONE },
///     ..LogOptions::default()
/// };
/// assert!(options.segment_bytes.is_none(), "as the log was made, or 128 MiB");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// The size of a segment in bytes, a multiple of 4096. Fixed when the log is made; `None`
    /// takes what is there, or [`DEFAULT_SEGMENT_BYTES`]; another value than what is there is an
    /// error.
    pub segment_bytes: Option<u64>,
    /// For devices that can tear a 512-byte sector at a power cut: never rewrite a block that
    /// holds flushed bytes. Costs the rest of a block for every group. Fixed when the log is made,
    /// as above; `None` of a new log is `false`.
    pub never_rewrite_flushed: Option<bool>,
    /// When to flush what nobody waits for; not persisted.
    pub flush: FlushPolicy,
    /// The oldest segments are removed while the others hold at least so many bytes (Kafka's
    /// `retention.bytes`). Looked at when a segment begins; once more than a few (4) of those that
    /// must go are still there, the next segment waits for one of them to go. `None`: whatever the
    /// size. Not persisted.
    pub retention_bytes: Option<u64>,
    /// The oldest segments are removed when their newest record is older than this (Kafka's
    /// `retention.ms`), by the records' timestamps. `None`: whatever the age. Not persisted.
    pub retention: Option<Duration>,
    /// When segments are written ahead of their use; not persisted.
    pub prepare: Preparation,
    /// The shard that shall own the log, chosen where the log is first asked for; `None`: by its
    /// name. Not persisted.
    pub shard: Option<ShardId>,
    /// Whether segments are written past the page cache or through it. Not persisted: each opening
    /// says it anew. A change of an open log counts from when it is idle and flushed, or from its
    /// next segment.
    pub mode: Mode,
    /// For how long the log knows an idempotent producer that appends nothing, by the records'
    /// timestamps: the largest one of the log is its time. `None` is [`DEFAULT_PRODUCER_EXPIRY`].
    /// Not persisted.
    pub producer_expiry: Option<Duration>,
}

/// How the bytes of a log's segments reach the disk. What is acked and what is flushed mean the
/// same in both; `log.meta` and every opening go past the page cache in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Past the page cache (`O_DIRECT`): an error is that of the very write that failed, memory is
    /// what the options say, and writing over written blocks needs no journal commit.
    #[default]
    Direct,
    /// Through the page cache, as Kafka does; made for comparison. Its weaknesses:
    ///
    /// * A write is complete once it is in memory, so a later error is learnt of by the next flush
    ///   only, and once; what it lost still shows in the cache. The log is poisoned as in the
    ///   other mode, and what was not flushed is not trusted: opening it again drops what is
    ///   cached, reads the media, and cuts the log where these end.
    /// * Unflushed bytes are bounded by the kernel's settings for dirty pages and by the flush
    ///   policy, not by the engine. When the kernel holds writers back, a write takes long.
    /// * The kernel hands buffered writes of `io_uring` to threads of its own, one at a time for
    ///   each file: more processor time and no depth.
    ///
    /// Readers of this process read through the cache, too; others read the media, and the kernel
    /// writes out first what they ask for.
    Buffered,
}

impl Mode {
    /// Returns the name used in reports: `direct` or `buffered`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Direct => "direct",
            Mode::Buffered => "buffered",
        }
    }

    /// Returns how a segment is opened.
    pub(crate) fn open_mode(self, access: Access) -> OpenMode {
        OpenMode { access, direct: self == Mode::Direct }
    }
}

/// When the space of a segment is written before it is used. Writing over written blocks costs a
/// disk about half of what growing a file does, and one flush instead of a flush and a journal
/// commit. A segment that retention removes becomes the next one without being written again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preparation {
    /// Never: segments grow as they are filled. Removed segments are still used again.
    Never,
    /// While a segment fills, the next one is prepared beside it, in step and only when the disk
    /// has room for more. Small logs do not reach that.
    #[default]
    Ahead,
    /// As `Ahead`, but a log that this call makes has its first segment prepared before the call
    /// returns.
    AtOpen,
}

/// What of a log's options is not persisted and can change while it is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogSettings {
    pub(crate) flush: FlushPolicy,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) retention: Option<Duration>,
    pub(crate) prepare: Preparation,
    pub(crate) mode: Mode,
    producer_expiry: ProducerExpiry,
}

/// After how many milliseconds of log time a producer is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProducerExpiry(i64);

impl Default for ProducerExpiry {
    fn default() -> Self {
        ProducerExpiry::from(DEFAULT_PRODUCER_EXPIRY)
    }
}

impl From<Duration> for ProducerExpiry {
    fn from(expiry: Duration) -> Self {
        ProducerExpiry(i64::try_from(expiry.as_millis()).unwrap_or(i64::MAX))
    }
}

impl LogSettings {
    /// Returns after how many milliseconds of log time a producer is forgotten.
    pub(crate) fn producer_expiry_ms(&self) -> i64 {
        self.producer_expiry.0
    }
}

impl From<&LogOptions> for LogSettings {
    fn from(options: &LogOptions) -> Self {
        LogSettings {
            flush: options.flush,
            retention_bytes: options.retention_bytes,
            retention: options.retention,
            prepare: options.prepare,
            mode: options.mode,
            producer_expiry: options.producer_expiry.map(ProducerExpiry::from).unwrap_or_default(),
        }
    }
}

impl LogOptions {
    /// Checks the bounds.
    pub(crate) fn validate(&self) -> Result<()> {
        let Some(bytes) = self.segment_bytes else { return Ok(()) };
        let in_bounds = (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&bytes);
        if in_bounds && bytes.is_multiple_of(highwater_segment::BLOCK_BYTES) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Config, "use option", "segment_bytes").detail(format!(
            "{bytes} is not a multiple of 4096 between {MIN_SEGMENT_BYTES} and \
                 {MAX_SEGMENT_BYTES}"
        )))
    }
}

/// Checks a log's name: 1 to 249 of `[a-zA-Z0-9._-]`, not starting with a dot.
pub(crate) fn validate_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with('.');
    if fits && name.bytes().all(allowed) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(Error::new(ErrorKind::Config, "use log name", &format!("{shown:?}"))
        .detail("a name is 1 to 249 of a-z A-Z 0-9 . _ - and does not start with a dot"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_their_borders() {
        for good in ["a", "orders-2024_v1.2", &"x".repeat(249)] {
            assert!(validate_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".pool", "a/b", "a\\b", "a b", "\u{fc}", "a\0", &"x".repeat(250)]
        {
            assert!(validate_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn segment_sizes_are_checked_at_their_borders() {
        let check =
            |bytes| LogOptions { segment_bytes: Some(bytes), ..Default::default() }.validate();
        assert!(check(MIN_SEGMENT_BYTES).is_ok() && check(MAX_SEGMENT_BYTES).is_ok());
        for bad in [MIN_SEGMENT_BYTES - 4096, MIN_SEGMENT_BYTES + 1, MAX_SEGMENT_BYTES + 4096] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}

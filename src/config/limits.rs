//! Every bound and every deadline: its name, its default, why it is there, and its flag.

use std::time::Duration;

use super::units;
use crate::http::Bounds;

/// Connections served at once, unless told otherwise: enough for one machine, and a known worst case of memory.
pub const MAX_DEFAULT_CONNECTIONS: usize = 16_384;
/// As many are served on a machine without the memory for the worst case of more: few connections ever come near it.
pub const MIN_DEFAULT_CONNECTIONS: usize = 1024;
/// Descriptors that are kept for listeners, logs, and files that are being looked at.
pub const RESERVED_DESCRIPTORS: usize = 32;
/// Descriptors that a worker needs for its event loop.
pub const WORKER_DESCRIPTORS: usize = 4;
/// Connections that were told 503 and are read until the client has ended them: beyond, those that wait for too long wait on.
pub const MAX_LINGERING: usize = 4096;

/// Clients whose rate of requests is remembered: enough for a busy site, and a few megabytes.
pub const RATED_CLIENTS: usize = 65_536;

/// The bounds and deadlines that have a flag.
#[derive(Clone, Debug, clap::Args)]
pub struct Limits {
    /// A connection may wait for a worker for this time; after that it is answered with 503 and Retry-After
    #[arg(long, value_name = "TIME", default_value = "80ms", value_parser = units::duration, env = "MILLPOND_QUEUE_WAIT", help_heading = "Pool and queue")]
    pub queue_wait: Duration,

    /// A whole request head has to come within this time
    ///
    /// It counts from the accept, or from the first byte on a kept connection. Against clients that hold a connection by sending a
    /// head byte by byte: they get 408. A connection that never says anything is closed without a word.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration, env = "MILLPOND_HEAD_TIMEOUT", help_heading = "Deadlines")]
    pub head_timeout: Duration,

    /// A kept connection may rest for this time between two requests
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::duration, env = "MILLPOND_IDLE_TIMEOUT", help_heading = "Deadlines")]
    pub idle_timeout: Duration,

    /// The same under overload: while new connections are held back, or all places are taken and others wait for one
    ///
    /// While new connections are held back it also bounds how long a connection is kept at all, up to twice as long, so that not all
    /// go at once: the answer to a request that comes later says `Connection: close`.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::duration, env = "MILLPOND_BUSY_IDLE_TIMEOUT", help_heading = "Deadlines")]
    pub busy_idle_timeout: Duration,

    /// The least that a request body has to bring, in bytes a second
    ///
    /// Averaged over --body-window; a slower body gets 408.
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = units::size, env = "MILLPOND_BODY_RATE", help_heading = "Deadlines")]
    pub body_rate: u64,

    /// The time over which --body-rate is averaged
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration, env = "MILLPOND_BODY_WINDOW", help_heading = "Deadlines")]
    pub body_window: Duration,

    /// A response of which the client takes nothing for this time is given up
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration, env = "MILLPOND_WRITE_TIMEOUT", help_heading = "Deadlines")]
    pub write_timeout: Duration,

    /// The least that a client has to take of a response, in bytes a second
    ///
    /// Averaged over --write-window, while it is the client that is waited for; a slower one is given up.
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = units::size, env = "MILLPOND_WRITE_RATE", help_heading = "Deadlines")]
    pub write_rate: u64,

    /// The time over which --write-rate is averaged
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration, env = "MILLPOND_WRITE_WINDOW", help_heading = "Deadlines")]
    pub write_window: Duration,

    /// How long a connection that was ended early is still read, so that the client gets the answer
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = units::duration, env = "MILLPOND_LINGER_TIMEOUT", help_heading = "Deadlines")]
    pub linger_timeout: Duration,

    /// Longest request target (path and query); a longer one gets 414
    #[arg(long, value_name = "SIZE", default_value = "8KiB", value_parser = units::memory_size, env = "MILLPOND_TARGET_LIMIT", help_heading = "Bounds")]
    pub target_limit: usize,

    /// Longest request head; a longer one gets 431
    #[arg(long, value_name = "SIZE", default_value = "32KiB", value_parser = units::memory_size, env = "MILLPOND_HEAD_LIMIT", help_heading = "Bounds")]
    pub head_limit: usize,

    /// Most header fields of a request; more get 431
    #[arg(long, value_name = "N", default_value = "100", value_parser = units::count, env = "MILLPOND_FIELD_LIMIT", help_heading = "Bounds")]
    pub field_limit: usize,

    /// Longest chunk-size line of a request body, with its extensions
    #[arg(long, value_name = "SIZE", default_value = "256", value_parser = units::memory_size, env = "MILLPOND_CHUNK_LINE_LIMIT", help_heading = "Bounds")]
    pub chunk_line_limit: usize,

    /// Longest trailer section of a request body
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = units::memory_size, env = "MILLPOND_TRAILER_LIMIT", help_heading = "Bounds")]
    pub trailer_limit: usize,

    /// How much of a body that nobody asked for is read and dropped to keep the connection
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = units::size, env = "MILLPOND_DRAIN_LIMIT", help_heading = "Bounds")]
    pub drain_limit: u64,

    /// How much of a file waits in a socket for a client that has not taken 256 KiB yet; 0 leaves that to the kernel
    ///
    /// It comes on top of what is on its way, and the kernel may take a packet more. Against clients that ask for a large file and
    /// hardly take any of it.
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = units::size, env = "MILLPOND_UNSENT_LIMIT", help_heading = "Bounds")]
    pub unsent_limit: u64,

    /// Largest upload: the body of one request; a larger one gets 413
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = units::size, env = "MILLPOND_UPLOAD_LIMIT", help_heading = "Uploads")]
    pub upload_limit: u64,

    /// All that the folder of uploads may hold; beyond, uploads get 507 [default: what the disk holds]
    #[arg(long, value_name = "SIZE", value_parser = units::size, env = "MILLPOND_UPLOAD_QUOTA", hide_short_help = true, help_heading = "Uploads")]
    pub upload_quota: Option<u64>,

    /// Entries of one folder that are read to list it; what is beyond is not listed, and the page says so
    ///
    /// Each costs a few system calls and, while the listing is made, some hundred bytes of memory.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = units::count, env = "MILLPOND_LISTING_LIMIT", help_heading = "Bounds")]
    pub listing_limit: usize,

    /// Entries on one page of a listing
    ///
    /// So many a browser shows at once, and a person looks through.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = units::count, env = "MILLPOND_LISTING_PAGE", help_heading = "Bounds")]
    pub listing_page: usize,

    /// How much of a README is shown below a listing; the rest is left to its link
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = units::memory_size, env = "MILLPOND_README_LIMIT", help_heading = "Bounds")]
    pub readme_limit: usize,

    /// Entries that are read of a folder and all folders in it for one archive; more get 403
    ///
    /// What goes in is known before anything is sent, so that an archive is whole or refused. Each costs some hundred bytes of memory.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = units::count, env = "MILLPOND_ARCHIVE_LIMIT", help_heading = "Bounds")]
    pub archive_limit: usize,

    /// Folders in folders that an archive may hold; deeper ones get 403
    #[arg(long, value_name = "N", default_value = "32", value_parser = units::count, env = "MILLPOND_ARCHIVE_DEPTH", help_heading = "Bounds")]
    pub archive_depth: usize,

    /// Archives that are made at the same time; more get 503
    ///
    /// Each keeps a processor busy for as long as its client takes what is made.
    #[arg(long, value_name = "N", default_value = "2", value_parser = units::count, env = "MILLPOND_ARCHIVE_JOBS", help_heading = "Bounds")]
    pub archive_jobs: usize,

    /// Largest page of the site's own for an error, such as 404.html; a larger one is not used, and 0 uses none
    ///
    /// Errors are what a server is attacked with: each has to stay cheap.
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = units::size, env = "MILLPOND_ERROR_PAGE_LIMIT", help_heading = "Bounds")]
    pub error_page_limit: u64,

    /// Memory for files that are kept ready; 0 keeps none
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = units::size, env = "MILLPOND_CACHE_SIZE", help_heading = "Bounds")]
    pub cache_size: u64,

    /// Smallest file that is compressed
    ///
    /// Below it, the fields that tell of the compression take up most of what is gained.
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = units::size, env = "MILLPOND_COMPRESS_MIN", help_heading = "Bounds")]
    pub compress_min: u64,

    /// Largest file that is compressed
    ///
    /// Compressing a larger one well would take some ten seconds and its size in memory.
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = units::size, env = "MILLPOND_COMPRESS_MAX", help_heading = "Bounds")]
    pub compress_max: u64,

    /// Threads for work that waits for the disk; they come and go with the work
    #[arg(long, value_name = "N", default_value = "32", value_parser = units::count, env = "MILLPOND_BLOCKING_THREADS", help_heading = "Bounds")]
    pub blocking_threads: usize,
}

impl Limits {
    /// What the protocol needs to know of them.
    pub fn http(&self) -> Bounds {
        Bounds {
            target_bytes: self.target_limit,
            head_bytes: self.head_limit,
            head_fields: self.field_limit,
            chunk_line_bytes: self.chunk_line_limit,
            trailer_bytes: self.trailer_limit,
            drain_bytes: self.drain_limit,
            head_timeout: self.head_timeout,
            idle_timeout: self.idle_timeout,
            body_rate_per_s: self.body_rate,
            body_window: self.body_window,
        }
    }
}

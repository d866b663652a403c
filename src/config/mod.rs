//! What the server is told to do: as the user wrote it (`File`), and made sure of (`plan::Plan`).

pub mod limits;
pub mod plan;
pub mod rules;
pub mod units;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use limits::Limits;
use rules::Rules;
use units::{AccessLog, Account, Identity, Rate, Sandbox, Switch, Threads, UploadsTo};

/// The folder that is served when none is named.
pub const DEFAULT_ROOT: &str = "resources";

/// The folder below the root that uploads go to when none is named.
pub const DEFAULT_UPLOADS: &str = "uploads";

/// What the user wrote, in flags and in the environment: each value is well-formed by itself, and nothing more is known of it.
#[derive(Clone, Debug, clap::Args)]
pub struct File {
    /// The folder to serve
    #[arg(value_name = "ROOT", default_value = DEFAULT_ROOT, env = "MILLPOND_ROOT")]
    pub root: PathBuf,

    /// Address or name to listen on; may be given several times
    ///
    /// 0.0.0.0 and :: stand for every address of this machine, which lets others on the network in.
    #[arg(
        long,
        value_name = "HOST",
        default_value = "127.0.0.1",
        value_delimiter = ',',
        env = "MILLPOND_HOST",
        help_heading = "Listening"
    )]
    pub host: Vec<String>,

    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value = "8080", value_parser = units::port, env = "MILLPOND_PORT", help_heading = "Listening")]
    pub port: u16,

    /// Which TCP congestion control says how much is sent at once [default: the system's; reno on a loopback address]
    ///
    /// /proc/sys/net/ipv4/tcp_available_congestion_control has the names.
    #[arg(long, value_name = "NAME", env = "MILLPOND_CONGESTION_CONTROL", hide_short_help = true, help_heading = "Listening")]
    pub congestion_control: Option<String>,

    /// A Unix socket over which a new process, started with the same path, takes over from the running one
    ///
    /// The new one gets the listening sockets, serves, and the running one finishes what it has begun: no request fails. The
    /// socket can be used by the owner of the process alone.
    #[arg(long, value_name = "PATH", env = "MILLPOND_CONTROL", help_heading = "Listening")]
    pub control: Option<PathBuf>,

    /// Worker threads; `auto` starts one per processor
    ///
    /// Each worker serves many connections at once, so the number does not bound them.
    #[arg(long, value_name = "N", default_value = "10", env = "MILLPOND_THREADS", help_heading = "Pool and queue")]
    pub threads: Threads,

    /// Accepted connections that may wait for a worker
    ///
    /// A full queue leaves the rest to the kernel. What waits for longer than --queue-wait is answered with 503 and Retry-After.
    #[arg(long, value_name = "N", default_value = "100", value_parser = units::count, env = "MILLPOND_QUEUE", help_heading = "Pool and queue")]
    pub queue: usize,

    /// Connections served at once [default: what descriptors and memory allow, at most 16384]
    #[arg(long, value_name = "N", value_parser = units::count, env = "MILLPOND_CONNECTIONS", help_heading = "Pool and queue")]
    pub connections: Option<usize>,

    /// Connections that one client may have at once; further ones get 429 [default: as many as there are]
    ///
    /// A client is an IPv4 address or a /64 of IPv6.
    #[arg(long, value_name = "N", value_parser = units::count, env = "MILLPOND_CONNECTIONS_PER_IP", help_heading = "Clients")]
    pub connections_per_ip: Option<usize>,

    /// Requests that one client may make in a second, and at once after a while without any; further ones get 429
    ///
    /// 100/s allows 100 at once too; 100/s:200 allows 200. A client is an IPv4 address or a /64 of IPv6.
    #[arg(long, value_name = "N/s[:BURST]", env = "MILLPOND_RATE_LIMIT", help_heading = "Clients")]
    pub rate_limit: Option<Rate>,

    /// A proxy in front of this server, by address or network; may be given several times
    ///
    /// It is believed for which client it speaks (X-Forwarded-For or Forwarded): that one is limited, and logged.
    #[arg(
        long,
        value_name = "CIDR",
        value_parser = units::network,
        value_delimiter = ',',
        env = "MILLPOND_TRUSTED_PROXY",
        help_heading = "Clients"
    )]
    pub trusted_proxy: Vec<IpNet>,

    /// Where requests are logged: `-` for standard output, a file, or `off`
    ///
    /// One line a request, in Combined Log Format. Lines that can not be written in time are dropped and counted.
    #[arg(long, value_name = "TARGET", default_value = "-", env = "MILLPOND_ACCESS_LOG", help_heading = "Logging")]
    pub access_log: AccessLog,

    /// How long requests in flight may take after SIGTERM or SIGINT
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration, env = "MILLPOND_SHUTDOWN_GRACE", help_heading = "Deadlines")]
    pub shutdown_grace: Duration,

    /// List folders that have no index, as a page or as JSON
    #[arg(long, env = "MILLPOND_LISTING", value_parser = units::flag, help_heading = "Listings")]
    pub listing: bool,

    /// Let listed folders be downloaded as a whole, as tar, tar.gz or zip
    #[arg(long, env = "MILLPOND_ARCHIVE", value_parser = units::flag, help_heading = "Listings")]
    pub archive: bool,

    /// Send what gains by it compressed: with zstd, Brotli or gzip, as the client likes best
    ///
    /// Files with .zst, .br or .gz behind their name are sent in place of the file itself either way.
    #[arg(long, value_name = "on|off", default_value = "on", env = "MILLPOND_COMPRESS", help_heading = "Files")]
    pub compress: Switch,

    /// Load the folder into memory at the start, as far as there is room
    #[arg(long, env = "MILLPOND_CACHE_WARM", value_parser = units::flag, help_heading = "Files")]
    pub cache_warm: bool,

    /// Where uploads go, or `off` [default: uploads/ below ROOT, if only this machine can reach the server]
    ///
    /// What is posted to /uploads/ is stored there; the folder is made if it is not there. On other addresses than those of this
    /// machine uploads are off unless this is given.
    #[arg(long, value_name = "DIR|off", env = "MILLPOND_UPLOADS", help_heading = "Uploads")]
    pub uploads: Option<UploadsTo>,

    /// Uploads can be made, but neither read nor listed
    #[arg(long, env = "MILLPOND_UPLOADS_WRITE_ONLY", hide_short_help = true, value_parser = units::flag, help_heading = "Uploads")]
    pub uploads_write_only: bool,

    /// Who may upload: a name and an argon2 or bcrypt hash of a password; may be given several times. Reading stays open
    #[arg(long, value_name = "USER:HASH", env = "MILLPOND_UPLOAD_AUTH", value_delimiter = ' ', help_heading = "Uploads")]
    pub upload_auth: Vec<Account>,

    /// A name by which this machine may be addressed in uploads, beside its own; may be given several times
    #[arg(long, value_name = "NAME", value_parser = units::host_name, env = "MILLPOND_ALLOW_HOST", hide_short_help = true, value_delimiter = ',', help_heading = "Uploads")]
    pub allow_host: Vec<String>,

    /// How far the kernel confines the process (Landlock): `require` does not start without all of it
    ///
    /// It can then read below the folder and write below that of uploads and that of the access log, and nothing else, and it can
    /// connect to nobody. `on` does what this kernel can; the start-up message says what that is.
    #[arg(long, value_name = "require|on|off", default_value = "on", env = "MILLPOND_SANDBOX", help_heading = "Confinement")]
    pub sandbox: Sandbox,

    /// Started as root: the user to become once the ports are bound
    ///
    /// By name or number; without GROUP its own group. All that it serves and writes has to be open to that user.
    #[arg(long, value_name = "NAME[:GROUP]", env = "MILLPOND_USER", help_heading = "Confinement")]
    pub user: Option<Identity>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub rules: Rules,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: Limits,
}

/// What is wrong with the configuration, for the person who wrote it: what, where, and what to do, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

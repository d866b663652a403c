//! How values are written: sizes (`64KiB`), times (`10s`), and the few words that flags take.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

/// Reads a time: `500ms`, `10s`, `2m`, `1h`. At least a millisecond, at most a year.
///
/// # Errors
///
/// What is expected instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "a time is written as 500ms, 10s, 2m or 1h";
    let (number, unit) = split(text).ok_or(FORM)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(FORM.into()),
    };
    match number.checked_mul(unit_ms) {
        Some(ms @ 1..=31_536_000_000) => Ok(Duration::from_millis(ms)),
        _ => Err("a time has to be at least 1ms and at most a year".into()),
    }
}

/// Reads a size in bytes: `4096`, `64KiB`, `4MiB`, `1GiB`.
///
/// # Errors
///
/// What is expected instead.
pub fn size(text: &str) -> Result<u64, String> {
    const FORM: &str = "a size is written in bytes, or as 64KiB, 4MiB or 1GiB";
    let (number, unit) = split(text).ok_or(FORM)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(FORM.into()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "that size does not fit into 64 bits".into())
}

/// Reads the size of something that is held in memory: at least one byte, at most 1GiB.
///
/// # Errors
///
/// What is expected instead.
pub fn memory_size(text: &str) -> Result<usize, String> {
    match size(text)? {
        bytes @ 1..=0x4000_0000 => Ok(bytes as usize),
        _ => Err("this size has to be at least 1 byte and at most 1GiB".into()),
    }
}

/// Reads a number of things: at least one, at most a million.
///
/// # Errors
///
/// What is expected instead.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000) => Ok(n),
        _ => Err("expected a whole number from 1 to 1000000".into()),
    }
}

/// Reads a port: 0 to 65535.
///
/// # Errors
///
/// What is expected instead.
pub fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "expected a whole number from 0 to 65535".into())
}

/// Reads what a flag without a value is set to in the environment.
///
/// # Errors
///
/// What is expected instead.
pub fn flag(text: &str) -> Result<bool, String> {
    let is_one_of = |words: [&str; 6]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if is_one_of(["true", "yes", "on", "1", "t", "y"]) => Ok(true),
        () if is_one_of(["false", "no", "off", "0", "f", "n"]) => Ok(false),
        () => Err("expected true or false, yes or no, on or off, 1 or 0".into()),
    }
}

/// A whole number and the unit behind it.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// How many worker threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One per processor.
    Auto,
    /// So many.
    Count(usize),
}

impl FromStr for Threads {
    type Err = String;

    fn from_str(text: &str) -> Result<Threads, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Threads::Auto),
            Ok(n @ 1..=1024) => Ok(Threads::Count(n)),
            _ => Err("expected a number from 1 to 1024, or auto".into()),
        }
    }
}

/// Where requests are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// To standard output.
    Stdout,
    /// To this file, at its end.
    File(PathBuf),
    /// Nowhere.
    Off,
}

impl FromStr for AccessLog {
    type Err = String;

    fn from_str(text: &str) -> Result<AccessLog, String> {
        match text {
            "-" => Ok(AccessLog::Stdout),
            "off" => Ok(AccessLog::Off),
            "" => Err("expected -, off, or the name of a file".into()),
            file => Ok(AccessLog::File(file.into())),
        }
    }
}

/// Where uploads go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadsTo {
    /// Into this folder.
    Folder(PathBuf),
    /// Nowhere: there are none.
    Off,
}

impl FromStr for UploadsTo {
    type Err = String;

    fn from_str(text: &str) -> Result<UploadsTo, String> {
        match text {
            "off" => Ok(UploadsTo::Off),
            "" => Err("expected a folder, or off".into()),
            folder => Ok(UploadsTo::Folder(folder.into())),
        }
    }
}

/// Someone with a password, of which a hash is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub user: String,
    /// The hash, in the form of argon2 (`$argon2id$..`) or bcrypt (`$2b$..`).
    pub hash: String,
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Account, String> {
        let (user, hash) = text.split_once(':').ok_or("expected a name, a colon, and a hash")?;
        if user.is_empty() {
            return Err("the name in front of the colon is empty".into());
        }
        let is_argon2 = hash.starts_with("$argon2") && argon2::PasswordHash::new(hash).is_ok_and(|hash| hash.hash.is_some());
        if !is_argon2 && hash.parse::<bcrypt::HashParts>().is_err() {
            return Err("expected a hash of argon2 ($argon2id$..) or bcrypt ($2b$..) behind the colon".into());
        }
        Ok(Account { user: user.into(), hash: hash.into() })
    }
}

/// Requests that a client may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In a second, over time.
    pub per_s: NonZeroU32,
    /// At once, after a while without any.
    pub burst: NonZeroU32,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        const FORM: &str = "a rate is written as 100/s, or as 100/s:200 with a burst of 200; each from 1 to 1000000";
        let (per_s, burst) = text.split_once(':').map_or((text, None), |(per_s, burst)| (per_s, Some(burst)));
        let number = |text: &str| text.parse::<NonZeroU32>().ok().filter(|n| n.get() <= 1_000_000);
        let per_s = per_s.strip_suffix("/s").and_then(number).ok_or(FORM)?;
        let burst = burst.map_or(Some(per_s), number).ok_or(FORM)?;
        Ok(Rate { per_s, burst })
    }
}

/// Reads a name or an address of a machine, without a port.
///
/// # Errors
///
/// What is expected instead.
pub fn host_name(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if is_name || text.parse::<IpAddr>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err("expected a name such as pond.example, without a port".into())
    }
}

/// Reads a network: `10.0.0.0/8`, `fd00::/8`, or a single address.
///
/// # Errors
///
/// What is expected instead.
pub fn network(text: &str) -> Result<IpNet, String> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| single()).map_err(|_| "expected a network such as 10.0.0.0/8, or an address".into())
}

/// How far the kernel has to confine the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// Wholly, or it does not start.
    Require,
    /// As far as this kernel can.
    On,
    /// Not at all.
    Off,
}

impl FromStr for Sandbox {
    type Err = String;

    fn from_str(text: &str) -> Result<Sandbox, String> {
        match text {
            "require" => Ok(Sandbox::Require),
            "on" => Ok(Sandbox::On),
            "off" => Ok(Sandbox::Off),
            _ => Err("expected require, on or off".into()),
        }
    }
}

/// A user, and perhaps a group, by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: String,
    /// The group, if it is not the user's own.
    pub group: Option<String>,
}

impl FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> Result<Identity, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        if user.is_empty() || group.is_some_and(str::is_empty) {
            return Err("expected the name of a user, or the names of a user and a group with a colon between them".into());
        }
        Ok(Identity { user: user.into(), group: group.map(Into::into) })
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(pub bool);

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Switch, String> {
        match text {
            "on" => Ok(Switch(true)),
            "off" => Ok(Switch(false)),
            _ => Err("expected on or off".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_networks() {
        for (text, expected) in [("100/s", Some((100, 100))), ("1/s:5", Some((1, 5))), ("1000000/s:1", Some((1_000_000, 1)))] {
            assert_eq!(text.parse::<Rate>().ok().map(|rate| (rate.per_s.get(), rate.burst.get())), expected, "{text}");
        }
        for text in ["", "100", "0/s", "1/s:0", "1/s:", "/s", "1/m", "1000001/s", "1/s:1000001", "-1/s", "1.5/s", "1/s:2:3"] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
        for (text, expected) in [("10.0.0.0/8", "10.0.0.0/8"), ("127.0.0.1", "127.0.0.1/32"), ("fd00::/8", "fd00::/8"), ("::1", "::1/128")]
        {
            assert_eq!(network(text).unwrap().to_string(), expected);
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "localhost", "10.0.0.0/"] {
            assert!(network(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_and_times() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("17B", Some(17)),
            ("64KiB", Some(65_536)),
            ("1GiB", Some(1 << 30)),
            ("", None),
            ("KiB", None),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text:?}");
        }
        for text in ["-1", "1.5MiB", "64kb", "64 KiB", "99999999999999999999", "17179869184GiB"] {
            assert!(size(text).is_err(), "{text:?}");
        }
        for (text, ms) in [
            ("1ms", Some(1)),
            ("10s", Some(10_000)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("8760h", Some(31_536_000_000)),
            ("8761h", None),
        ] {
            assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text:?}");
        }
        for text in ["", "0s", "10", "s", "-1s", "1d", "1 s", "99999999999999999h"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        for (text, ok) in [("0", false), ("1", true), ("1000000", true), ("1000001", false), ("x", false)] {
            assert_eq!(count(text).is_ok(), ok, "{text}");
        }
        for (text, ok) in [("0", false), ("1", true), ("1GiB", true), ("1073741825", false)] {
            assert_eq!(memory_size(text).is_ok(), ok, "{text}");
        }
        for (text, threads) in [
            ("auto", Some(Threads::Auto)),
            ("1", Some(Threads::Count(1))),
            ("1024", Some(Threads::Count(1024))),
            ("1025", None),
            ("0", None),
        ] {
            assert_eq!(text.parse().ok(), threads, "{text}");
        }
    }
}

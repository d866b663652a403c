//! The program under test: a folder to serve, the process, what it prints, and how it ends.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tempfile::TempDir;

use crate::client::{Client, Response};

/// How long any single wait may last before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What stands in every file outside the served folder: no answer may ever hold it.
pub const SECRET: &str = "TOP-SECRET-OUTSIDE-THE-ROOT";

/// What stands in every file that has a hidden name.
pub const HIDDEN: &str = "HIDDEN-BY-ITS-NAME";

pub const HELLO: &str = "hello, world\n";

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_millpond"))
}

/// A folder to serve (`www`) with secrets beside it, gone when dropped.
pub struct Tree {
    folder: TempDir,
}

impl Tree {
    /// An empty folder to serve, and secrets beside it.
    pub fn empty() -> Tree {
        let folder = tempfile::Builder::new().prefix("millpond-it-").tempdir().expect("a temporary folder");
        let tree = Tree { folder };
        fs::create_dir(tree.root()).unwrap();
        fs::write(tree.outside("secret.txt"), SECRET).unwrap();
        fs::create_dir(tree.outside("www_evil")).unwrap();
        fs::write(tree.outside("www_evil/secret.txt"), SECRET).unwrap();
        tree
    }

    /// The small site that most tests use.
    pub fn site() -> Tree {
        let tree = Tree::empty();
        tree.write("index.html", "<!doctype html><title>home</title>\n");
        tree.write("hello.txt", HELLO);
        tree.write("other.txt", "another file, a little longer than the first\n");
        tree.write("empty.txt", "");
        tree.write("style.css", "body { color: #123 }\n");
        tree.write("app.js", "console.log(1)\n");
        tree.write("with space.txt", "a space in the name\n");
        tree.write("sub/index.html", "<!doctype html><title>sub</title>\n");
        tree.write("sub/page.html", "<!doctype html><title>page</title>\n");
        tree.write("sub/deep/leaf.txt", "leaf\n");
        tree.write("bare/leaf.txt", "in a folder that has no index\n");
        tree.write(".hidden", HIDDEN);
        tree.write(".git/config", HIDDEN);
        tree.write("sub/.env", HIDDEN);
        tree.write(".well-known/acme.txt", "well known\n");
        tree
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("www")
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// A path beside the served folder.
    pub fn outside(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file below the served folder, with the folders above it.
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Puts a new file in the place of an old one, as careful editors and deploy scripts do.
    pub fn replace(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let new = self.outside("replacement");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    pub fn symlink(&self, target: impl AsRef<Path>, name: &str) {
        std::os::unix::fs::symlink(target, self.path(name)).unwrap();
    }
}

/// Lines that a thread collects from a stream of the process.
#[derive(Clone, Default)]
pub struct Lines {
    shared: Arc<(Mutex<Collected>, Condvar)>,
}

#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    ended: bool,
}

impl Lines {
    fn follow(&self, stream: impl Read + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            loop {
                let mut line = Vec::new();
                let ended = !matches!(stream.read_until(b'\n', &mut line), Ok(1..));
                let mut collected = shared.0.lock().unwrap();
                collected.bytes.extend_from_slice(&line);
                collected.ended = ended;
                shared.1.notify_all();
                if ended {
                    return;
                }
            }
        });
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.shared.0.lock().unwrap().bytes.clone()
    }

    pub fn all(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.bytes()).lines().map(str::to_owned).collect()
    }

    /// Waits until `found` gives something for the lines so far; `None` when time or the stream ran out first.
    pub fn wait_until<T>(&self, patience: Duration, mut found: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut collected = self.shared.0.lock().unwrap();
        loop {
            let lines: Vec<String> = String::from_utf8_lossy(&collected.bytes).lines().map(str::to_owned).collect();
            if let Some(value) = found(&lines) {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || collected.ended {
                return None;
            }
            collected = self.shared.1.wait_timeout(collected, left).unwrap().0;
        }
    }

    fn wait_for_end(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut collected = self.shared.0.lock().unwrap();
        while !collected.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            collected = self.shared.1.wait_timeout(collected, left).unwrap().0;
        }
        true
    }
}

/// What becomes of the program's standard output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Out {
    Collect,
    /// A pipe that the test reads itself, or never.
    Pipe,
}

/// How a server is to be started.
pub struct Builder {
    tree: Option<Tree>,
    root: Option<PathBuf>,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    wrapper: Vec<String>,
    folder: Option<PathBuf>,
    out: Out,
    input: Option<OwnedFd>,
    defaults: bool,
    addresses: usize,
}

impl Builder {
    pub fn new(args: &[&str]) -> Builder {
        Builder {
            tree: None,
            root: None,
            args: args.iter().map(OsString::from).collect(),
            env: Vec::new(),
            wrapper: Vec::new(),
            folder: None,
            out: Out::Collect,
            input: None,
            defaults: true,
            addresses: 1,
        }
    }

    pub fn tree(mut self, tree: Tree) -> Builder {
        self.tree = Some(tree);
        self
    }

    /// Serves this folder in place of the tree's own.
    pub fn root(mut self, root: impl Into<PathBuf>) -> Builder {
        self.root = Some(root.into());
        self
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Builder {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Builder {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Gives the program these arguments and no others: no port, no root.
    pub fn bare(mut self) -> Builder {
        self.defaults = false;
        self
    }

    /// The folder that the program starts in.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.folder = Some(folder.into());
        self
    }

    /// A program that is to start ours, with its arguments.
    pub fn through(mut self, wrapper: &[&str]) -> Builder {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Leaves standard output as a pipe that nobody reads until the test takes it.
    pub fn pipe(mut self) -> Builder {
        self.out = Out::Pipe;
        self
    }

    /// What the program has as its standard input; otherwise it is empty.
    pub fn input(mut self, input: OwnedFd) -> Builder {
        self.input = Some(input);
        self
    }

    /// How many address lines the start-up block has.
    pub fn addresses(mut self, addresses: usize) -> Builder {
        self.addresses = addresses;
        self
    }

    fn has(&self, flag: &str) -> bool {
        self.args.iter().any(|arg| arg.as_bytes().split(|&byte| byte == b'=').next() == Some(flag.as_bytes()))
    }

    fn command(&self, tree: Option<&Tree>) -> Command {
        let mut command = match self.wrapper.split_first() {
            None => Command::new(program()),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program());
                command
            }
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"MILLPOND_")) {
            command.env_remove(name);
        }
        command.env("RUST_BACKTRACE", "0");
        command.args(&self.args);
        if self.defaults {
            // a machine that is busy with other tests is no reason to refuse anyone
            for (flag, value) in [("--port", "0"), ("--threads", "2"), ("--access-log", "off"), ("--queue-wait", "10s")] {
                if !self.has(flag) {
                    command.args([flag, value]);
                }
            }
            command.arg(self.root.clone().unwrap_or_else(|| tree.expect("a tree to serve").root()));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let input = self.input.as_ref().map_or_else(Stdio::null, |input| input.try_clone().unwrap().into());
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts the program and waits until it has said where it listens.
    pub fn start(mut self) -> Server {
        raise_descriptor_limit();
        let tree = self.tree.take().unwrap_or_else(Tree::site);
        let mut child = self.command(Some(&tree)).spawn().expect("the program starts");
        let err = Lines::default();
        err.follow(child.stderr.take().unwrap());
        let out = Lines::default();
        let mut pipe = None;
        match self.out {
            Out::Collect => out.follow(child.stdout.take().unwrap()),
            Out::Pipe => pipe = child.stdout.take(),
        }
        let mut server = Server { child, ended: false, tree, err, out, pipe, collects: self.out == Out::Collect, addresses: Vec::new() };
        let wanted = self.addresses;
        let found = server.err.wait_until(PATIENCE, |lines| {
            let addresses: Vec<SocketAddr> = lines.iter().filter_map(|line| address_line(line)).collect();
            (addresses.len() >= wanted).then_some(addresses)
        });
        server.addresses = found.unwrap_or_else(|| panic!("the program did not say {wanted} address(es)"));
        server
    }

    /// Runs the program to its end, as a command that does not serve.
    pub fn run(self) -> Ran {
        let mut child = self.command(self.tree.as_ref()).spawn().expect("the program starts");
        let err = Lines::default();
        err.follow(child.stderr.take().unwrap());
        let out = Lines::default();
        out.follow(child.stdout.take().unwrap());
        if !(err.wait_for_end(PATIENCE) && out.wait_for_end(PATIENCE)) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{:?} did not end by itself; it said: {:#?}", self.args, err.all());
        }
        let status = child.wait().unwrap();
        Ran {
            code: status.code(),
            out: String::from_utf8_lossy(&out.bytes()).into_owned(),
            err: String::from_utf8_lossy(&err.bytes()).into_owned(),
        }
    }
}

/// What a command that ran to its end left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// `  http://127.0.0.1:8080/` and nothing else on the line.
fn address_line(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("  http://")?.strip_suffix('/')?.parse().ok()
}

/// A running program. Dropping it kills the process.
pub struct Server {
    child: Child,
    ended: bool,
    tree: Tree,
    pub err: Lines,
    pub out: Lines,
    pipe: Option<ChildStdout>,
    /// Whether standard output is collected here.
    collects: bool,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// The small site, served with these arguments.
    pub fn start(args: &[&str]) -> Server {
        Builder::new(args).start()
    }

    pub fn serving(tree: Tree) -> Server {
        Builder::new(&[]).tree(tree).start()
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// One GET on a connection of its own.
    pub fn get(&self, target: &str) -> Response {
        self.connect().get(target)
    }

    /// Sends these bytes on a connection of their own and reads the one answer.
    pub fn ask(&self, raw: impl AsRef<[u8]>) -> Response {
        let mut client = self.connect();
        client.send(raw);
        client.answer()
    }

    /// The server is alive and well: a plain request gets its file.
    pub fn assert_well(&self, after: &str) {
        let answer = self.get("/hello.txt");
        assert_eq!((answer.status, answer.text().as_str()), (200, HELLO), "after {after} the server no longer serves");
    }

    pub fn wait_for_line(&self, part: &str) -> String {
        let found = self.err.wait_until(PATIENCE, |lines| lines.iter().find(|line| line.contains(part)).cloned());
        found.unwrap_or_else(|| panic!("no line with {part:?} on standard error: {:#?}", self.err.all()))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("the process is there to be signalled");
    }

    pub fn take_pipe(&mut self) -> ChildStdout {
        self.pipe.take().expect("started with its output as a pipe")
    }

    /// SIGTERM, then the end.
    pub fn stop(self) -> Stopped {
        self.signal(Signal::TERM);
        self.finish()
    }

    /// Waits until the process ends by itself.
    pub fn finish(mut self) -> Stopped {
        assert!(self.err.wait_for_end(PATIENCE * 2), "the program does not end");
        let status = self.child.wait().unwrap();
        self.ended = true;
        if self.collects {
            self.out.wait_for_end(PATIENCE);
        }
        Stopped { status, err: self.err.all(), out: self.out.bytes() }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How many descriptors of the process `wanted` says yes to, by what they point to.
    fn count_descriptors(&self, wanted: impl Fn(&str) -> bool) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the process lives");
        entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).filter(|target| wanted(&target.to_string_lossy())).count()
    }

    pub fn descriptors(&self) -> usize {
        self.count_descriptors(|_| true)
    }

    pub fn sockets(&self) -> usize {
        self.count_descriptors(|target| target.starts_with("socket:"))
    }

    /// Bytes of memory that the process holds, also as files that only it has.
    pub fn memory(&self) -> u64 {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the process lives").flatten();
        let files = files.filter(|file| fs::read_link(file.path()).is_ok_and(|target| target.starts_with("/memfd:millpond (deleted)")));
        let in_files: u64 = files.filter_map(|file| fs::metadata(file.path()).ok()).map(|file| file.blocks() * 512).sum();

        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        in_files + (line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10)
    }

    /// How many threads of this name the process has.
    pub fn threads(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        // One that has just ended has no name any more.
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok()).filter(|comm| comm.trim_end() == name).count()
    }

    /// The niceness of each thread of this name.
    pub fn niceness(&self, name: &str) -> Vec<i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
        let of_name = stats.filter_map(|stat| {
            let (front, back) = stat.rsplit_once(')')?;
            front.ends_with(&format!("({name}")).then(|| back.split_whitespace().nth(16)?.parse().ok())?
        });
        of_name.collect()
    }

    /// Processor time used so far, in clock ticks (a hundredth of a second).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Sets how many descriptors the running process may have open; the hard limit stays.
    pub fn limit_descriptors(&self, soft: u64) {
        let stat = fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = stat.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let hard: u64 = line.split_whitespace().nth(4).unwrap().parse().unwrap();
        let limit = Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) };
        rustix::process::prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.ended {
            _ = self.child.kill();
            _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("-- standard error of the server:");
            for line in self.err.all() {
                eprintln!("   {line}");
            }
        }
    }
}

/// How a server ended.
pub struct Stopped {
    pub status: ExitStatus,
    pub err: Vec<String>,
    pub out: Vec<u8>,
}

impl Stopped {
    /// The numbers of the closing line.
    pub fn closing(&self) -> Closing {
        let line = self.err.iter().rev().find(|line| line.starts_with("millpond: stopped: "));
        let line = line.unwrap_or_else(|| panic!("no closing line: {:#?}", self.err));
        Closing::parse(line).unwrap_or_else(|| panic!("the closing line reads {line:?}"))
    }

    pub fn assert_clean(&self) -> Closing {
        assert_eq!(self.status.code(), Some(0), "exit status {:?}; standard error: {:#?}", self.status, self.err);
        self.closing()
    }
}

/// `millpond: stopped: 1000 connections (250 251 249 250), 3000 requests, 2 shed, 1 turned away, 0 panics, 0 log lines dropped`
#[derive(Debug, PartialEq, Eq)]
pub struct Closing {
    pub connections: u64,
    pub by_worker: Vec<u64>,
    pub requests: u64,
    pub shed: u64,
    pub turned_away: u64,
    pub panics: u64,
    pub dropped: u64,
}

impl Closing {
    fn parse(line: &str) -> Option<Closing> {
        let mut parts = line.strip_prefix("millpond: stopped: ")?.split(", ");
        let (connections, by_worker) = parts.next()?.split_once(" (")?;
        let by_worker = by_worker.strip_suffix(')')?.split(' ').map(|count| count.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let closing = Closing {
            connections: counted(connections, "connection")?,
            by_worker,
            requests: counted(parts.next()?, "request")?,
            shed: counted(parts.next()?, "shed")?,
            turned_away: counted(parts.next()?, "turned away")?,
            panics: counted(parts.next()?, "panic")?,
            dropped: counted(parts.next()?, "log line")?,
        };
        parts.next().is_none().then_some(closing)
    }
}

fn counted(part: &str, what: &str) -> Option<u64> {
    let (number, name) = part.split_once(' ')?;
    name.starts_with(what).then(|| number.parse().ok())?
}

#[test]
fn the_closing_line_is_read_as_it_is_written() {
    let line = "millpond: stopped: 1000 connections (250 251 249 250), 3000 requests, 2 shed, 1 turned away, 0 panics, 7 log lines dropped";
    let by_worker = vec![250, 251, 249, 250];
    let closing = Closing { connections: 1000, by_worker, requests: 3000, shed: 2, turned_away: 1, panics: 0, dropped: 7 };
    assert_eq!(Closing::parse(line), Some(closing));
    assert_eq!(Closing::parse("millpond: stopped: 1000 connections"), None);
}

/// Sets a flag when a test is through with something, also by failing: threads that go by it come to their end.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until something that sends no event has become true.
pub fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A short wait for what leaves no trace to wait for, such as bytes being read by the other side.
pub fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// Thousands of sockets in one test process need more than the customary 1,024 descriptors.
fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    });
}

/// A program line that takes from root the right to read everything; `None` where that cannot be done. For others than root it is empty.
pub fn without_privilege() -> Option<Vec<&'static str>> {
    if !rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    let wrapper = vec!["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("closed");
    fs::write(&file, "x").unwrap();
    set_mode(&file, 0o000);
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg("cat").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let read = command.status().ok()?;
    (read.code() == Some(1)).then_some(wrapper)
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Bytes with no pattern that a mistake could hide in; the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Compares long bodies without printing them.
pub fn assert_same_bytes(got: &[u8], wanted: &[u8], name: &str) {
    if got == wanted {
        return;
    }
    assert_eq!(got.len(), wanted.len(), "{name}: length");
    if let Some(at) = got.iter().zip(wanted).position(|(got, wanted)| got != wanted) {
        panic!("{name}: byte {at} differs");
    }
}

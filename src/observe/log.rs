//! The access log: Combined Log Format, written in batches by a thread of its own.
//!
//! Each worker has a lane, a buffer with a bound, and appends to it without waiting. The writer empties the lanes shortly after
//! something was put into them. When it is held up by a full pipe or disk the lanes fill, and what does not fit is dropped and
//! counted: a log never holds up a worker.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, Thread};
use std::time::Duration;

use rustix::fs::OFlags;

use super::Record;

/// Bytes of lines that a worker may have waiting: about ten thousand lines.
pub const LANE_BYTES: usize = 1 << 20;
/// Bytes that a pipe takes at once or not at all (PIPE_BUF of Linux): what is counted as written is written, and no line is torn.
const PIPE_BYTES: usize = 4096;
/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(20);
/// How long the last lines may take to be written at the end.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// The access log. Without a writer it takes nothing.
#[derive(Debug)]
pub struct Log {
    lanes: Arc<Lanes>,
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Lanes {
    lanes: Box<[Mutex<Lane>]>,
    dropped: AtomicU64,
    /// Lines that the writer has taken and not written yet.
    held: AtomicU64,
    ending: AtomicBool,
    /// What is to be written to from now on, if that changes.
    next: Mutex<Option<Sink>>,
}

/// Where lines are written to.
struct Sink(Box<dyn Write + Send>);

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Sink")
    }
}

#[derive(Debug, Default)]
struct Lane {
    lines: Vec<u8>,
    /// The time of the last line, rendered.
    time: (u64, String),
}

#[derive(Debug)]
struct Writer {
    thread: Thread,
    done: Mutex<mpsc::Receiver<()>>,
}

impl Log {
    /// A log that takes nothing.
    pub fn off() -> Log {
        Log {
            lanes: Arc::new(Lanes {
                lanes: Box::default(),
                dropped: AtomicU64::new(0),
                held: AtomicU64::new(0),
                ending: AtomicBool::new(false),
                next: Mutex::new(None),
            }),
            writer: None,
        }
    }

    /// A log with a lane for each worker, written to `sink`.
    ///
    /// # Errors
    ///
    /// No thread could be started.
    pub fn start(workers: usize, sink: Box<dyn Write + Send>) -> io::Result<Log> {
        let lanes = Arc::new(Lanes {
            lanes: (0..workers).map(|_| Mutex::default()).collect(),
            dropped: AtomicU64::new(0),
            held: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            next: Mutex::new(None),
        });
        let (tell, done) = mpsc::channel();
        let for_thread = Arc::clone(&lanes);
        let handle = thread::Builder::new().name("log".into()).spawn(move || {
            for_thread.write_until_the_end(sink);
            // nobody listens if the end was not waited for
            let _ = tell.send(());
        })?;
        Ok(Log { lanes, writer: Some(Writer { thread: handle.thread().clone(), done: Mutex::new(done) }) })
    }

    /// Whether records are wanted.
    pub fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Takes the record of a request that this worker served.
    pub fn record(&self, worker: usize, record: &Record) {
        let Some(writer) = &self.writer else { return };
        let mut lane = self.lanes.lane(worker);
        if lane.lines.len() >= LANE_BYTES {
            self.lanes.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = lane.lines.is_empty();
        lane.append(record);
        drop(lane);
        if was_empty {
            writer.thread.unpark();
        }
    }

    /// Has lines written to another sink from now on; what was taken before may still go to the one before it.
    pub fn replace(&self, sink: Box<dyn Write + Send>) {
        if let Some(writer) = &self.writer {
            *self.lanes.next() = Some(Sink(sink));
            writer.thread.unpark();
        }
    }

    /// Writes what is left, as long as that does not take too long; returns how many lines were dropped since the start.
    pub fn finish(&self) -> u64 {
        if let Some(writer) = &self.writer {
            self.lanes.ending.store(true, Ordering::Release);
            writer.thread.unpark();
            let done = writer.done.lock().unwrap_or_else(PoisonError::into_inner);
            if done.recv_timeout(LAST_WRITE).is_err() {
                self.lanes.dropped.fetch_add(self.lanes.held.load(Ordering::Relaxed), Ordering::Relaxed);
                for index in 0..self.lanes.lanes.len() {
                    self.lanes.drop_lines(&self.lanes.lane(index).lines);
                }
            }
        }
        self.lanes.dropped.load(Ordering::Relaxed)
    }
}

impl Lanes {
    fn lane(&self, worker: usize) -> MutexGuard<'_, Lane> {
        self.lanes[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> MutexGuard<'_, Option<Sink>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_lines(&self, lines: &[u8]) {
        self.dropped.fetch_add(count(lines), Ordering::Relaxed);
    }

    fn write_until_the_end(&self, mut sink: Box<dyn Write + Send>) {
        let mut lines = Vec::new();
        // whether what was written last ends within a line
        let mut is_torn = false;
        loop {
            let ending = self.ending.load(Ordering::Acquire);
            if let Some(Sink(next)) = self.next().take() {
                (sink, is_torn) = (next, false);
            }
            let mut idle = true;
            for index in 0..self.lanes.len() {
                std::mem::swap(&mut self.lane(index).lines, &mut lines);
                idle &= lines.is_empty();
                if is_torn && !idle {
                    lines.insert(0, b'\n');
                }
                let mut rest = &lines[..];
                while !rest.is_empty() {
                    self.held.store(count(rest), Ordering::Relaxed);
                    match sink.write(whole_lines(rest)) {
                        Ok(n) if n > 0 => {
                            is_torn = rest[n - 1] != b'\n';
                            rest = &rest[n..];
                        }
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        _ => {
                            self.drop_lines(rest);
                            break;
                        }
                    }
                }
                self.held.store(0, Ordering::Relaxed);
                lines.clear();
            }
            if ending {
                return;
            }
            if idle {
                thread::park();
            }
            // not to be cut short by the first line that comes: that would be a wake-up for each
            thread::sleep(GATHER);
        }
    }
}

/// As many whole lines as a pipe takes at once or not at all; a part of a line that is longer.
fn whole_lines(lines: &[u8]) -> &[u8] {
    let most = &lines[..lines.len().min(PIPE_BYTES)];
    memchr::memrchr(b'\n', most).map_or(most, |end| &most[..=end])
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

impl Lane {
    /// `host - - [time] "request line" status bytes "referer" "user agent"`
    fn append(&mut self, record: &Record) {
        if self.time.0 != record.unix_s || self.time.1.is_empty() {
            self.time = (record.unix_s, clf_time(record.unix_s));
        }
        let lines = &mut self.lines;
        // writing to memory does not fail
        let _ = write!(lines, "{} - - [{}] \"", record.peer, self.time.1);
        escape(record.request.line(), lines);
        let _ = write!(lines, "\" {} {} \"", record.status, record.body_bytes);
        escape(record.request.field(&crate::http::header::REFERER).unwrap_or(b"-"), lines);
        lines.extend_from_slice(b"\" \"");
        escape(record.request.field(&crate::http::header::USER_AGENT).unwrap_or(b"-"), lines);
        lines.extend_from_slice(b"\"\n");
    }
}

/// `22/Nov/2026:17:00:00 +0000`
fn clf_time(unix_s: u64) -> String {
    // Sun, 22 Nov 2026 17:00:00 GMT
    let http = crate::http::date::format(unix_s);
    format!("{}/{}/{}:{} +0000", &http[5..7], &http[8..11], &http[12..16], &http[17..25])
}

/// Writes text so that it can neither end its quotes nor its line, nor tell a terminal anything.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    let is_plain = |b: &u8| (b' '..=b'~').contains(b) && *b != b'"' && *b != b'\\';
    if text.iter().all(is_plain) {
        out.extend_from_slice(text);
        return;
    }
    for b in text {
        if is_plain(b) {
            out.push(*b);
        } else {
            // writing to memory does not fail
            let _ = write!(out, "\\x{b:02x}");
        }
    }
}

/// A message without control characters.
pub fn printable(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Opens a log file for appending.
///
/// A pipe that nobody reads is not waited for.
///
/// # Errors
///
/// It can not be opened.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::options().append(true).create(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    // from here on it is waited for, by the thread that writes
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::tests::request;
    use std::sync::mpsc::{Receiver, Sender, channel};

    fn record(request: &crate::http::Request) -> Record<'_> {
        Record { peer: [127, 0, 0, 1].into(), unix_s: 784_111_777, request, status: 200, body_bytes: 12 }
    }

    #[test]
    fn lines() {
        let mut lane = Lane::default();
        lane.append(&record(&request("GET", "/a?b", "Referer: http://x/\r\nUser-Agent: say \"hi\" \\ \u{e9}\t")));
        assert_eq!(
            String::from_utf8(lane.lines).unwrap(),
            "127.0.0.1 - - [06/Nov/1994:08:49:37 +0000] \"GET /a?b HTTP/1.1\" 200 12 \"http://x/\" \"say \\x22hi\\x22 \\x5c \\xc3\\xa9\"\n"
        );
        let mut lane = Lane::default();
        lane.append(&record(&crate::http::Request::default()));
        assert!(lane.lines.ends_with(b"] \"\" 200 12 \"-\" \"-\"\n"));
        let mut out = Vec::new();
        escape(b"\x1b[31m\r\n\x7f", &mut out);
        assert_eq!(out, b"\\x1b[31m\\x0d\\x0a\\x7f");
        assert_eq!(printable("a\nb\x1b"), "a b ");
    }

    /// A sink that tells that it was written to, and waits for leave.
    struct Gate(Sender<usize>, Receiver<()>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.len()).unwrap();
            self.1.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_is_held_up_costs_lines_and_not_time() {
        let (tell, told) = channel();
        let (leave, wait) = channel();
        let log = Log::start(1, Box::new(Gate(tell, wait))).unwrap();
        let request = request("GET", "/", "");
        log.record(0, &record(&request));
        let line = told.recv().unwrap();
        // the writer holds one line now, and the lane is empty
        let fit = LANE_BYTES.div_ceil(line);
        for _ in 0..fit + 3 {
            log.record(0, &record(&request));
        }
        drop(leave);
        // the one that was held, what was in the lane, and the three that did not fit
        assert_eq!(log.finish(), (fit + 4) as u64);
    }

    #[test]
    fn what_was_recorded_is_written_at_the_end() {
        let (tell, told) = channel();
        let (leave, wait) = channel();
        for _ in 0..10 {
            leave.send(()).unwrap();
        }
        let log = Log::start(2, Box::new(Gate(tell, wait))).unwrap();
        let request = request("GET", "/", "");
        log.record(0, &record(&request));
        log.record(1, &record(&request));
        assert_eq!(log.finish(), 0);
        assert_eq!(told.try_iter().sum::<usize>(), 2 * 75);
    }
}

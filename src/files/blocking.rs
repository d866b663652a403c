//! The blocking pool: one for the process. Work that may wait for a disk runs here, never on a worker.
//!
//! Threads start when work comes and end after some seconds without any; there is a bound to their number, and what exceeds it
//! waits. The bound of what waits is that of the connections: each waits for one piece of such work at a time.

use std::io;
use std::time::Duration;

use rustix::process::setpriority_process;
use tokio::runtime::{Builder, Runtime};

/// How long a thread of the pool stays without work.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How far its threads stand behind the workers, when there are not processors enough for all: what is ready goes first.
const NICE: i32 = 10;

/// The pool.
#[derive(Debug)]
pub struct Blocking(Option<Runtime>);

impl Blocking {
    /// A pool of at most so many threads.
    ///
    /// # Errors
    ///
    /// The runtime behind it can not be made.
    pub fn new(threads: usize) -> io::Result<Blocking> {
        Builder::new_current_thread()
            .thread_name("blocking")
            .max_blocking_threads(threads)
            .thread_keep_alive(KEEP_ALIVE)
            // of each thread alone, on Linux; if it is refused, they are as important as the workers
            .on_thread_start(|| _ = setpriority_process(None, NICE))
            .build()
            .map(|r| Blocking(Some(r)))
    }

    /// Runs `work` on the pool; it begins at once. A panic in it is passed on to who waits for it.
    pub fn run<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> impl Future<Output = T> + Send + use<T, F> {
        let Some(runtime) = &self.0 else { unreachable!("the pool is there until it is dropped") };
        let working = runtime.spawn_blocking(work);
        async move {
            match working.await {
                Ok(done) => done,
                Err(e) => std::panic::resume_unwind(e.try_into_panic().unwrap_or_else(|_| Box::new("the blocking pool has ended"))),
            }
        }
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

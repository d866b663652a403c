//! Listeners to queue, on one thread.
//!
//! While the queue has room, what the kernel has accepted goes into it. When it is full the rest stays with the kernel, as long
//! as the oldest connection in the queue is young; after that the surplus is answered with 503 here, without a worker's time.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::clients::{self, Place};
use super::conn::{self, Io};
use super::queue::FAIR;
use super::worker::Watch;
use super::{Accepted, Shared};
use crate::config::limits::QUEUE_PATIENCE;
use crate::observe::say;

/// Connections that one listener accepts before another has its turn.
const BATCH: usize = 64;
/// How long the acceptor rests when the process is out of descriptors.
const SHORTAGE_REST: Duration = Duration::from_millis(50);
/// How long the acceptor rests when too many of those that were told 503 are still there.
const LINGERING_REST: Duration = Duration::from_millis(5);
/// How often a shortage is told.
const SHORTAGE_TOLD: Duration = Duration::from_secs(5);

/// The answer to a connection that the queue has no room for.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 43\r\nconnection: close\r\n\r\nThe server is busy. Try again in a moment.\n";

/// Starts the acceptor; it ends, and closes its listeners, when `stop` is set or dropped. `ended` is called on its thread if it ends
/// by a panic.
///
/// # Errors
///
/// No thread or no event loop can be had.
pub fn start(
    listeners: Vec<TcpListener>,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
    ended: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    thread::Builder::new().name("acceptor".into()).spawn(move || {
        let watch = Watch::new(ended);
        runtime.block_on(async {
            let lingering = Arc::new(AtomicUsize::new(0));
            let mut tasks = tokio::task::JoinSet::new();
            for listener in listeners {
                // its replacement needs unsafe code, against types that lie about their descriptor; a TcpListener does not
                #[allow(deprecated)]
                match AsyncFd::new(listener) {
                    Ok(listener) => {
                        _ = tasks.spawn(
                            Acceptor { listener, shared: Arc::clone(&shared), lingering: Arc::clone(&lingering), told: None }
                                .run(stop.clone()),
                        )
                    }
                    Err(e) => say(&format!("a listener is lost: {e}")),
                }
            }
            while tasks.join_next().await.is_some() {}
            shared.queue.close();
            // those that were told 503 may still read it
            while lingering.load(Ordering::Relaxed) > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        });
        watch.done();
    })
}

struct Acceptor {
    listener: AsyncFd<TcpListener>,
    shared: Arc<Shared>,
    lingering: Arc<AtomicUsize>,
    told: Option<Instant>,
}

impl Acceptor {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = self.turn() => {}
            }
        }
        self.shared.queue.drain();
        if self.shared.is_succeeded.load(Ordering::Relaxed) {
            return;
        }
        // what the kernel has accepted before is served, and nothing is shed any more
        loop {
            while let Some(waited) = self.shared.queue.full_for() {
                self.wait_for_room(waited).await;
            }
            match self.accept() {
                Ok(accepted) => self.put(accepted),
                Err(Errno::AGAIN) => return,
                Err(e) if is_of_the_client(e) => {}
                Err(_) => sleep(SHORTAGE_REST).await,
            }
        }
    }

    /// Waits until there are connections, and takes some in.
    async fn turn(&mut self) {
        let Some(ready) = self.readable().await else { return self.shared.queue.hurry() };
        let Ok(mut ready) = ready else { return sleep(SHORTAGE_REST).await };
        ready.retain_ready();
        drop(ready);
        for _ in 0..BATCH {
            // while the oldest is young, what does not fit stays with the kernel
            while let Some(waited) = self.shared.queue.full_for()
                && waited < QUEUE_PATIENCE
            {
                self.wait_for_room(waited).await;
            }
            // those that were told 503 are few enough, or the rest stays with the kernel
            while self.lingering.load(Ordering::Relaxed) >= self.shared.lingering {
                sleep(LINGERING_REST).await;
            }
            match self.accept() {
                Ok(accepted) => self.put(accepted),
                Err(Errno::AGAIN) => {
                    // the next connection tells anew
                    if let Ok(mut ready) = self.listener.readable().await {
                        ready.clear_ready();
                    }
                    return;
                }
                Err(e) if is_shortage(e) => {
                    self.tell_shortage(e);
                    return sleep(SHORTAGE_REST).await;
                }
                Err(e) if is_of_the_client(e) => {}
                Err(e) => {
                    self.tell(&format!("new connections can not be accepted: {e}"));
                    return sleep(SHORTAGE_REST).await;
                }
            }
        }
        tokio::task::yield_now().await;
    }

    /// Waits until there may be a connection; not for long while the queue has some, so that it can be looked after.
    async fn readable(&self) -> Option<io::Result<AsyncFdReadyGuard<'_, TcpListener>>> {
        if self.shared.queue.has_waiting() {
            timeout(FAIR, self.listener.readable()).await.ok()
        } else {
            Some(self.listener.readable().await)
        }
    }

    /// Waits until the full queue may have room, or until its oldest connection, which has waited this long, is no longer young.
    async fn wait_for_room(&self, waited: Duration) {
        let time = QUEUE_PATIENCE.saturating_sub(waited).max(Duration::from_millis(1));
        // either way the caller looks again
        let _ = timeout(time, self.shared.queue.room()).await;
    }

    fn accept(&self) -> Result<Accepted, Errno> {
        let socket: OwnedFd = rustix::net::accept_with(self.listener.get_ref(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        Ok(Accepted { socket: socket.into(), at: Instant::now(), place: Place::default() })
    }

    fn put(&self, mut accepted: Accepted) {
        let Some(place) = self.shared.clients.enter(&accepted.socket) else { return clients::turn_away(&accepted.socket) };
        accepted.place = place;
        if let Err(accepted) = self.shared.queue.put(accepted) {
            self.shed(accepted);
        }
    }

    /// Answers with 503, in a way that the client receives it.
    fn shed(&self, accepted: Accepted) {
        self.shared.counters.shed.fetch_add(1, Ordering::Relaxed);
        // fresh, the socket has room for this; a client that is gone needs no answer
        let _ = rustix::net::send(&accepted.socket, BUSY, rustix::net::SendFlags::NOSIGNAL);
        self.lingering.fetch_add(1, Ordering::Relaxed);
        let lingering = Arc::clone(&self.lingering);
        let deadline = accepted.at + self.shared.limits.linger_timeout;
        tokio::spawn(async move {
            conn::linger(&mut Io::new(accepted.socket), deadline).await;
            lingering.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn tell_shortage(&mut self, e: Errno) {
        let what = if matches!(e, Errno::MFILE | Errno::NFILE) { "out of file descriptors" } else { "out of memory for sockets" };
        self.tell(&format!("{what}: new connections wait; raise the limit (ulimit -n) or lower --connections"));
    }

    /// Tells the operator, but not each time.
    fn tell(&mut self, what: &str) {
        if self.told.is_none_or(|told| told.elapsed() > SHORTAGE_TOLD) {
            self.told = Some(Instant::now());
            say(what);
        }
    }
}

/// Whether it is this process, or the machine, that has no means for another connection.
fn is_shortage(e: Errno) -> bool {
    matches!(e, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}

/// Whether a client is gone already, or its network is.
fn is_of_the_client(e: Errno) -> bool {
    use Errno as E;
    matches!(e, E::CONNABORTED | E::INTR | E::PROTO | E::NETDOWN | E::NETUNREACH | E::HOSTUNREACH | E::HOSTDOWN)
}

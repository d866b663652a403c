//! Turns: how much of files a worker sends before it looks again for what has come meanwhile.
//!
//! A slice of a large file takes as long as ten small responses. So a worker sends only so many bytes of large files in a round, and
//! whoever would send more waits in line. A round ends when the event loop has been asked for news and what was ready has been served:
//! what is small waits for one slice at most, however many large downloads there are.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use tokio::task::yield_now;

/// Bytes of large files that a worker sends in a round. One slice may go beyond.
const ROUND_BYTES: u64 = 256 << 10;

/// A place in the line of a worker; none while nothing waits.
#[derive(Debug, Default)]
pub struct Turn(Option<u64>);

/// The line of a worker.
#[derive(Debug)]
struct Line {
    /// Bytes that were sent in this round.
    sent: u64,
    waiting: VecDeque<Waker>,
    /// The number of the first that waits, of all that ever did. Those before it may send.
    first: u64,
    /// Whether a task ends the rounds.
    is_kept: bool,
}

thread_local! {
    static LINE: RefCell<Line> = const { RefCell::new(Line { sent: 0, waiting: VecDeque::new(), first: 0, is_kept: false }) };
}

impl Turn {
    /// Ready once a slice may be sent. The task is woken then.
    pub fn poll(&mut self, cx: &mut Context) -> Poll<()> {
        LINE.with_borrow_mut(|line| {
            match self.0 {
                Some(number) if number >= line.first => return Poll::Pending,
                Some(_) => {}
                None if line.sent < ROUND_BYTES => {}
                None => {
                    self.0 = Some(line.first + line.waiting.len() as u64);
                    line.waiting.push_back(cx.waker().clone());
                    if !line.is_kept {
                        line.is_kept = true;
                        tokio::spawn(keep());
                    }
                    return Poll::Pending;
                }
            }
            self.0 = None;
            Poll::Ready(())
        })
    }
}

/// Notes that so many bytes of a file were sent.
pub fn count(bytes: u64) {
    LINE.with_borrow_mut(|line| line.sent += bytes);
}

/// Nothing is ready any more: a round has ended.
pub fn rest() {
    LINE.with_borrow_mut(|line| line.sent = 0);
}

/// Ends rounds, as long as somebody waits for that.
async fn keep() {
    loop {
        // back once the event loop has been asked, behind what that has brought
        yield_now().await;
        let next = LINE.with_borrow_mut(|line| {
            line.sent = 0;
            let next = line.waiting.pop_front();
            line.first += u64::from(next.is_some());
            line.is_kept = next.is_some();
            next
        });
        match next {
            Some(waker) => waker.wake(),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};
    use tokio::net::UnixStream;
    use tokio::runtime::Builder;

    fn run(test: impl Future<Output = ()>) {
        Builder::new_current_thread().enable_io().build().unwrap().block_on(test);
    }

    #[test]
    fn a_round_has_its_bytes() {
        run(async {
            for (bytes, free) in [(ROUND_BYTES - 1, true), (ROUND_BYTES, false), (ROUND_BYTES + 1, false)] {
                count(bytes);
                let is_free = poll_fn(|cx| Poll::Ready(Turn::default().poll(cx).is_ready())).await;
                assert_eq!(is_free, free, "{bytes}");
                rest();
            }
        });
    }

    #[test]
    fn what_comes_meanwhile_goes_before_the_next_slice() {
        let order = Arc::new(Mutex::new(String::new()));
        run(async {
            let (asks, asked) = UnixStream::pair().unwrap();
            let (asks, told) = (Arc::new(asks), Arc::clone(&order));
            let small = tokio::spawn(async move {
                while asked.readable().await.is_ok() {
                    if asked.try_read(&mut [0]).is_ok_and(|n| n > 0) {
                        told.lock().unwrap().push('.');
                    }
                }
            });
            let large = ['a', 'b', 'c'].map(|name| {
                let (asks, told) = (Arc::clone(&asks), Arc::clone(&order));
                tokio::spawn(async move {
                    let mut turn = Turn::default();
                    for _ in 0..3 {
                        poll_fn(|cx| turn.poll(cx)).await;
                        count(ROUND_BYTES);
                        told.lock().unwrap().push(name);
                        asks.try_write(&[0]).unwrap();
                    }
                })
            });
            for download in large {
                download.await.unwrap();
            }
            yield_now().await;
            small.abort();
        });
        // the first was in line again before the others came
        assert_eq!(*order.lock().unwrap(), "a.a.b.c.a.b.c.b.c.");
    }

    #[test]
    fn who_goes_leaves_the_line_to_the_others() {
        run(async {
            count(ROUND_BYTES);
            let waits = |mut turn: Turn| tokio::spawn(async move { poll_fn(|cx| turn.poll(cx)).await });
            let (gone, stays) = (waits(Turn::default()), waits(Turn::default()));
            yield_now().await;
            gone.abort();
            stays.await.unwrap();
            LINE.with_borrow(|line| assert_eq!((line.first, line.waiting.len()), (2, 0)));
        });
    }
}

//! Codings made here: quickly for who asks first, and as well as it gets for all who come after.
//!
//! The good ones are made on one thread of the lowest priority, one after the other, so that making them takes only the time that
//! serving leaves. Each is made once and kept in the cache, with its file, for as long as that is.

use std::io::{self, Read, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rustix::process::setpriority_process;

use crate::http::coding::Coding;

/// Up to this size who asks first gets a quick coding, which takes some milliseconds; with a larger file nobody waits for one.
pub const QUICK_BYTES: u64 = 512 << 10;
/// Up to this size the best level is used; above it one that takes a fraction of the time.
const THOROUGH_BYTES: usize = 1 << 20;
/// About what making a quick coding takes: the file, the coding, and the tables of the coder.
pub const QUICK_WORK_BYTES: u64 = 2 * QUICK_BYTES + (8 << 20);

/// About what making the best coding of the largest file takes: the file, the coding, and the tables of the coder.
pub fn best_bytes(largest: u64) -> u64 {
    2 * largest + (128 << 20)
}

/// Codings that may wait to be made. What does not fit is asked for again by a later request.
const WAITING: usize = 1024;
/// The lowest priority that a thread can have.
const LOWEST: i32 = 19;
/// The window of zstd, as a power of two: what a browser has to be able to decode (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;
/// The largest window of Brotli without an extension.
const BROTLI_WINDOW_LOG: u32 = 22;

/// How much work goes into a coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Some milliseconds.
    Quick,
    /// As much as makes it smaller.
    Best,
}

/// Codes `bytes`; `None` if that does not make them smaller.
pub fn encode(coding: Coding, effort: Effort, bytes: &[u8]) -> Option<Vec<u8>> {
    let is_large = bytes.len() > THOROUGH_BYTES;
    let level = |quick: i32, large: i32, best: i32| match effort {
        Effort::Quick => quick,
        Effort::Best if is_large => large,
        Effort::Best => best,
    };
    let coded = match coding {
        Coding::Identity => return None,
        Coding::Gzip => gzip(bytes, level(4, 9, 9) as u32),
        Coding::Br => brotli(bytes, level(3, 9, 11) as u32),
        Coding::Zstd => zstd(bytes, level(3, 15, 19)),
    };
    // writing to memory does not fail
    coded.ok().filter(|coded| coded.len() < bytes.len())
}

fn gzip(bytes: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn brotli(bytes: &[u8], quality: u32) -> io::Result<Vec<u8>> {
    let mut coded = Vec::new();
    brotli::CompressorReader::new(bytes, 64 << 10, quality, BROTLI_WINDOW_LOG).read_to_end(&mut coded)?;
    Ok(coded)
}

fn zstd(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), level)?;
    encoder.window_log(ZSTD_WINDOW_LOG.min(window_log(bytes.len())))?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    encoder.include_contentsize(true)?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// The smallest window that all of it fits into.
fn window_log(bytes: usize) -> u32 {
    bytes.next_power_of_two().trailing_zeros().max(10)
}

/// A piece of work for the thread.
type Job = Box<dyn FnOnce() + Send>;

/// The thread that makes good codings.
#[derive(Debug)]
pub struct Compressor(SyncSender<Job>);

impl Compressor {
    /// Starts the thread; it ends with this value.
    ///
    /// # Errors
    ///
    /// No thread can be had.
    pub fn start() -> io::Result<Compressor> {
        let (sender, jobs) = sync_channel::<Job>(WAITING);
        thread::Builder::new().name("compressor".into()).spawn(move || {
            // of this thread alone, on Linux; if it is refused, the work is done all the same
            let _ = setpriority_process(None, LOWEST);
            for job in jobs {
                // a panic was told by its hook; it costs this one coding
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            }
        })?;
        Ok(Compressor(sender))
    }

    /// Has a piece of work done later, or drops it if too much waits already.
    pub fn later(&self, job: impl FnOnce() + Send + 'static) {
        // who asks later tries again
        let _ = self.0.try_send(Box::new(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(coded).read_to_end(&mut bytes),
            Coding::Br => brotli::Decompressor::new(coded, 4096).read_to_end(&mut bytes),
            Coding::Zstd => zstd::stream::read::Decoder::new(coded).unwrap().read_to_end(&mut bytes),
            Coding::Identity => unreachable!(),
        }
        .unwrap();
        bytes
    }

    const CODINGS: [Coding; 3] = [Coding::Gzip, Coding::Br, Coding::Zstd];

    #[test]
    fn what_is_coded_is_smaller_and_decodes_to_the_same() {
        let text: Vec<u8> = (0..40_000u32).flat_map(|i| format!("<p>{}</p>", i % 977).into_bytes()).collect();
        for coding in CODINGS {
            let [quick, best] = [Effort::Quick, Effort::Best].map(|effort| encode(coding, effort, &text[..90_000]).unwrap());
            assert!(best.len() < quick.len() && quick.len() < 45_000, "{coding:?}: {} {}", quick.len(), best.len());
            assert!(decoded(coding, &quick) == text[..90_000] && decoded(coding, &best) == text[..90_000], "{coding:?}");
        }
    }

    #[test]
    fn what_does_not_become_smaller_is_dropped() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(4096)
        .collect();
        for coding in CODINGS {
            assert_eq!(encode(coding, Effort::Best, &noise), None, "{coding:?}");
            assert_eq!(encode(coding, Effort::Best, b""), None, "{coding:?}");
        }
        assert_eq!(encode(Coding::Identity, Effort::Best, &noise), None);
    }

    #[test]
    fn windows_are_small_enough_for_browsers() {
        // a frame that needs no more than 8 MiB decodes with that bound
        let large = vec![b'a'; 9 << 20];
        let coded = encode(Coding::Zstd, Effort::Best, &large).unwrap();
        let mut decoder = zstd::stream::read::Decoder::new(&coded[..]).unwrap();
        decoder.window_log_max(23).unwrap();
        assert_eq!(io::copy(&mut decoder, &mut io::sink()).unwrap(), 9 << 20);
        assert_eq!((window_log(1), window_log(1024), window_log(1025)), (10, 10, 11));
    }
}

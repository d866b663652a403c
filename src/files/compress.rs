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

/// Bytes that the head of a Zstandard frame takes at most (RFC 8878 section 3.1.1).
pub const ZSTD_HEAD_BYTES: u64 = 18;

/// Whether a browser can decode a Zstandard frame that begins like this: its window is no larger than they have to allow (RFC 9659).
/// What is no such frame is left to who made it.
pub fn is_for_browsers(zstd: &[u8]) -> bool {
    zstd_window(zstd).is_none_or(|bytes| bytes <= 1 << ZSTD_WINDOW_LOG)
}

/// The window of a Zstandard frame, in bytes: that of its Window_Descriptor, or, of a single segment, the size of its content
/// (RFC 8878 section 3.1.1.1). `None` if it does not begin like one.
fn zstd_window(frame: &[u8]) -> Option<u64> {
    let [0x28, 0xB5, 0x2F, 0xFD, descriptor, rest @ ..] = frame else { return None };
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = 1 << (descriptor >> 6);
    let size = rest.get(dictionary_bytes..dictionary_bytes + size_bytes)?.iter().rfold(0, |size, byte| size << 8 | u64::from(*byte));
    // what fits into one byte is never told in two
    Some(if size_bytes == 2 { size + 256 } else { size })
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
        assert!(is_for_browsers(&coded) && zstd_window(&coded) == Some(8 << 20));
    }

    #[test]
    fn windows_are_read_from_the_head_of_a_frame() {
        const MIB: u64 = 1 << 20;
        let cases: [(&str, &[u8], Option<u64>); 16] = [
            ("the smallest window", &[0x00, 0x00], Some(1024)),
            ("an eighth more", &[0x00, 0x01], Some(1024 + 128)),
            ("8 MiB", &[0x00, 0x68], Some(8 * MIB)),
            ("an eighth more than 8 MiB", &[0x00, 0x69], Some(9 * MIB)),
            ("the largest window", &[0x00, 0xFF], Some((1 << 41) + 7 * (1 << 38))),
            ("a window, with a checksum, a dictionary and a size", &[0x87, 0x70, 1, 2, 3, 4, 5, 0, 0, 0], Some(16 * MIB)),
            ("a segment with a size in a byte", &[0x20, 0xFF], Some(255)),
            ("in two bytes", &[0x60, 0x00, 0x01], Some(512)),
            ("in four bytes", &[0xA0, 0x01, 0x00, 0x80, 0x00], Some(8 * MIB + 1)),
            ("in eight bytes", &[0xE0, 0, 0, 0, 0, 0, 0, 0, 0x80], Some(1 << 63)),
            ("behind a dictionary of a byte", &[0x21, 0xAA, 7], Some(7)),
            ("behind a dictionary of four bytes", &[0x23, 1, 2, 3, 4, 7], Some(7)),
            ("a size that is cut short", &[0xA0, 0x01, 0x00, 0x80], None),
            ("a window that is cut short", &[0x00], None),
            ("nothing but the magic number", &[], None),
            ("all of a head", &[0xE3, 1, 2, 3, 4, 0, 0, 0, 1, 0, 0, 0, 0], Some(16 * MIB)),
        ];
        for (name, head, expected) in cases {
            let frame = [&[0x28, 0xB5, 0x2F, 0xFD], head].concat();
            assert!(frame.len() as u64 <= ZSTD_HEAD_BYTES, "{name}");
            assert_eq!(zstd_window(&frame), expected, "{name}");
            assert_eq!(is_for_browsers(&frame), expected.is_none_or(|bytes| bytes <= 8 * MIB), "{name}");
        }
        for none in [&b""[..], b"text", b"\x28\xB5\x2F", b"\x50\x2A\x4D\x18\0\0\0\0"] {
            assert_eq!(zstd_window(none), None, "{none:?}");
        }
    }
}

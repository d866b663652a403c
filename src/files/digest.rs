//! Digests of files, for Repr-Digest. They read the whole file: for the blocking pool.

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::ready::Content;
use super::root;
use crate::http::body::OpenFile;
use crate::http::digest;

/// Bytes that are read and hashed in one piece.
const PIECE_BYTES: usize = 128 << 10;

/// The digest of a file; `None` if it was not in the state that its content is of all the while.
///
/// # Errors
///
/// It can not be read.
pub fn of(content: &Content) -> Result<Option<digest::Sha256>, Errno> {
    match content {
        Content::Mem(bytes) => Ok(Some(Sha256::digest(bytes).into())),
        Content::Open(file) => of_file(file),
    }
}

fn of_file(file: &OpenFile) -> Result<Option<digest::Sha256>, Errno> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let (mut at, len) = (0, file.state.0);
    while at < len {
        match rustix::io::pread(&file.fd, &mut piece[..], at) {
            Ok(0) => return Ok(None),
            Ok(n) => {
                hash.update(&piece[..n]);
                at += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    // the time of the last change would tell one that came between
    Ok(root::has_state(&file.fd, file.state).then(|| hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::root::stamp_of;
    use std::io::Write;

    fn file(len: usize) -> (std::fs::File, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (file, bytes)
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes() {
        for len in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7] {
            let (file, bytes) = file(len);
            let stamp = stamp_of(&file).unwrap();
            let in_memory = of(&Content::Mem(bytes.into())).unwrap();
            assert!(in_memory.is_some());
            assert_eq!(of(&Content::open(file.into(), &stamp)), Ok(in_memory), "{len}");
        }
    }

    #[test]
    fn a_file_that_has_changed_has_none() {
        for (what, before) in [("longer", 0), ("another time", 1)] {
            let (mut file, _) = file(10);
            let mut stamp = stamp_of(&file).unwrap();
            if before == 0 {
                file.write_all(b"more").unwrap();
            }
            stamp.modified.0 -= before;
            assert_eq!(of(&Content::open(file.into(), &stamp)), Ok(None), "{what}");
        }
    }
}

//! Digests of files, for Repr-Digest. They read the whole file: for the blocking pool.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::root::{self, Stamp};
use crate::http::digest;

/// Bytes that are read and hashed in one piece.
const PIECE_BYTES: usize = 128 << 10;

/// The digest of bytes.
pub fn of_bytes(bytes: &[u8]) -> digest::Sha256 {
    Sha256::digest(bytes).into()
}

/// The digest of an open file in the state that `stamp` tells; `None` if it was not in that state all the while.
///
/// # Errors
///
/// It can not be read.
pub fn of_file(file: &OwnedFd, stamp: &Stamp) -> Result<Option<digest::Sha256>, Errno> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    if root::stamp_of(file)? != *stamp {
        return Ok(None);
    }
    while at < stamp.len {
        match rustix::io::pread(file, &mut piece[..], at) {
            Ok(0) => return Ok(None),
            Ok(n) => {
                hash.update(&piece[..n]);
                at += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok((root::stamp_of(file)? == *stamp).then(|| hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
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
            let file = OwnedFd::from(file);
            let stamp = root::stamp_of(&file).unwrap();
            assert_eq!(of_file(&file, &stamp), Ok(Some(of_bytes(&bytes))), "{len}");
        }
    }

    #[test]
    fn a_file_that_has_changed_has_none() {
        let (mut file, _) = file(10);
        let stamp = root::stamp_of(&file).unwrap();
        let other = Stamp { modified: (stamp.modified.0 - 1, stamp.modified.1), ..stamp };
        file.write_all(b"more").unwrap();
        let file = OwnedFd::from(file);
        assert_eq!(of_file(&file, &stamp), Ok(None), "longer");
        assert_eq!(of_file(&file, &other), Ok(None), "another time");
    }
}

//! Digests of what is sent (RFC 9530): whether a client wants one, and how it is written.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::header::HeaderName;
use super::structured;

/// A SHA-256 digest.
pub type Sha256 = [u8; 32];

/// The digest of the whole representation, also where a part of it is sent.
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// With it, a client asks for one.
pub const WANT_REPR_DIGEST: &str = "want-repr-digest";

/// The one algorithm that is offered.
const NAME: &[u8] = b"sha-256";

/// Whether a client wants a digest by SHA-256: it lists the algorithm with a preference from 1 to 10 (RFC 9530 section 4). The values
/// of all fields are one dictionary. Of an algorithm that is listed twice the last counts.
pub fn is_wanted<'a>(values: impl Iterator<Item = &'a [u8]>) -> bool {
    let all = values.collect::<Vec<_>>().join(&b", "[..]);
    structured::integer(&all, NAME).is_some_and(|preference| (1..=10).contains(&preference))
}

/// The value of Repr-Digest: a byte sequence by the name of its algorithm (RFC 9530 section 3).
pub fn value(digest: &Sha256) -> String {
    format!("sha-256=:{}:", BASE64.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences() {
        // a bar stands between two fields
        let cases = [
            ("sha-256=1", true),
            ("sha-256=10", true),
            ("sha-512=3, sha-256=10, unixsum=0", true),
            ("sha-512=10,sha-256=1", true),
            ("\tsha-256=5 ", true),
            ("sha-256=5;x=1", true),
            ("sha-512=9|sha-256=1", true),
            ("sha-256=0, sha-256=3", true),
            ("sha-256=3, sha-256=0", false),
            ("sha-256=3|sha-256=0", false),
            ("sha-256=0", false),
            ("sha-512=10", false),
            ("sha-256", false),
            ("sha-256=", false),
            ("sha-256=11", false),
            ("sha-256=-1", false),
            ("sha-256=1.5", false),
            ("sha-256=?1", false),
            ("SHA-256=1", false),
            ("sha-2560=1", false),
            ("id-sha-256=1", false),
            ("x=\"a, sha-256=5\"", false),
            ("x=\"a, b\", sha-256=5", true),
            ("sha-256=05", true),
            ("sha-256=5,", false),
            ("sha-256=3, sha-256=11", false),
            ("sha-256=5|sha 512", false),
            ("", false),
        ];
        for (values, expected) in cases {
            assert_eq!(is_wanted(values.split('|').map(str::as_bytes)), expected, "{values}");
        }
        assert!(!is_wanted(std::iter::empty()));
    }

    #[test]
    fn the_digest_of_nothing() {
        let digest = [
            0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64,
            0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
        ];
        assert_eq!(value(&digest), "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
    }
}

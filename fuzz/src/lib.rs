//! What the fuzz targets share: bounds, the split of an input into control bytes and content, and the reference for paths.
//!
//! A reference is written to be compared with, not to be fast: it works on whole inputs and shares no code with the server.

use millpond::http::Bounds;

/// Bounds so narrow that short inputs reach them.
pub fn narrow_bounds() -> Bounds {
    Bounds {
        target_bytes: 24,
        head_bytes: 128,
        head_fields: 5,
        chunk_line_bytes: 8,
        trailer_bytes: 12,
        drain_bytes: 24,
        ..Bounds::default()
    }
}

/// The control bytes in front of an input: flags, and three places to cut the content at.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    flags: u8,
    cuts: [u16; 3],
}

impl Control {
    const BYTES: usize = 7;

    /// Takes the control bytes off.
    pub fn split(data: &[u8]) -> Option<(Control, &[u8])> {
        let (control, content) = data.split_at_checked(Control::BYTES)?;
        let cut = |i: usize| u16::from_le_bytes([control[i], control[i + 1]]);
        Some((Control { flags: control[0], cuts: [cut(1), cut(3), cut(5)] }, content))
    }

    pub fn flag(self, bit: u32) -> bool {
        self.flags & (1 << bit) != 0
    }

    /// One of the places, as a number.
    pub fn number(self) -> u64 {
        u64::from(self.cuts[2])
    }

    /// Bit 0 chooses the bounds.
    pub fn bounds(self) -> Bounds {
        if self.flag(0) { narrow_bounds() } else { Bounds::default() }
    }

    /// Where the pieces of a content of this length end. Bit 1 makes every byte a piece.
    pub fn ends(self, length: usize) -> Vec<usize> {
        if self.flag(1) {
            return (0..=length).collect();
        }
        let mut ends: Vec<usize> = self.cuts.iter().map(|&c| usize::from(c) % (length + 1)).chain([length]).collect();
        ends.sort_unstable();
        ends
    }
}

/// The segments of a path and whether a folder was asked for; `None` where the path has to be refused.
pub fn reference_path(raw: &[u8]) -> Option<(Vec<Vec<u8>>, bool)> {
    if raw.first() != Some(&b'/') {
        return None;
    }
    // decoded first, as a whole: an encoded slash must not survive, so no segment can change by that
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let byte = if raw[at] == b'%' {
            let digits = raw.get(at + 1..at + 3)?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            at += 3;
            let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            if byte == b'/' {
                return None;
            }
            byte
        } else {
            at += 1;
            raw[at - 1]
        };
        if byte == 0 || byte == b'\\' {
            return None;
        }
        decoded.push(byte);
    }
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let mut is_folder = false;
    for segment in decoded.split(|&b| b == b'/') {
        is_folder = true;
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()?),
            _ => {
                segments.push(segment.to_vec());
                is_folder = false;
            }
        }
    }
    Some((segments, is_folder))
}

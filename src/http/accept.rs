//! What a client says it accepts (RFC 9110 section 12.5).

/// Whether the client would rather have JSON than a page: it names a JSON type, with a higher quality than `text/html`. The values
/// of all Accept fields are one list.
pub fn prefers_json<'a>(accept: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut problem, mut json, mut html) = (Best::default(), Best::default(), Best::default());
    for element in accept.flat_map(|value| value.split(|&b| b == b',')) {
        problem.consider(element, "application/problem+json", false);
        json.consider(element, "application/json", false);
        html.consider(element, "text/html", true);
    }
    problem.quality.max(json.quality) > html.quality
}

/// Whether the client is a browser that shows pages: it names `text/html`, and no JSON type above it.
pub fn asks_for_page<'a>(accept: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut json, mut html) = (Best::default(), Best::default());
    for element in accept.flat_map(|value| value.split(|&b| b == b',')) {
        json.consider(element, "application/json", false);
        html.consider(element, "text/html", false);
    }
    html.quality > json.quality
}

/// The most specific media range so far that matches a type: it decides about the type's quality, in thousandths.
#[derive(Default)]
struct Best {
    specific: u8,
    quality: u16,
}

impl Best {
    fn consider(&mut self, element: &[u8], name: &str, wildcards: bool) {
        let (kind, _) = name.split_once('/').unwrap_or((name, ""));
        let mut parts = element.split(|&b| b == b';').map(<[u8]>::trim_ascii);
        let range = parts.next().unwrap_or_default();
        let specific = if range.eq_ignore_ascii_case(name.as_bytes()) {
            3
        } else if wildcards && range.strip_suffix(b"/*").is_some_and(|k| k.eq_ignore_ascii_case(kind.as_bytes())) {
            2
        } else if wildcards && range == b"*/*" {
            1
        } else {
            return;
        };
        if specific > self.specific {
            *self = Best { specific, quality: parts.find_map(weight).unwrap_or(1000) };
        }
    }
}

/// Reads a `q=` parameter, in thousandths (RFC 9110 section 12.4.2); one that is not of that form counts as 0.
fn weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, rest) = value.split_first().unwrap_or((&0, b""));
    let decimals = match rest {
        [] => rest,
        [b'.', decimals @ ..] if decimals.len() <= 3 && decimals.iter().all(u8::is_ascii_digit) => decimals,
        _ => return Some(0),
    };
    let thousandths = decimals.iter().chain(b"000").take(3).fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    Some(match whole {
        b'1' if thousandths == 0 => 1000,
        b'0' => thousandths,
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_to_be_preferred_by_name() {
        // a bar stands between two fields
        let cases = [
            ("application/json", true),
            ("application/problem+json", true),
            ("APPLICATION/JSON", true),
            ("application/json, text/html;q=0.9", true),
            ("application/json;q=0.5, text/*;q=0.4", true),
            ("text/html, application/json", false),
            ("text/html,application/xhtml+xml,*/*;q=0.8", false),
            ("*/*", false),
            ("application/*", false),
            ("application/json;q=0", false),
            ("application/json;q=7", false),
            ("text/html;q=0.1|application/json", true),
        ];
        for (accept, json) in cases {
            assert_eq!(prefers_json(accept.split('|').map(str::as_bytes)), json, "{accept}");
        }
        assert!(!prefers_json(std::iter::empty()));
    }
}

//! What a client says it accepts (RFC 9110 section 12.5).

use super::fields::split_unquoted;

/// Whether the client would rather have JSON than a page: it names a JSON type, with a higher quality than `text/html`. The values
/// of all Accept fields are one list.
pub fn prefers_json<'a>(accept: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut problem, mut json, mut html) = (Best::default(), Best::default(), Best::default());
    for element in accept.flat_map(|value| split_unquoted(value, b',')) {
        problem.consider(element, "application/problem+json", false);
        json.consider(element, "application/json", false);
        html.consider(element, "text/html", true);
    }
    problem.quality.max(json.quality) > html.quality
}

/// Whether the client is a browser that shows pages: it names `text/html`, and no JSON of the same or a higher
/// quality.
pub fn asks_for_page<'a>(accept: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut json, mut html) = (Best::default(), Best::default());
    for element in accept.flat_map(|value| split_unquoted(value, b',')) {
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
        let mut parts = split_unquoted(element, b';').map(<[u8]>::trim_ascii);
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
            *self = Best { specific, quality: parts.find(|part| is_weight(part)).map_or(HIGHEST, |part| weight(part).unwrap_or(0)) };
        }
    }
}

/// The weight of what is listed without one, in thousandths.
pub(super) const HIGHEST: u16 = 1000;

fn is_weight(parameter: &[u8]) -> bool {
    matches!(parameter, [b'q' | b'Q', b'=', ..])
}

/// Reads a weight, `q=0.5`, in thousandths (RFC 9110 section 12.4.2); `None` if it is not of that form.
pub(super) fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), rest @ ..] = parameter else { return None };
    let decimals = match rest {
        [] => rest,
        [b'.', decimals @ ..] if decimals.len() <= 3 && decimals.iter().all(u8::is_ascii_digit) => decimals,
        _ => return None,
    };
    let thousandths = decimals.iter().chain(b"000").take(3).fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    match whole {
        b'0' => Some(thousandths),
        _ => (thousandths == 0).then_some(HIGHEST),
    }
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
            ("text/html;level=\"1, application/json\"", false),
            ("text/html;q=0.1;x=\"a,b\", application/json", true),
            ("text/html;x=\"a;q=0.1\", application/json;q=0.5", false),
            ("text/x;x=\"\\\", application/json\"", false),
        ];
        for (accept, json) in cases {
            assert_eq!(prefers_json(accept.split('|').map(str::as_bytes)), json, "{accept}");
        }
        assert!(!prefers_json(std::iter::empty()));
    }

    #[test]
    fn weights() {
        let cases = [
            ("q=1", Some(1000)),
            ("Q=1.000", Some(1000)),
            ("q=0", Some(0)),
            ("q=0.", Some(0)),
            ("q=0.5", Some(500)),
            ("q=0.05", Some(50)),
            ("q=0.001", Some(1)),
            ("q=1.001", None),
            ("q=0.0001", None),
            ("q=2", None),
            ("q=-1", None),
            ("q=", None),
            ("q=.5", None),
            ("q=0,5", None),
            ("q = 1", None),
            ("level=9", None),
            ("", None),
        ];
        for (parameter, expected) in cases {
            assert_eq!(weight(parameter.as_bytes()), expected, "{parameter}");
        }
    }
}

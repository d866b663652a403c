//! Accept-Encoding: what is accepted, and what is liked best, is what a plain reference says.
//!
//! An input is the values of the fields, a line for each; an empty one is no field at all.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use millpond::http::coding::{Accepted, Coding};
use millpond::http::{accept, digest};

fuzz_target!(|data: &[u8]| {
    let values: Vec<&[u8]> = if data.is_empty() { Vec::new() } else { data.split(|&b| b == b'\n').collect() };
    let accepted = Accepted::read(values.iter().copied());
    let weights = reference(&values);
    for order in [Coding::ALL, Coding::SMALLEST_FIRST] {
        let best: Vec<Coding> = accepted.best(order).collect();
        // by weight, and those of one weight as they stand in the order
        let mut expected: Vec<Coding> = order.into_iter().filter(|coding| weights[coding] > 0).collect();
        for weight in (0..expected.len()).rev() {
            for i in 0..weight {
                if weights[&expected[i]] < weights[&expected[i + 1]] {
                    expected.swap(i, i + 1);
                }
            }
        }
        assert_eq!(best, expected, "{weights:?}");
        assert!(Coding::ALL.into_iter().all(|coding| accepted.allows(coding) == best.contains(&coding)));
    }
    // fields that are read much alike
    accept::prefers_json(values.iter().copied());
    accept::asks_for_page(values.iter().copied());
    digest::is_wanted(values.iter().copied());
});

/// RFC 9110 section 12.5.3, with everything listed first and looked up afterwards.
fn reference(values: &[&[u8]]) -> HashMap<Coding, u32> {
    let mut listed: HashMap<String, u32> = HashMap::new();
    for element in values.iter().flat_map(|value| value.split(|&b| b == b',')) {
        let element = String::from_utf8_lossy(element).into_owned();
        let mut parts = element.splitn(2, ';').map(|part| part.trim_matches([' ', '\t', '\n', '\x0C', '\r']).to_ascii_lowercase());
        let name = parts.next().expect("there is always a first part");
        let weight = match parts.next() {
            None => 1000,
            Some(parameter) => match thousandths(&parameter) {
                Some(weight) => weight,
                None => continue,
            },
        };
        let name = if name == "x-gzip" { "gzip".to_owned() } else { name };
        let lowest = listed.get(&name).map_or(weight, |before| weight.min(*before));
        listed.insert(name, lowest);
    }
    let others = listed.get("*").copied();
    let weight = |name: &str, unlisted: u32| listed.get(name).copied().or(others).unwrap_or(unlisted);
    if values.is_empty() {
        return HashMap::from([(Coding::Identity, 1000), (Coding::Gzip, 1), (Coding::Br, 1), (Coding::Zstd, 1)]);
    }
    HashMap::from([
        (Coding::Identity, weight("identity", 1)),
        (Coding::Gzip, weight("gzip", 0)),
        (Coding::Br, weight("br", 0)),
        (Coding::Zstd, weight("zstd", 0)),
    ])
}

/// `q=` and `0` with up to three decimals, or `1` with up to three zeros.
fn thousandths(parameter: &str) -> Option<u32> {
    let value = parameter.strip_prefix("q=")?;
    let is_shaped = (1..=5).contains(&value.len())
        && value.chars().enumerate().all(|(i, c)| match i {
            0 => c == '0' || c == '1',
            1 => c == '.',
            _ => c.is_ascii_digit(),
        });
    let number: f64 = if is_shaped { value.parse().ok()? } else { return None };
    (number <= 1.0).then_some((number * 1000.0).round() as u32)
}

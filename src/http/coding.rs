//! Content codings: which of them a client accepts, and which it likes best (RFC 9110 section 12.5.3).

use std::cmp::Reverse;

use super::accept::{HIGHEST, weight};

/// A content coding (RFC 9110 section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// As it is.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Coding {
    /// All of them.
    pub const ALL: [Coding; 4] = [Coding::Identity, Coding::Gzip, Coding::Br, Coding::Zstd];
    /// An order for bodies that are coded once, at a high level, and sent many times: the smallest first.
    pub const SMALLEST_FIRST: [Coding; 4] = [Coding::Br, Coding::Zstd, Coding::Gzip, Coding::Identity];
    /// An order for bodies that are coded anew for each answer, at a low level: the fastest first.
    pub const FASTEST_FIRST: [Coding; 4] = [Coding::Zstd, Coding::Gzip, Coding::Br, Coding::Identity];

    /// Its name in Content-Encoding.
    pub const fn name(self) -> &'static str {
        match self {
            Coding::Identity => "identity",
            Coding::Gzip => "gzip",
            Coding::Br => "br",
            Coding::Zstd => "zstd",
        }
    }

    /// The coding of a name; `x-gzip` is another one for gzip (RFC 9110 section 8.4.1.3).
    fn named(name: &[u8]) -> Option<Coding> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        Coding::ALL.into_iter().find(|coding| is(coding.name())).or_else(|| is("x-gzip").then_some(Coding::Gzip))
    }
}

/// What a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Thousandths for each coding, in the order of `Coding::ALL`; what has 0 is not accepted.
    weights: [u16; 4],
}

impl Accepted {
    /// What a client accepts that says nothing: anything, but it may not know what to do with a coding.
    const ANYTHING: Accepted = Accepted { weights: [HIGHEST, LOWEST, LOWEST, LOWEST] };

    /// Reads the values of all Accept-Encoding fields, which are one list. Elements that are not of the grammar are ignored.
    pub fn read<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Accepted {
        let Some(first) = values.next() else { return Accepted::ANYTHING };
        let second = values.next();
        if second.is_none()
            && let Some(accepted) = Accepted::common(first)
        {
            return accepted;
        }
        Accepted::parse([first].into_iter().chain(second).chain(values))
    }

    /// What browsers and programs send nearly always, without a look at each element.
    fn common(value: &[u8]) -> Option<Accepted> {
        match value {
            b"gzip, deflate, br, zstd" => Some(Accepted { weights: [LOWEST, HIGHEST, HIGHEST, HIGHEST] }),
            b"gzip, deflate, br" => Some(Accepted { weights: [LOWEST, HIGHEST, HIGHEST, 0] }),
            b"gzip, deflate" | b"gzip" => Some(Accepted { weights: [LOWEST, HIGHEST, 0, 0] }),
            b"identity" => Some(Accepted { weights: [HIGHEST, 0, 0, 0] }),
            _ => None,
        }
    }

    fn parse<'a>(values: impl Iterator<Item = &'a [u8]>) -> Accepted {
        let (mut weights, mut others) = ([None; 4], None);
        for element in values.flat_map(|value| value.split(|&b| b == b',')) {
            let Some((name, weight)) = named(element) else { continue };
            let listed = match Coding::named(name) {
                Some(coding) => &mut weights[coding as usize],
                None if name == b"*" => &mut others,
                None => continue,
            };
            // listed twice, the lower weight counts: what is refused once is not sent
            *listed = Some(listed.map_or(weight, |before: u16| before.min(weight)));
        }
        // what is not listed is not accepted, but for identity, which has to be refused by name or with all others
        let [identity, rest @ ..] = weights;
        let [gzip, br, zstd] = rest.map(|listed| listed.or(others).unwrap_or(0));
        Accepted { weights: [identity.or(others).unwrap_or(LOWEST), gzip, br, zstd] }
    }

    /// Whether a coding is accepted.
    pub fn allows(self, coding: Coding) -> bool {
        self.weights[coding as usize] > 0
    }

    /// The codings that are accepted, the one that the client likes best first; those that it likes equally are in the order that is
    /// given. A caller takes the first that it has; with none, the answer is 406.
    pub fn best(self, order: [Coding; 4]) -> impl Iterator<Item = Coding> {
        let mut codings = order;
        codings.sort_by_key(|&coding| Reverse(self.weights[coding as usize]));
        codings.into_iter().filter(move |&coding| self.allows(coding))
    }
}

/// Accepted, but after everything that was named.
const LOWEST: u16 = 1;

/// The name and the weight of an element: `gzip;q=0.5`.
fn named(element: &[u8]) -> Option<(&[u8], u16)> {
    match memchr::memchr(b';', element) {
        None => Some((element.trim_ascii(), HIGHEST)),
        Some(at) => Some((element[..at].trim_ascii(), weight(element[at + 1..].trim_ascii())?)),
    }
}

#[cfg(test)]
mod tests {
    use super::Coding::{Br, Gzip, Identity, Zstd};
    use super::*;
    use proptest::prelude::*;

    fn read(values: &[&str]) -> Accepted {
        Accepted::read(values.iter().map(|value| value.as_bytes()))
    }

    fn best(values: &[&str]) -> Vec<Coding> {
        read(values).best([Zstd, Br, Gzip, Identity]).collect()
    }

    #[test]
    fn codings_by_preference() {
        // a bar stands between two fields
        let cases: [(&str, &[Coding]); 38] = [
            ("gzip, deflate, br, zstd", &[Zstd, Br, Gzip, Identity]),
            ("gzip, deflate, br", &[Br, Gzip, Identity]),
            ("gzip, deflate", &[Gzip, Identity]),
            ("gzip", &[Gzip, Identity]),
            ("identity", &[Identity]),
            ("", &[Identity]),
            ("deflate", &[Identity]),
            ("compress, exi", &[Identity]),
            ("GZip", &[Gzip, Identity]),
            ("x-gzip", &[Gzip, Identity]),
            ("x-gzip;q=0, br", &[Br, Identity]),
            ("br;q=0.9, gzip", &[Gzip, Br, Identity]),
            ("gzip;q=0.001", &[Gzip, Identity]),
            ("zstd;q=0.5,br;q=0.7,gzip;q=0.6", &[Br, Gzip, Zstd, Identity]),
            ("gzip;q=0", &[Identity]),
            ("gzip;q=0.000, br;q=0.", &[Identity]),
            ("*", &[Zstd, Br, Gzip, Identity]),
            ("*;q=0.1", &[Zstd, Br, Gzip, Identity]),
            ("*, gzip;q=0", &[Zstd, Br, Identity]),
            ("gzip;q=0.2, *;q=0.8", &[Zstd, Br, Identity, Gzip]),
            ("gzip, *;q=0", &[Gzip]),
            ("*;q=0", &[]),
            ("identity;q=0", &[]),
            ("identity;q=0, *", &[Zstd, Br, Gzip]),
            ("identity, *;q=0", &[Identity]),
            ("identity;q=0.5, *;q=0", &[Identity]),
            ("gzip, identity;q=0", &[Gzip]),
            ("gzip;q=0.5, identity", &[Identity, Gzip]),
            ("gzip, identity", &[Gzip, Identity]),
            ("br, gzip, br;q=0", &[Gzip, Identity]),
            (" gzip ;\tq=0.5 , , br;Q=0.2", &[Gzip, Br, Identity]),
            ("gzip;q=2, br", &[Br, Identity]),
            ("gzip;q=x, br;level=9, zstd", &[Zstd, Identity]),
            ("identity;q=none, *;q=", &[Identity]),
            ("gzip br", &[Identity]),
            ("gzip|br", &[Br, Gzip, Identity]),
            ("gzip|gzip;q=0|identity;q=0", &[]),
            ("|", &[Identity]),
        ];
        for (values, expected) in cases {
            assert_eq!(best(&values.split('|').collect::<Vec<_>>()), expected, "{values:?}");
        }
    }

    #[test]
    fn who_says_nothing_gets_it_as_it_is_and_accepts_anything() {
        assert_eq!(best(&[]), [Identity, Zstd, Br, Gzip]);
    }

    #[test]
    fn common_values_mean_what_they_say() {
        for value in ["gzip, deflate, br, zstd", "gzip, deflate, br", "gzip, deflate", "gzip", "identity"] {
            let accepted = Accepted::common(value.as_bytes());
            assert_eq!(accepted, Some(Accepted::parse([value.as_bytes()].into_iter())), "{value}");
        }
    }

    #[test]
    fn equals_come_in_the_order_given() {
        let all = read(&["gzip, br, zstd, identity"]);
        for order in [Coding::SMALLEST_FIRST, [Zstd, Br, Gzip, Identity], Coding::ALL] {
            assert_eq!(all.best(order).collect::<Vec<_>>(), order);
        }
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_accepted(elements in prop::collection::vec(("gzip|x-gzip|br|zstd|identity|deflate|\\*", 0..=1000u16), 0..6)) {
            let value: Vec<_> = elements.iter().map(|(name, q)| format!("{name};q={}.{:03}", q / 1000, q % 1000)).collect();
            let chosen = best(&[&value.join(",")]);
            let weight = |wanted: &str| elements.iter().filter(|(name, _)| name.trim_start_matches("x-") == wanted).map(|(_, q)| *q).min();
            for coding in Coding::ALL {
                let default = if coding == Identity { LOWEST } else { 0 };
                let expected = weight(coding.name()).or(weight("*")).unwrap_or(default);
                prop_assert_eq!(chosen.contains(&coding), expected > 0, "{:?} in {:?}", coding, value);
            }
        }

        #[test]
        fn what_can_not_be_read_is_ignored(junk in "[a-z0-9;=. -]{0,20}") {
            prop_assume!(named(junk.as_bytes()).is_none_or(|(name, _)| Coding::named(name).is_none()));
            prop_assert_eq!(best(&["br;q=0.5", &junk, "gzip"]), [Gzip, Br, Identity]);
        }
    }
}

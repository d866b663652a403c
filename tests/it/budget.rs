//! The worst case that `--check` tells, and that it refuses what this machine can not hold.

use crate::harness::{Builder, Ran, Tree};

/// The numbers of the row that begins with these words.
fn row(ran: &Ran, words: &str) -> Vec<f64> {
    let line = ran.out.lines().find(|line| line.trim_start().starts_with(words)).unwrap_or_else(|| panic!("no {words:?}: {}", ran.out));
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn check(args: &[&str]) -> Ran {
    Builder::new(&[&["--check"], args].concat()).tree(Tree::site()).run()
}

/// A check by a process that may have so many descriptors and no more.
fn check_with(descriptors: usize, args: &[&str]) -> Ran {
    let limit = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
    Builder::new(&[&["--check"], args].concat()).through(&["sh", "-c", &limit]).tree(Tree::site()).run()
}

#[track_caller]
fn assert_refused(ran: &Ran, words: &[&str]) {
    assert_eq!((ran.code, ran.out.as_str(), ran.err.lines().count()), (Some(2), "", 1), "{ran:?}");
    for word in words {
        assert!(ran.err.contains(word), "{word:?} is not in {:?}", ran.err);
    }
}

#[test]
fn both_sums_are_told() {
    let ran = check(&["--connections", "1000", "--threads", "4", "--cache-size", "64MiB", "--queue", "200", "--uploads", "off"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.ends_with("millpond: everything is in order\n"), "{}", ran.out);
    assert_eq!(row(&ran, "files kept ready"), [1.0, 64.0, 64.0]);
    assert!(!ran.out.contains("their uploads"), "there are none: {}", ran.out);
    // the last number of each row is its own; the sum is that of the rows above
    let descriptors = ran.out.split_once("file descriptors, in the worst case:\n").unwrap().1;
    let rows: Vec<&str> = descriptors.lines().take_while(|line| !line.starts_with("  sum")).collect();
    let total: f64 = rows.iter().map(|line| line.split_whitespace().last().unwrap().parse::<f64>().unwrap()).sum();
    let sum = descriptors.lines().find(|line| line.starts_with("  sum")).unwrap();
    assert_eq!(sum.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap(), total, "{descriptors}");
}

#[test]
fn descriptors_at_the_bound() {
    let sum = |ran: &Ran| {
        let line = ran.out.lines().rfind(|line| line.starts_with("  sum")).unwrap_or_else(|| panic!("{ran:?}"));
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    let with = |connections: usize| check_with(1000, &["--threads", "2", "--connections", &connections.to_string()]);
    let others = sum(&with(100)) - 100;
    let most = 1000 - others;
    assert_eq!(sum(&with(most - 1)), 999);
    assert_eq!(sum(&with(most)), 1000);
    assert_refused(&with(most + 1), &["1001 file descriptors", "1000", "--connections"]);
    // the default always fits
    for descriptors in [100, 200, 400, 1000, 4000] {
        let ran = check_with(descriptors, &["--threads", "2", "--queue", "10"]);
        assert_eq!(ran.code, Some(0), "{descriptors}: {ran:?}");
        assert!(sum(&ran) <= descriptors, "{descriptors}: {ran:?}");
    }
}

#[test]
fn more_memory_than_there_is_is_refused() {
    let ran = check(&["--cache-size", "1000000GiB"]);
    assert_refused(&ran, &["memory", "--cache-size"]);
    let ran = check(&["--head-limit", "1GiB", "--connections", "1000"]);
    assert_refused(&ran, &["memory", "for connections"]);
    // to serve is not refused: the worst case may never come
    Builder::new(&["--head-limit", "1GiB", "--connections", "1000"]).start().assert_well("a worst case beyond the machine");
}

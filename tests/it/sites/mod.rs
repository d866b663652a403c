//! A folder served as a site: indexes, pages of apps, clean addresses, pages for errors, and the rules of the operator.

use std::time::{Duration, Instant};

use crate::client::{Client, Response};
use crate::harness::{Builder, Server, Tree};

mod clean_urls;
mod dotfiles;
mod error_pages;
mod index;
mod rules;
mod spa;
mod symlinks;

/// What a browser sends when somebody goes to an address.
pub const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n";
/// What programs and most of the parts of a page send.
pub const ANYTHING: &str = "Accept: */*\r\n";
pub const JSON: &str = "Accept: application/json\r\n";

/// How long an old answer may be given after a change: a second, and some room for a busy machine.
const STALE_MAX: Duration = Duration::from_secs(3);

pub fn serve(tree: Tree, args: &[&str]) -> Server {
    Builder::new(args).tree(tree).start()
}

/// A page that says which one it is.
pub fn page(name: &str) -> String {
    format!("<!doctype html><title>{name}</title>\n")
}

/// Asks until the answer is the one after a change.
#[track_caller]
pub fn poll(client: &mut Client, target: &str, what: &str, fresh: impl Fn(&Response) -> bool) -> Response {
    let begun = Instant::now();
    loop {
        let answer = client.get(target);
        if fresh(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < STALE_MAX, "{what}: still {} {:?}", answer.status, answer.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Exit code 2, and one line that names the flag and holds these words.
#[track_caller]
pub fn assert_mistake(args: &[&str], words: &[&str]) {
    let ran = Builder::new(args).tree(Tree::site()).run();
    assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
    assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{args:?}: {ran:?}");
    for word in words {
        assert!(ran.err.contains(word), "{args:?}: {word:?} is not in {:?}", ran.err);
    }
}

//! Changes of the disk: when they show, and that no answer mixes the states of a file.
//!
//! Classes of failure covered: a stale answer, a change that no notification tells of, trees that come at once, links that are switched,
//! a body with the tag or the length of another state, a cache that is smaller than the site, many who ask for one file at once.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, request};
use crate::codings::{decoded, text};
use crate::harness::{Builder, Server, Tree, assert_same_bytes, noise, pause};

/// How long an old answer may be given after a change: a second, and some room for a busy machine.
const STALE_MAX: Duration = Duration::from_secs(3);
/// A second is what it takes without notification. So a change that shows within this time was told of.
const TOLD: Duration = Duration::from_millis(400);

/// Asks until this is the answer, a status or a text; how long that took.
#[track_caller]
fn await_answer(client: &mut Client, target: &str, wanted: &str, what: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let answer = client.get(target);
        let got = if answer.status == 200 { answer.text() } else { answer.status.to_string() };
        if got == wanted {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < STALE_MAX, "{what}: {target} is still {:?}, not {wanted:?}", &got[..got.len().min(100)]);
        pause(2);
    }
}

/// Runs a program in a folder; `false` if there is none of that name.
fn run(folder: &Path, program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) => {
            assert!(status.success(), "{program} {args:?}: {status}");
            true
        }
        Err(_) => {
            eprintln!("SKIPPED: no {program}");
            false
        }
    }
}

/// With notification, a change shows long before an entry is looked at again by itself. The machine may be busy, so the best of several
/// counts; and each is made right after a look, when an entry would be believed for a second more.
#[test]
fn changes_show_at_once_where_they_are_told() {
    let tree = Tree::empty();
    tree.write("a/b/page.txt", "0");
    tree.write("a/b/big.txt", vec![b'0'; 100_000]);
    tree.write("a/old.txt", "0");
    let server = Server::serving(tree);
    let tree = server.tree();
    let mut client = server.connect();
    let mut best = [Duration::MAX; 5];
    for round in 1..=6 {
        let text = round.to_string();
        for target in ["/a/b/page.txt", "/a/b/big.txt", "/a/new.txt", "/a/old.txt"] {
            client.get(target);
        }
        pause(20);
        let mut see = |kind: usize, target: &str, wanted: &str| {
            best[kind] = best[kind].min(await_answer(&mut client, target, wanted, "told"));
        };
        tree.write("a/b/page.txt", &text);
        see(0, "/a/b/page.txt", &text);
        tree.replace("a/b/page.txt", format!("{text}, replaced"));
        see(1, "/a/b/page.txt", &format!("{text}, replaced"));
        tree.replace("a/b/big.txt", text.repeat(100_000));
        see(2, "/a/b/big.txt", &text.repeat(100_000));
        tree.write("a/new.txt", &text);
        see(3, "/a/new.txt", &text);
        fs::remove_file(tree.path("a/new.txt")).unwrap();
        see(4, "/a/new.txt", "404");
    }
    assert!(best.iter().all(|time| *time < TOLD), "{best:?}");
}

#[test]
fn writers_through_a_mapping_are_seen() {
    const WRITE: &str = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm[0:3]=sys.argv[2].encode()\nm.flush()\n";
    let tree = Tree::empty();
    tree.write("small.txt", "old and the rest");
    tree.write("big.txt", format!("old{}", "x".repeat(100_000)));
    let server = Server::serving(tree);
    let mut client = server.connect();
    for (name, rest) in [("small.txt", " and the rest".to_owned()), ("big.txt", "x".repeat(100_000))] {
        let target = format!("/{name}");
        await_answer(&mut client, &target, &format!("old{rest}"), "before");
        for new in ["one", "two"] {
            if !run(&server.tree().root(), "python3", &["-c", WRITE, name, new]) {
                return;
            }
            await_answer(&mut client, &target, &format!("{new}{rest}"), "written through a mapping");
        }
    }
}

/// Nothing tells the folder of a file that it was written to by another name.
#[test]
fn writers_through_another_name_are_seen() {
    let tree = Tree::empty();
    for (name, text) in [("small.txt", "old".to_owned()), ("big.txt", "old".repeat(50_000))] {
        tree.write(name, text);
        fs::hard_link(tree.path(name), tree.outside(name)).unwrap();
    }
    let server = Server::serving(tree);
    let mut client = server.connect();
    for (name, times) in [("small.txt", 1), ("big.txt", 50_000)] {
        let target = format!("/{name}");
        await_answer(&mut client, &target, &"old".repeat(times), "before");
        fs::write(server.tree().outside(name), "new".repeat(times)).unwrap();
        await_answer(&mut client, &target, &"new".repeat(times), "written by another name");
        fs::write(server.tree().outside(name), "and".repeat(times)).unwrap();
        await_answer(&mut client, &target, &"and".repeat(times), "written by another name again");
    }
}

/// More changes than the kernel keeps in its queue: what was lost is found by looking.
#[test]
fn lost_news_is_found_by_looking() {
    let tree = Tree::empty();
    tree.write("page.txt", "old");
    tree.write("other/page.txt", "old");
    let server = Server::serving(tree);
    let tree = server.tree();
    let mut client = server.connect();
    for target in ["/page.txt", "/other/page.txt"] {
        await_answer(&mut client, target, "old", "before");
    }
    let queue: u64 = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").map_or(16_384, |text| text.trim().parse().unwrap());
    server.signal(rustix::process::Signal::STOP);
    // two events for each, and no two that follow one another are the same
    for number in 0..queue.min(40_000) {
        let name = tree.path(format!("n{}", number % 50));
        fs::File::create(name).unwrap().write_all(b"x").unwrap();
    }
    tree.write("page.txt", "new");
    tree.replace("other/page.txt", "new");
    server.signal(rustix::process::Signal::CONT);
    for target in ["/page.txt", "/other/page.txt"] {
        await_answer(&mut client, target, "new", "after a flood");
    }
}

#[test]
fn folders_that_have_just_been_made() {
    let server = Server::serving(Tree::empty());
    let tree = server.tree();
    let mut client = server.connect();
    for round in 0..10 {
        let deep = format!("d{round}/e/f/page.txt");
        let target = format!("/{deep}");
        await_answer(&mut client, &target, "404", "before");
        tree.write(&deep, "one");
        await_answer(&mut client, &target, "one", "made a moment ago");
        tree.write(&deep, "two");
        await_answer(&mut client, &target, "two", "changed right after");
        fs::remove_dir_all(tree.path(format!("d{round}"))).unwrap();
        await_answer(&mut client, &target, "404", "gone");
        tree.write(&deep, "three");
        await_answer(&mut client, &target, "three", "made again");
        tree.write(&deep, "four");
        await_answer(&mut client, &target, "four", "changed after it was made again");
    }
}

/// A version of a small site below a folder.
fn version(folder: &Path, name: &str) {
    for path in ["index.html", "a/page.txt", "a/b/c/deep.txt"] {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
}

#[track_caller]
fn await_version(client: &mut Client, below: &str, wanted: &str, what: &str) {
    for path in ["/", "/a/page.txt", "/a/b/c/deep.txt"] {
        await_answer(client, &format!("{below}{path}"), wanted, what);
    }
}

#[test]
fn trees_that_come_by_tar_and_cp() {
    let server = Server::serving(Tree::empty());
    let tree = server.tree();
    let mut client = server.connect();
    await_version(&mut client, "", "404", "before");
    for name in ["one", "two", "three"] {
        let folder = tree.outside(name);
        version(&folder, name);
        let archive = tree.outside("archive.tar");
        let archive = archive.to_str().unwrap();
        // tar gives files the time that they had, so that what is new looks old
        if run(&folder, "tar", &["--mtime=2020-01-01", "-cf", archive, "."]) {
            run(&tree.root(), "tar", &["-xf", archive]);
            await_version(&mut client, "", name, "unpacked");
        }
        version(&folder, &format!("{name} again"));
        run(&folder, "cp", &["-r", ".", tree.root().to_str().unwrap()]);
        await_version(&mut client, "", &format!("{name} again"), "copied over");
        run(&folder, "cp", &["-a", ".", tree.path(name).to_str().unwrap()]);
        await_version(&mut client, &format!("/{name}"), &format!("{name} again"), "copied into a new folder");
    }
}

#[test]
fn trees_that_git_switches() {
    let server = Server::serving(Tree::empty());
    let root = server.tree().root();
    let git = |args: &[&str]| {
        let mut all =
            vec!["-c", "user.name=t", "-c", "user.email=t@pond.test", "-c", "init.defaultBranch=one", "-c", "core.hooksPath=/dev/null"];
        all.extend(args);
        run(&root, "git", &all)
    };
    if !git(&["init", "-q"]) {
        return;
    }
    version(&root, "one");
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "one"]);
    git(&["checkout", "-q", "-b", "two"]);
    version(&root, "two");
    fs::write(root.join("a/only.txt"), "two").unwrap();
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "two"]);
    let mut client = server.connect();
    for _ in 0..4 {
        for (name, only) in [("one", "404"), ("two", "two")] {
            git(&["checkout", "-q", name]);
            await_version(&mut client, "", name, "checked out");
            await_answer(&mut client, "/a/only.txt", only, "checked out");
        }
    }
}

#[test]
fn folders_that_are_renamed() {
    let tree = Tree::empty();
    version(&tree.path("v1"), "one");
    version(&tree.path("v2"), "two");
    fs::create_dir(tree.path("in")).unwrap();
    let server = Server::serving(tree);
    let tree = server.tree();
    let mut client = server.connect();
    let rename = |from: &str, to: &str| fs::rename(tree.path(from), tree.path(to)).unwrap();
    await_version(&mut client, "/live", "404", "before");
    for round in 0..4 {
        for (from, name) in [("v1", "one"), ("v2", "two")] {
            rename(from, "live");
            await_version(&mut client, "/live", name, &format!("renamed, round {round}"));
            await_answer(&mut client, &format!("/{from}/a/page.txt"), "404", "under its old name");
            rename("live/a", "live/x");
            await_answer(&mut client, "/live/a/b/c/deep.txt", "404", "a folder within");
            await_answer(&mut client, "/live/x/b/c/deep.txt", name, "a folder within");
            // a change in a folder that has moved, twice
            tree.write("live/x/b/c/deep.txt", "changed");
            await_answer(&mut client, "/live/x/b/c/deep.txt", "changed", "within what was renamed");
            tree.write("live/x/b/c/deep.txt", name);
            rename("live/x", "live/a");
            rename("live", "in/live");
            await_version(&mut client, "/in/live", name, "moved into a folder");
            await_answer(&mut client, "/live/a/page.txt", "404", "moved away");
            rename("in/live", from);
        }
    }
}

#[test]
fn a_link_that_is_switched() {
    let tree = Tree::empty();
    version(&tree.path("v1"), "one");
    version(&tree.path("v2"), "two");
    tree.write("page1.txt", "one");
    tree.write("page2.txt", "two");
    tree.symlink("v1", "current");
    tree.symlink("page1.txt", "page.txt");
    fs::create_dir(tree.path("releases")).unwrap();
    tree.symlink("../v1", "releases/live");
    tree.symlink("releases/live", "twice");
    let server = Server::serving(tree);
    let tree = server.tree();
    let mut client = server.connect();
    let all = |client: &mut Client, name: &str, what: &str| {
        await_version(client, "/current", name, what);
        await_version(client, "/twice", name, what);
        await_answer(client, "/page.txt", name, what);
    };
    all(&mut client, "one", "before");
    for round in 0..4 {
        for (number, name) in [("2", "two"), ("1", "one")] {
            for (link, target) in
                [("current", format!("v{number}")), ("releases/live", format!("../v{number}")), ("page.txt", format!("page{number}.txt"))]
            {
                if round % 2 == 0 {
                    tree.symlink(target, "new");
                    fs::rename(tree.path("new"), tree.path(link)).unwrap();
                } else {
                    fs::remove_file(tree.path(link)).unwrap();
                    tree.symlink(target, link);
                }
            }
            all(&mut client, name, &format!("switched, round {round}"));
            // what it leads to now is watched or looked at too
            version(&tree.path(format!("v{number}")), "changed");
            await_version(&mut client, "/current", "changed", "behind the link");
            version(&tree.path(format!("v{number}")), name);
            await_version(&mut client, "/current", name, "behind the link");
        }
    }
}

/// Requests for folders that are not there do not use up what can be watched.
#[test]
fn folders_that_are_not_there_cost_no_watch() {
    let tree = Tree::empty();
    tree.write("late/page.txt", "0");
    let server = Builder::new(&["--threads", "1"]).tree(tree).start();
    let mut client = server.connect();
    for batch in 0..180 {
        let requests: String = (0..100).map(|number| request("GET", &format!("/none-{batch}-{number}/x"), "")).collect();
        client.send(requests);
        for _ in 0..100 {
            assert_eq!(client.answer().status, 404);
        }
    }
    let best = (1..=6).map(|round| {
        client.get("/late/page.txt");
        pause(20);
        server.tree().write("late/page.txt", round.to_string());
        await_answer(&mut client, "/late/page.txt", &round.to_string(), "after many misses")
    });
    let best = best.min().unwrap();
    assert!(best < TOLD, "{best:?}");
}

/// How long the loads below go on: long enough for some thousand changes, and short enough for a test that is run often.
const LOAD: Duration = Duration::from_secs(10);

/// A state of a file: its number, and bytes that follow from it.
fn state(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = text(number, length);
    bytes[..9].copy_from_slice(format!("{number:08}\n").as_bytes());
    bytes
}

/// Two states are renamed into one place in a loop while several clients ask: every body is whole, of one state, with its tag and length.
#[test]
fn every_body_is_whole_while_files_are_replaced() {
    for (what, lengths) in [("small", [2_000, 3_001]), ("one slice", [150_000, 200_001]), ("many slices", [3_000_000, 2_000_001])] {
        let tree = Tree::empty();
        let states = [0, 1].map(|number| state(number, lengths[number as usize]));
        tree.write("page.txt", &states[0]);
        let server = Server::serving(tree);
        let (until, replaced) = (Instant::now() + LOAD, AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while Instant::now() < until {
                    let number = replaced.fetch_add(1, Ordering::Relaxed) + 1;
                    server.tree().replace("page.txt", &states[number as usize % 2]);
                    thread::sleep(Duration::from_micros(500 * (number % 9)));
                }
            });
            for accept in ["identity", "identity", "br", "gzip, zstd"] {
                let (server, states) = (&server, &states);
                scope.spawn(move || {
                    let mut client = server.connect();
                    let mut known: HashMap<String, Vec<u8>> = HashMap::new();
                    let mut seen = [0; 2];
                    while Instant::now() < until {
                        let answer = client.get_with("/page.txt", &format!("Accept-Encoding: {accept}\r\n"));
                        let name = format!("{what} with {accept}");
                        assert_eq!((answer.status, answer.length()), (200, answer.body.len() as u64), "{name}");
                        let body = decoded(answer.field("content-encoding"), &answer.body);
                        let number = usize::from(body[7] - b'0');
                        assert_same_bytes(&body, &states[number], &name);
                        seen[number] += 1;
                        let etag = answer.need("etag").to_owned();
                        let before = known.entry(etag.clone()).or_insert_with(|| answer.body.clone());
                        assert_same_bytes(&answer.body, before, &format!("{name}: two bodies with the tag {etag}"));
                        if known.len() > 100 {
                            known.clear();
                        }
                    }
                    assert!(seen.iter().all(|times| *times > 2), "{what} with {accept}: {seen:?}");
                });
            }
        });
        assert!(replaced.into_inner() > 50, "{what}");
    }
}

/// Edited in place, a file may be caught half written, for that is what is on the disk then; but a tag never stands for two sequences of
/// bytes, and nothing is padded.
#[test]
fn files_edited_in_place() {
    for length in [3_000, 150_000] {
        let tree = Tree::empty();
        tree.write("page.bin", noise(0, length));
        let server = Server::serving(tree);
        let until = Instant::now() + LOAD / 2;
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1_u64.. {
                    if Instant::now() > until {
                        break;
                    }
                    server.tree().write("page.bin", noise(number % 5, length));
                    pause(number % 40);
                }
                ended.store(true, Ordering::Relaxed);
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut whole = 0;
                    let mut client = server.connect();
                    while !ended.load(Ordering::Relaxed) {
                        client.send_get("/page.bin");
                        match client.try_answer(false) {
                            Ok(answer) => {
                                let fits = (0..5).any(|number| answer.body == noise(number, length));
                                // a part of a file is one state of it too
                                let is_part = (0..5).any(|number| noise(number, length).starts_with(&answer.body));
                                assert!(fits || is_part, "{length}: {} bytes that were never there", answer.body.len());
                                whole += usize::from(fits);
                            }
                            // it changed while it was sent
                            Err(_) => client = server.connect(),
                        }
                    }
                    assert!(whole > 5, "{length}: {whole} whole bodies");
                });
            }
        });
        let mut client = server.connect();
        let begun = Instant::now();
        while !(0..5).any(|number| client.get("/page.bin").body == noise(number, length)) {
            assert!(begun.elapsed() < STALE_MAX);
        }
    }
}

/// A file that changes faster than it can be looked at is answered with what was seen last: nobody waits for it to rest.
#[test]
fn a_file_that_changes_all_the_time_is_answered() {
    const ASKED: usize = 20;
    let tree = Tree::empty();
    tree.write("log.bin", noise(1, 2 << 20));
    let path = tree.path("log.bin");
    let server = Server::serving(tree);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for mode in [0o644, 0o640] {
            let (path, ended) = (&path, &ended);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
                }
            });
        }
        let begun = Instant::now();
        let mut client = server.connect();
        let answers: Vec<u16> = (0..ASKED).map(|_| client.head("/log.bin").status).collect();
        let took = begun.elapsed();
        ended.store(true, Ordering::Relaxed);
        assert_eq!(answers, [200; ASKED]);
        assert!(took < STALE_MAX, "{took:?}");
    });
    server.stop().assert_clean();
}

/// The kernel notes the time of a write before its bytes are there: whoever has got a mixture of both states is not told later that it is
/// what the file holds.
#[test]
fn a_mixture_of_two_states_is_never_confirmed() {
    // whether a request meets a write is up to the scheduler
    let caught = (0..5).map(|_| catch_mixtures()).find(|(_, mixed)| !mixed.is_empty());
    let (server, mixed) = caught.expect("nothing was caught in the middle of a write, so this has shown nothing");
    pause(2200);
    for (name, etag) in mixed {
        let answer = server.ask(request("GET", &name, &format!("If-None-Match: {etag}\r\n")));
        assert_eq!(answer.status, 200, "{name}: a mixture was confirmed as {etag}");
        assert!(answer.body == fs::read(server.tree().path(&name[1..])).unwrap());
    }
}

/// Asks for files while they are overwritten; returns the mixtures that this has caught, by the path and the tag.
fn catch_mixtures() -> (Server, Vec<(String, String)>) {
    const FILES: usize = 100;
    let tree = Tree::empty();
    let length = 900_000;
    let name = |number: usize| format!("{number}.txt");
    let (before, after) = (vec![b'a'; length], vec![b'b'; length]);
    for number in 0..FILES {
        tree.write(name(number), &before);
    }
    // what has rested is not looked at twice
    pause(1100);
    let server = Server::serving(tree);
    let (current, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mixed = thread::scope(|scope| {
        let asks = || {
            let (mut client, mut mixed) = (server.connect(), Vec::new());
            while !ended.load(Ordering::Relaxed) {
                let path = format!("/{}", name(current.load(Ordering::Relaxed)));
                client.send_get(&path);
                match client.try_answer(false) {
                    Ok(answer) if answer.body.iter().any(|&byte| byte != answer.body[0]) => {
                        mixed.push((path, answer.field("etag").unwrap().to_owned()));
                    }
                    Ok(_) => {}
                    // it changed while it was sent
                    Err(_) => client = server.connect(),
                }
            }
            mixed
        };
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(asks)).collect();
        for number in 0..FILES {
            current.store(number, Ordering::Relaxed);
            pause(2 + number as u64 % 5);
            let file = fs::OpenOptions::new().write(true).open(server.tree().path(name(number))).unwrap();
            file.write_all_at(&after, 0).unwrap();
            pause(4);
        }
        ended.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    (server, mixed)
}

/// What was told of a file that has just been written stays so, as long as its bytes do.
#[test]
fn the_tag_of_a_new_file_stays_as_long_as_its_bytes() {
    let tree = Tree::empty();
    let server = Server::serving(tree);
    for (name, length) in [("small.bin", 3_000), ("page.txt", 3_000), ("large.bin", 200_000), ("large.txt", 200_000)] {
        server.tree().write(name, noise(0, length));
        let path = format!("/{name}");
        let first = server.get(&path);
        let etag = first.field("etag").unwrap();
        for rest in [0, 300, 1100, 1100] {
            pause(rest);
            // something else happens in the folder
            server.tree().write("other", "");
            let again = server.ask(request("GET", &path, &format!("If-None-Match: {etag}\r\n")));
            assert_eq!((again.status, again.field("etag")), (304, Some(etag)), "{name}, {rest} ms later");
        }
    }
}

/// The bytes of the file of a number: some hundred, and some larger than what is kept in memory.
fn numbered(number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(100) { 50_000 } else { 100 + (number % 400) as usize };
    noise(number, length)
}

#[test]
fn fifty_thousand_files_and_a_small_cache() {
    const FILES: u64 = 50_000;
    let tree = Tree::empty();
    for folder in 0..50 {
        fs::create_dir(tree.path(format!("{folder}"))).unwrap();
    }
    let name = |number: u64| format!("{}/{number}.bin", number % 50);
    for number in 0..FILES {
        fs::write(tree.path(name(number)), numbered(number)).unwrap();
    }
    let server = Builder::new(&["--cache-size", "4MiB"]).tree(tree).start();
    let before = (server.descriptors(), server.memory());
    thread::scope(|scope| {
        for part in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.connect();
                // one after the other, and then some of them again and again
                let order = (0..FILES / 4).map(|at| at * 4 + part).chain((0..3_000).map(|at| at * at % 997 * 50 % FILES));
                for numbers in order.collect::<Vec<_>>().chunks(50) {
                    client.send(numbers.iter().map(|at| request("GET", &format!("/{}", name(*at)), "")).collect::<String>());
                    for number in numbers {
                        assert_same_bytes(&client.answer().body, &numbered(*number), &name(*number));
                    }
                }
            });
        }
    });
    let after = (server.descriptors(), server.memory());
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid().as_raw_nonzero())).unwrap();
    let files = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).filter(|target| target.to_string_lossy().ends_with(".bin"));
    let files = files.count();
    assert!(files < 600, "{files} files are open; {before:?} before, {after:?} after");
    assert!(after.1 < before.1 + (48 << 20), "{} KiB before, {} KiB after", before.1 >> 10, after.1 >> 10);
    // and they still follow the disk
    let mut client = server.connect();
    for number in (0..FILES).step_by(997) {
        server.tree().write(name(number), format!("changed {number}"));
        await_answer(&mut client, &format!("/{}", name(number)), &format!("changed {number}"), "one of many");
    }
}

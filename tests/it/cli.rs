//! The command line and the environment: what starts, what is refused in one line, and what the start says.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;

use rustix::net::sockopt::tcp_congestion;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::client::Client;
use crate::harness::{Builder, HELLO, Ran, Server, Tree, set_mode, without_privilege};

/// Exit code 2 and one line that holds these words.
#[track_caller]
fn assert_mistake(ran: &Ran, words: &[&str], name: &str) {
    assert_eq!(ran.code, Some(2), "{name}: {ran:?}");
    assert_eq!(ran.out, "", "{name}: nothing on standard output");
    assert!(ran.err.starts_with("millpond: "), "{name}: {:?}", ran.err);
    assert!(ran.err.ends_with('\n') && ran.err.lines().count() == 1, "{name}: one line: {:?}", ran.err);
    for word in words {
        assert!(ran.err.contains(word), "{name}: {word:?} is not in {:?}", ran.err);
    }
}

/// A command line, with a root that is in order.
fn run(args: &[&str]) -> Ran {
    let tree = Tree::site();
    Builder::new(args).tree(tree).run()
}

#[test]
fn bad_values_are_refused_in_one_line() {
    let rows: &[&[&str]] = &[
        &["--port", "70000"],
        &["--port", "-1"],
        &["--port", "http"],
        &["--port", ""],
        &["--threads", "0"],
        &["--threads", "-1"],
        &["--threads", "many"],
        &["--threads", "1.5"],
        &["--queue", "0"],
        &["--queue", "-5"],
        &["--queue", "x"],
        &["--connections", "0"],
        &["--connections", "x"],
        &["--host", "not a host"],
        &["--host", ""],
        &["--host", "300.1.1.1.1.1"],
        &["--host", "[::1"],
        &["--head-timeout", "soon"],
        &["--head-timeout", "-1s"],
        &["--head-timeout", "0s"],
        &["--head-timeout", "10 parsecs"],
        &["--head-timeout", ""],
        &["--head-timeout", "99999999999999999999s"],
        &["--head-timeout", "18446744073709551615h"],
        &["--idle-timeout", "x"],
        &["--body-rate", "fast"],
        &["--body-rate", "-1KiB"],
        &["--body-window", "x"],
        &["--write-timeout", "x"],
        &["--linger-timeout", "x"],
        &["--shutdown-grace", "x"],
        &["--target-limit", "x"],
        &["--target-limit", "8XiB"],
        &["--head-limit", "32QiB"],
        &["--head-limit", "99999999999999999999"],
        &["--head-limit", "18446744073709551615GiB"],
        &["--head-limit", "-5"],
        &["--field-limit", "x"],
        &["--chunk-line-limit", "x"],
        &["--trailer-limit", "x"],
        &["--drain-limit", "x"],
        &["--cache-size", "much"],
        &["--blocking-threads", "0"],
        &["--blocking-threads", "x"],
        &["--immutable", "perhaps"],
        &["--sandbox", "perhaps"],
        &["--connections-per-ip", "0"],
        &["--rate-limit", "0/s"],
        &["--rate-limit", "100"],
        &["--rate-limit", "100/s:0"],
        &["--trusted-proxy", "localhost"],
        &["--allow-host", "a b"],
        &["--allow-host", "pond.example:8080"],
        &["--compress-min", "2", "--compress-max", "1"],
        &["--uploads", "off", "--uploads-write-only"],
        &["--host", "0.0.0.0", "--uploads-write-only"],
        &["--trusted-proxy", "10.0.0.0/33"],
        &["--sandbox", ""],
        &["--access-log", "/nowhere/at/all/access.log"],
        &["--access-log", "/"],
        &["--access-log", ""],
    ];
    for args in rows {
        assert_mistake(&run(args), &[], &format!("{args:?}"));
    }
}

#[test]
fn a_congestion_control_that_is_not_there_is_refused() {
    for check in [&[][..], &["--check"]] {
        let ran = run(&[&["--congestion-control", "nonesuch"], check].concat());
        assert_mistake(&ran, &["--congestion-control", "nonesuch", "reno"], &format!("{check:?}"));
    }
}

/// What the kernel uses for a connection is asked of the server's own end of it.
#[test]
fn connections_have_the_congestion_control_that_is_named() {
    let of_the_system = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    let of_the_system = of_the_system.trim();
    for (args, expected) in [(&[][..], "reno"), (&["--congestion-control", of_the_system], of_the_system)] {
        let server = Server::start(args);
        let mut client = server.connect();
        assert_eq!(client.get("/hello.txt").text(), HELLO);
        let local = client.stream().local_addr().unwrap();
        let process = pidfd_open(server.pid(), PidfdFlags::empty()).unwrap();
        let fds = std::fs::read_dir(format!("/proc/{}/fd", server.pid().as_raw_nonzero())).unwrap();
        let numbers = fds.filter_map(|fd| fd.unwrap().file_name().to_str()?.parse().ok());
        let sockets = numbers.filter_map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok());
        let accepted = sockets.map(TcpStream::from).find(|socket| socket.peer_addr().is_ok_and(|peer| peer == local));
        assert_eq!(tcp_congestion(accepted.unwrap()), Ok(expected.to_owned()), "{args:?}");
    }
}

#[test]
fn names_and_addresses_may_be_allowed() {
    for name in ["pond.example", "192.0.2.1", "2001:db8::1"] {
        let ran = run(&["--allow-host", name, "--check"]);
        assert_eq!(ran.code, Some(0), "{name}: {ran:?}");
    }
}

#[test]
fn bad_usage_is_refused() {
    let rows: &[&[&str]] =
        &[&["--frobnicate"], &["-x"], &["--port"], &["one-more-root"], &["--port", "1", "--port", "2"], &["--check=yes"], &["--threads"]];
    for args in rows {
        let ran = run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{args:?}: {ran:?}");
    }
    assert!(run(&["--prot", "1"]).err.contains("--port"), "a likely meaning is offered");
}

#[test]
fn the_environment_is_read_as_flags_are() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let tree = Tree::site();
    let root = tree.root();
    let server = Builder::new(&[])
        .bare()
        .env("MILLPOND_PORT", "0")
        .env("MILLPOND_ROOT", &root)
        .env("MILLPOND_HOST", "127.0.0.1,127.0.0.2")
        .env("MILLPOND_THREADS", "3")
        .env("MILLPOND_ACCESS_LOG", &log)
        .env("MILLPOND_TARGET_LIMIT", "64")
        .env("MILLPOND_IMMUTABLE", "off")
        .addresses(2)
        .tree(tree)
        .start();
    let hosts: Vec<String> = server.addresses().iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(hosts, ["127.0.0.1", "127.0.0.2"]);
    for address in server.addresses() {
        assert_eq!(Client::connect(*address).get("/hello.txt").text(), HELLO);
    }
    assert_eq!(server.get(&format!("/{}", "a".repeat(64))).status, 414);
    let closing = server.stop().assert_clean();
    assert_eq!(closing.by_worker.len(), 3);
    assert_eq!(std::fs::read_to_string(log).unwrap().lines().count(), 3);
}

#[test]
fn a_flag_goes_before_the_environment() {
    let server = Builder::new(&["--threads", "2"]).env("MILLPOND_THREADS", "5").env("MILLPOND_PORT", "1").start();
    server.assert_well("starting");
    assert_eq!(server.stop().assert_clean().by_worker.len(), 2);
}

#[test]
fn bad_values_in_the_environment_are_refused() {
    for (name, value) in [
        ("MILLPOND_PORT", "x"),
        ("MILLPOND_THREADS", "0"),
        ("MILLPOND_QUEUE", "x"),
        ("MILLPOND_HEAD_TIMEOUT", "x"),
        ("MILLPOND_HEAD_LIMIT", "x"),
        ("MILLPOND_HOST", "127.0.0.1,not a host"),
        ("MILLPOND_IMMUTABLE", "perhaps"),
        ("MILLPOND_LISTING", "perhaps"),
        ("MILLPOND_ARCHIVE", ""),
        ("MILLPOND_ALLOW_HOST", ""),
        ("MILLPOND_ROOT", "/nowhere/at/all"),
    ] {
        let tree = Tree::site();
        let mut builder = Builder::new(&[]).bare();
        if name != "MILLPOND_ROOT" {
            builder = builder.arg(tree.root());
        }
        assert_mistake(&builder.env(name, value).run(), &[], name);
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_is_expected() {
    for (name, value, words) in [
        ("MILLPOND_PORT", "", "'--port <PORT>', from MILLPOND_PORT in the environment: expected a whole number from 0 to 65535"),
        ("MILLPOND_LISTING", "maybe", "'--listing', from MILLPOND_LISTING in the environment: expected true or false"),
        ("MILLPOND_CONTROL", "", "'--control <PATH>', from MILLPOND_CONTROL in the environment"),
        ("MILLPOND_ROOT", "", "'[ROOT]', from MILLPOND_ROOT in the environment"),
        ("MILLPOND_THREADS", "x", "'--threads <N>', from MILLPOND_THREADS in the environment: expected a number"),
    ] {
        assert_mistake(&Builder::new(&[]).bare().env(name, value).run(), &[words], name);
    }
    // the flag is what is wrong, whatever the variable says
    let ran = Builder::new(&["--port", "abc"]).env("MILLPOND_PORT", "1").tree(Tree::site()).run();
    assert_mistake(&ran, &["'abc' for '--port <PORT>': expected"], "a flag");
    assert_mistake(&run(&["--spa", "app.html"]), &["--spa=app.html"], "--spa");
    assert_mistake(&run(&["--prot", "1"]), &["'--prot' found; a similar argument exists: '--port';"], "--prot");
}

#[test]
fn variables_that_do_nothing_are_told() {
    for args in [&["--check"][..], &[]] {
        let builder = Builder::new(args).env("MILLPOND_PROT", "80").env("MILLPOND_SERVICE_NAME", "x").env("MILLPOND_LISTING", "on");
        let builder = builder.env("MILLPOND_CHECK", "1").env("MILLPOND_HELP", "1");
        let lines = if args.is_empty() {
            let server = builder.start();
            server.assert_well("strange variables");
            server.err.all()
        } else {
            let ran = builder.tree(Tree::site()).run();
            assert_eq!(ran.code, Some(0), "{ran:?}");
            ran.err.lines().map(Into::into).collect()
        };
        for flag in ["check", "help"] {
            let told = format!("--{flag} is for the command line alone");
            assert!(lines.iter().any(|line| line.ends_with(&told)), "{lines:?}");
        }
        let told: Vec<&String> = lines.iter().filter(|line| line.contains("is of no flag")).collect();
        assert_eq!(told.len(), 2, "{lines:?}");
        assert!(told.iter().any(|line| line.contains("MILLPOND_PROT ") && line.ends_with("is MILLPOND_PORT meant?")), "{told:?}");
        assert!(told.iter().any(|line| line.contains("MILLPOND_SERVICE_NAME ")), "{told:?}");
    }
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for args in [&["--port", &port][..], &["--check", "--port", &port]] {
        assert_mistake(&run(args), &[&port], &format!("{args:?}"));
    }
    // By another Millpond, too: two do not share a port without being told to.
    let first = Builder::new(&[]).start();
    let port = first.address().port().to_string();
    assert_mistake(&run(&["--port", &port]), &[&port], "by another one");
    first.assert_well("an attempt to take its port");
    // The second of two hosts.
    assert_mistake(&run(&["--host", "127.0.0.2", "--host", "127.0.0.1", "--port", &port]), &[&port], "on one of two hosts");
}

#[test]
fn roots_that_cannot_be_served() {
    let empty = tempfile::tempdir().unwrap();
    for check in [&[] as &[&str], &["--check"]] {
        let name = format!("{check:?}");
        let ran = Builder::new(check).bare().folder(empty.path()).run();
        assert_mistake(&ran, &["resources", "millpond ."], &format!("the default root is missing {name}"));
        let ran = Builder::new(check).bare().arg("/nowhere/at/all").run();
        assert_mistake(&ran, &["/nowhere/at/all"], &format!("missing {name}"));
        let tree = Tree::site();
        let file = tree.path("hello.txt");
        let ran = Builder::new(check).bare().arg(&file).run();
        assert_mistake(&ran, &["hello.txt"], &format!("a file {name}"));
        if let Some(wrapper) = without_privilege() {
            set_mode(&tree.root(), 0o000);
            let ran = Builder::new(check).bare().arg(tree.root()).through(&wrapper).run();
            assert_mistake(&ran, &["www"], &format!("unreadable {name}"));
            set_mode(&tree.root(), 0o755);
        } else {
            eprintln!("SKIPPED: running as root without setpriv, everything may be read");
        }
    }
}

#[test]
fn check_starts_nothing() {
    let tree = Tree::site();
    let log = tree.outside("access.log");
    let ran = Builder::new(&["--check", "--access-log"]).arg(&log).tree(tree).run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.err.contains("http://"), "{ran:?}");
    assert!(!log.exists(), "a check leaves nothing behind");
    for args in [&["--threads", "0"][..], &["--head-limit", "x"]] {
        assert_mistake(&run(&[&["--check"], args].concat()), &[], &format!("--check {args:?}"));
    }
}

/// The port that was found free is free after the check, and the folder is as it was.
#[test]
fn check_has_no_side_effects() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tree = Tree::site();
    let root = tree.root();
    let names = || std::fs::read_dir(&root).unwrap().count();
    let before = names();
    let ran = Builder::new(&["--check", "--port", &port.to_string()]).root(&root).run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    TcpListener::bind(("127.0.0.1", port)).unwrap();
    assert_eq!(names(), before);
}

#[test]
fn help_and_version() {
    let version = Builder::new(&["--version"]).bare().run();
    assert_eq!((version.code, version.out.trim(), version.err.as_str()), (Some(0), concat!("millpond ", env!("CARGO_PKG_VERSION")), ""));
    let short = Builder::new(&["-h"]).bare().run();
    let long = Builder::new(&["--help"]).bare().run();
    assert_eq!((short.code, long.code), (Some(0), Some(0)));
    assert!(short.out.len() < long.out.len(), "-h is the short one");
    for flag in ["--host", "--port", "--threads", "--check"] {
        assert!(short.out.contains(flag), "{flag} is not in -h");
    }
    // The README tells of the same.
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let told: BTreeSet<&str> = readme.lines().filter_map(|line| line.strip_prefix("| `--")?.split('`').next()).collect();
    let shown: BTreeSet<&str> =
        short.out.lines().filter_map(|line| line.trim_start().strip_prefix("--")?.split([' ', '[']).next()).collect();
    assert_eq!(told, shown);
    // Each flag, and the default that it shows.
    let flags = [
        ("--host", "127.0.0.1"),
        ("--port", "8080"),
        ("--threads", "10"),
        ("--queue", "100"),
        ("--connections", "16"),
        ("--access-log", "-"),
        ("--shutdown-grace", "10s"),
        ("--check", ""),
        ("--version", ""),
        ("--head-timeout", "10s"),
        ("--idle-timeout", "60s"),
        ("--busy-idle-timeout", "5s"),
        ("--body-rate", "1KiB"),
        ("--body-window", "10s"),
        ("--write-timeout", "30s"),
        ("--linger-timeout", "2s"),
        ("--target-limit", "8KiB"),
        ("--head-limit", "32KiB"),
        ("--field-limit", "100"),
        ("--chunk-line-limit", "256"),
        ("--trailer-limit", "4KiB"),
        ("--drain-limit", "64KiB"),
        ("--unsent-limit", "16KiB"),
        ("--congestion-control", "[default: the"),
        ("--cache-size", "256MiB"),
        ("--blocking-threads", "32"),
        ("--immutable", "on"),
        ("--sandbox", "on"),
        ("--user", ""),
        ("--control", ""),
        ("--connections-per-ip", ""),
        ("--rate-limit", ""),
        ("--trusted-proxy", ""),
        ("--index", "index.html"),
        ("--spa[=<FILE>]", "index.html"),
        ("--clean-urls", ""),
        ("--mime", ""),
        ("--cache-control", ""),
        ("--header", ""),
        ("--symlinks", "inside"),
        ("--dotfiles", "deny"),
        ("--error-page-limit", "256KiB"),
    ];
    for (flag, default) in flags {
        // at the beginning of its own lines, behind a short form or not; not where another one speaks of it
        let own_line = |(before, after): (&str, &str)| long.out.find(&format!("{before}{flag}{after}")).map(|at| at + before.len());
        let forms = [("\n      ", " "), ("\n      ", "\n"), (", ", " "), (", ", "\n")];
        let at = forms.into_iter().find_map(own_line).unwrap_or_else(|| panic!("{flag} is not in --help"));
        let rest = &long.out[at + 2..];
        let own = &rest[..rest.find("\n      --").unwrap_or(rest.len())];
        assert!(own.contains(default), "{flag} does not show its default {default}: {own}");
    }
    assert!(long.out.contains("MILLPOND_"), "the variables are told");
    assert!(long.out.contains("resources"), "the default root is told");
}

#[test]
fn the_start_says_where_what_and_how() {
    let tree = Tree::site();
    let root = tree.root();
    let server = Builder::new(&["--threads", "7", "--queue", "123"]).tree(tree).start();
    let all = |lines: &[String]| {
        let text = lines.join("\n");
        (text.contains(root.to_str().unwrap()) && text.contains('7') && text.contains("123")).then_some(())
    };
    assert!(server.err.wait_until(crate::harness::PATIENCE, all).is_some(), "{:#?}", server.err.all());
    assert!(server.address().port() != 0);
    let text = server.err.all().join("\n").to_lowercase();
    assert!(text.contains("thread") && text.contains("queue"), "{text}");
    assert_eq!(server.stop().assert_clean().by_worker.len(), 7);
}

#[test]
fn hosts_to_listen_on() {
    let server = Builder::new(&["--host", "127.0.0.1", "--host", "127.0.0.3"]).addresses(2).start();
    for address in server.addresses() {
        assert_eq!(Client::connect(*address).get("/hello.txt").text(), HELLO, "{address}");
    }
    let unheard = TcpStream::connect(("127.0.0.4", server.address().port()));
    assert!(unheard.is_err(), "only what was named");

    if TcpListener::bind("[::1]:0").is_ok() {
        for host in ["::1", "[::1]"] {
            let server = Builder::new(&["--host", host]).start();
            assert!(server.address().is_ipv6(), "{host}");
            server.assert_well(host);
        }
        let server = Builder::new(&["--host", "127.0.0.1", "--host", "::1"]).addresses(2).start();
        assert_eq!(server.addresses().iter().filter(|address| address.is_ipv6()).count(), 1);
        for address in server.addresses() {
            assert_eq!(Client::connect(*address).get("/hello.txt").text(), HELLO, "{address}");
        }
    } else {
        eprintln!("SKIPPED: no IPv6 here");
    }
    let server = Builder::new(&["--host", "localhost"]).start();
    server.assert_well("localhost");
    let server = Builder::new(&["--host", "0.0.0.0"]).start();
    assert!(!server.address().ip().is_unspecified(), "an address that can be clicked on");
    server.assert_well("0.0.0.0");
}

#[test]
fn threads_may_be_left_to_the_machine() {
    let server = Builder::new(&["--threads", "auto"]).start();
    server.assert_well("--threads auto");
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(server.stop().assert_clean().by_worker.len(), cores);
}

#[test]
fn roots_of_every_kind() {
    // A relative one.
    let tree = Tree::site();
    let folder = tree.outside("");
    let server = Builder::new(&[]).tree(tree).root("www").folder(folder).start();
    server.assert_well("a relative root");
    // The one that is meant when none is named.
    let tree = Tree::site();
    std::fs::rename(tree.root(), tree.outside("resources")).unwrap();
    let folder = tree.outside("");
    let server = Builder::new(&["--port", "0"]).bare().folder(folder).tree(tree).start();
    server.assert_well("the default root");
    // The folder that one is in.
    let tree = Tree::site();
    let folder = tree.root();
    let server = Builder::new(&[]).tree(tree).root(".").folder(folder).start();
    server.assert_well("the root `.`");
    // A name that is not UTF-8.
    let tree = Tree::site();
    let odd = tree.outside(std::ffi::OsStr::from_bytes(b"odd \xff name"));
    std::fs::rename(tree.root(), &odd).unwrap();
    let server = Builder::new(&[]).tree(tree).root(odd).start();
    server.assert_well("a root whose name is not UTF-8");
}

#[test]
fn durations_and_sizes_in_every_unit() {
    for args in [
        ["--head-timeout", "500ms"],
        ["--head-timeout", "10s"],
        ["--head-timeout", "2m"],
        ["--head-timeout", "1h"],
        ["--head-limit", "40000"],
        ["--head-limit", "64KiB"],
        ["--cache-size", "4MiB"],
        ["--cache-size", "1GiB"],
    ] {
        let ran = run(&["--check", args[0], args[1]]);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
    }
}

/// Without clients it does nothing at all.
#[test]
fn an_idle_server_uses_no_processor() {
    let server = Builder::new(&["--threads", "4"]).start();
    server.assert_well("starting");
    let before = server.cpu_ticks();
    crate::harness::pause(500);
    let used = server.cpu_ticks() - before;
    assert!(used <= 3, "{used} of 50 ticks used for nothing");
}

/// The service in `pkg/` starts the program with flags that it has, and is in order.
#[test]
fn the_flags_of_the_service_are_in_order() {
    let service = include_str!("../../pkg/millpond.service");
    let command = service.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/millpond ")).expect("a command");
    let tree = Tree::site();
    let (root, log) = (tree.root(), tree.outside("access.log"));
    let own = |word: &str| match word {
        "/srv/www" => root.to_str().unwrap().to_owned(),
        word if word.starts_with("/var/log/") => log.to_str().unwrap().to_owned(),
        word => word.to_owned(),
    };
    let words: Vec<String> = ["--check", "--port", "0"].into_iter().chain(command.split(' ')).map(own).collect();
    let ran = Builder::new(&words.iter().map(String::as_str).collect::<Vec<_>>()).bare().tree(tree).run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

/// And so does the container.
#[test]
fn the_variables_of_the_container_are_in_order() {
    let container = include_str!("../../pkg/Containerfile");
    let tree = Tree::site();
    let mut builder = Builder::new(&["--check"]).bare();
    let variables = container.split([' ', '\n']).filter(|word| word.starts_with("MILLPOND_"));
    let mut count = 0;
    for (name, value) in variables.filter_map(|variable| variable.split_once('=')) {
        builder = match value {
            "/site" => builder.env(name, tree.root()),
            "8080" => builder.env(name, "0"),
            value => builder.env(name, value),
        };
        count += 1;
    }
    assert_eq!(count, 5);
    let ran = builder.tree(tree).run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

/// A mistake is told where not even a thread can be had.
#[test]
fn a_process_that_may_have_no_threads_says_why_it_does_not_start() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root");
        return;
    }
    // this user has no other processes
    const ALONE: [&str; 5] = ["setpriv", "--reuid=65531", "--clear-groups", "prlimit", "--nproc=1"];
    let ran = Builder::new(&["--port", "none"]).through(&ALONE).tree(Tree::site()).run();
    assert_eq!((ran.code, ran.err.lines().count()), (Some(2), 1), "{ran:?}");
    assert!(ran.err.contains("--port"), "{ran:?}");
}

//! Takeover: a new process, started from outside, gets the listening sockets of the running one, and no client notices.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::client::{Client, HOST, request};
use crate::harness::{Builder, HELLO, Server, SetAtEnd, Tree, assert_same_bytes, noise, pause, set_mode, until};

/// A start with this control path, serving this folder.
fn builder(control: &Path, root: &Path) -> Builder {
    Builder::new(&["--allow-host", HOST, "--shutdown-grace", "10m"]).arg("--control").arg(control).root(root)
}

/// Clients that keep their connections and clients that do not, without a pause, while one process follows another: each request that
/// was sent is answered with all of its file.
#[test]
fn no_request_fails_while_one_process_follows_another() {
    const FOLLOWERS: usize = 3;
    let tree = Tree::site();
    let body = noise(11, 50_000);
    tree.write("body.bin", &body);
    let control = tree.outside("control");
    let mut running = builder(&control, &tree.root()).start();
    let address = running.address();
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let running = thread::scope(|scope| {
        let _stops = SetAtEnd(&stop);
        for number in 0..8 {
            let (stop, served, body) = (&stop, &served, &body);
            scope.spawn(move || {
                let fields = if number % 2 == 0 { "" } else { "Connection: close\r\n" };
                let mut client = None;
                while !stop.load(Ordering::Relaxed) {
                    let mut connection = client.take().unwrap_or_else(|| Client::connect(address));
                    connection.send(request("GET", "/body.bin", fields));
                    let answer = connection.try_answer(false).unwrap_or_else(|cut| panic!("client {number}: {cut:?}"));
                    assert_eq!(answer.status, 200, "client {number}");
                    assert_same_bytes(&answer.body, body, &format!("client {number}"));
                    served.fetch_add(1, Ordering::Relaxed);
                    client = (!answer.closes()).then_some(connection);
                }
            });
        }
        let under_way = || {
            let before = served.load(Ordering::Relaxed);
            until("the load is under way", || served.load(Ordering::Relaxed) > before + 100);
        };
        for follower in 0..FOLLOWERS {
            under_way();
            let new = builder(&control, &tree.root()).start();
            assert_eq!(new.address(), address, "the same port");
            running.wait_for_line("another process has taken over");
            let closing = running.finish().assert_clean();
            assert_eq!((closing.shed, closing.panics), (0, 0), "follower {follower}");
            running = new;
        }
        under_way();
        running
    });
    let closing = running.stop().assert_clean();
    assert!(closing.requests > 100, "the last one served: {closing:?}");
}

/// The gate of the old process is shut when the new one comes: what holds connections back does not outlive it.
#[cfg(debug_assertions)]
#[test]
fn a_gate_that_is_shut_is_not_handed_over() {
    let tree = Tree::site();
    let control = tree.outside("control");
    let args = ["--threads", "1", "--queue-wait", "4s", "--shutdown-grace", "10m"];
    let start = || Builder::new(&args).arg("--control").arg(&control).root(tree.root()).start();
    let old = start();
    let mut holder = old.connect();
    assert_eq!(holder.get("/hello.txt").text(), HELLO);
    holder.send(request("GET", "/hello.txt", "Millpond-Fault: stall=6000\r\n"));
    pause(100);
    // Behind the only worker it waits for so long that the gate is shut, and stays so while it waits on.
    let mut waiting = old.connect();
    waiting.send_get("/hello.txt");
    until("the gate is shut", || std::net::TcpStream::connect_timeout(&old.address(), std::time::Duration::from_millis(20)).is_err());
    let new = start();
    old.wait_for_line("another process has taken over");
    for number in 0..20 {
        // A packet that is dropped is sent again after a second.
        let begun = std::time::Instant::now();
        let mut client = new.connect();
        assert_eq!(client.get("/hello.txt").text(), HELLO);
        assert!(begun.elapsed() < std::time::Duration::from_millis(900), "client {number} was held back: {:?}", begun.elapsed());
    }
    assert_eq!(holder.answer().text(), HELLO);
    assert_eq!(waiting.answer().status, 200);
    drop((holder, waiting));
    old.finish().assert_clean();
    new.stop().assert_clean();
}

/// A connection that rests when it happens still gets an answer to its next request; then it ends.
#[test]
fn kept_connections_end_with_an_answer() {
    let tree = Tree::site();
    let control = tree.outside("control");
    let old = builder(&control, &tree.root()).start();
    let mut kept: Vec<Client> = (0..20).map(|_| old.connect()).collect();
    for client in &mut kept {
        assert_eq!(client.get("/hello.txt").text(), HELLO);
    }
    let mut silent = old.connect();
    let new = builder(&control, &tree.root()).start();
    old.wait_for_line("another process has taken over");
    for client in &mut kept {
        let answer = client.get("/hello.txt");
        assert_eq!((answer.text().as_str(), answer.closes()), (HELLO, true));
    }
    silent.assert_end("a connection that never says anything does not hold it up");
    old.finish().assert_clean();
    new.assert_well("the takeover");
}

/// An upload of the process that drains goes on to its end: the new one leaves it alone.
#[test]
fn uploads_under_way_are_left_alone() {
    let tree = Tree::site();
    let control = tree.outside("control");
    let old = builder(&control, &tree.root()).start();
    let body = noise(12, 400_000);
    let (begin, rest) = body.split_at(300_000);
    let mut client = old.connect();
    client.send(request("POST", "/uploads/?name=whole.bin", &format!("Content-Length: {}\r\n", body.len())));
    client.send(begin);
    // a form, whose first file is complete
    let form = "--b\r\nContent-Disposition: form-data; name=f; filename=one.txt\r\n\r\none\r\n\
                --b\r\nContent-Disposition: form-data; name=f; filename=two.txt\r\n\r\ntwo\r\n--b--\r\n";
    let mut second = old.connect();
    second.send(request(
        "POST",
        "/uploads/",
        &format!("Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n", form.len()),
    ));
    second.send(&form[..90]);
    pause(50);
    let new = builder(&control, &tree.root()).start();
    old.wait_for_line("another process has taken over");
    new.assert_well("the takeover");
    client.send(rest);
    second.send(&form[90..]);
    assert_eq!(client.answer().status, 201);
    assert_eq!(second.answer().status, 201);
    old.finish().assert_clean();
    assert_same_bytes(&new.get("/uploads/whole.bin").body, &body, "the upload");
    assert_eq!((new.get("/uploads/one.txt").text(), new.get("/uploads/two.txt").text()), ("one".into(), "two".into()));
}

/// A new process that can not serve changes nothing.
#[test]
fn a_takeover_that_fails_changes_nothing() {
    let tree = Tree::site();
    let control = tree.outside("control");
    let old = builder(&control, &tree.root()).start();
    for round in 0..2 {
        let ran = builder(&control, &tree.root()).arg("--access-log").arg("/nowhere/at/all.log").run();
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains("/nowhere/at/all.log"), "{ran:?}");
        let told = old.err.wait_until(crate::harness::PATIENCE, |lines| {
            (lines.iter().filter(|line| line.contains("a takeover did not come about")).count() > round).then_some(())
        });
        assert!(told.is_some(), "{:#?}", old.err.all());
        old.assert_well("a takeover that failed");
    }
    // someone who says something else, nothing, or not all
    for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", b"millpond take"] {
        let mut stream = UnixStream::connect(&control).unwrap();
        std::io::Write::write_all(&mut stream, words).unwrap();
        drop(stream);
    }
    let new = builder(&control, &tree.root()).start();
    old.wait_for_line("another process has taken over");
    old.finish().assert_clean();
    new.assert_well("a takeover after some that failed");
}

#[test]
fn the_socket_is_for_its_owner_alone() {
    let tree = Tree::site();
    set_mode(&tree.outside(""), 0o755);
    let control = tree.outside("control");
    let old = builder(&control, &tree.root()).start();
    let meta = fs::metadata(&control).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root, so there is no other user to try it as");
        return;
    }
    let drop = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"];
    let can_start = Command::new(drop[0]).args(&drop[1..]).arg(crate::harness::program()).arg("--version").output();
    if !can_start.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no setpriv, or another user can not reach the program");
        return;
    }
    let other = || builder(&control, &tree.root()).through(&drop).arg("--uploads").arg("off");
    let ran = other().run();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("Permission denied") && ran.err.contains("--control"), "{ran:?}");
    // even where the folder is open by mistake
    set_mode(&control, 0o666);
    let ran = other().run();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("--control"), "{ran:?}");
    old.assert_well("strangers");
}

#[test]
fn a_user_that_was_dropped_to_hands_over_to_root() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root");
        return;
    }
    let tree = Tree::site();
    set_mode(&tree.outside(""), 0o755);
    let control = tree.outside("control");
    let start = || builder(&control, &tree.root()).arg("--user").arg("nobody").arg("--sandbox").arg("on").start();
    let old = start();
    let address = old.address();
    let new = start();
    old.finish().assert_clean();
    assert_eq!(new.address(), address);
    let third = start();
    new.finish().assert_clean();
    third.assert_well("two takeovers");
}

#[test]
fn what_is_at_the_path() {
    let tree = Tree::site();
    // what a process that was killed left there is no obstacle
    let control = tree.outside("control");
    drop(UnixListener::bind(&control).unwrap());
    let server = builder(&control, &tree.root()).start();
    server.assert_well("a socket that was left");
    server.signal(Signal::KILL);
    drop(server);
    builder(&control, &tree.root()).start().assert_well("a kill");
    // what is something else stays
    let file = tree.outside("file");
    fs::write(&file, "precious").unwrap();
    for path in [file.clone(), tree.outside("no/such/folder/control"), tree.outside("")] {
        for check in [false, true] {
            let builder = builder(&path, &tree.root());
            let ran = if check { builder.arg("--check") } else { builder }.run();
            assert_eq!((ran.code, ran.err.lines().count()), (Some(2), 1), "{path:?}, check: {check}: {ran:?}");
            assert!(ran.err.contains("--control"), "{path:?}, check: {check}: {ran:?}");
        }
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
}

/// Whoever stops one process and starts another need not wait in between.
#[test]
fn a_start_beside_a_process_that_stops() {
    let tree = Tree::site();
    fs::File::create(tree.path("big.bin")).unwrap().set_len(64 << 20).unwrap();
    let control = tree.outside("control");
    let old = builder(&control, &tree.root()).start();
    let mut client = old.connect();
    client.send_get("/big.bin");
    assert_eq!(client.any_answer_head().status, 200);
    old.signal(Signal::TERM);
    let port = old.address().port().to_string();
    let new = builder(&control, &tree.root()).arg("--port").arg(&port).start();
    new.assert_well("beside one that stops");
    // and it is the one that the next takes over from
    let third = builder(&control, &tree.root()).start();
    new.finish().assert_clean();
    assert_eq!(third.address(), old.address());
    assert_eq!(client.rest().0.len(), 64 << 20);
    old.finish().assert_clean();
}

#[test]
fn a_check_beside_a_running_process() {
    let tree = Tree::site();
    let control = tree.outside("control");
    let server = builder(&control, &tree.root()).start();
    let port = server.address().port().to_string();
    let ran = builder(&control, &tree.root()).arg("--check").arg("--port").arg(&port).run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    server.assert_well("a check");
    let ran = Builder::new(&["--check", "--port", &port]).root(tree.root()).run();
    assert_eq!(ran.code, Some(2), "without the path the port is taken: {ran:?}");
}

/// The new process listens where its flags say: sockets that it has no use for go with the old one.
#[test]
fn addresses_may_change() {
    let tree = Tree::site();
    let control = tree.outside("control");
    let old = builder(&control, &tree.root()).arg("--host").arg("127.0.0.1,127.0.0.3").addresses(2).start();
    let (kept, dropped) = (old.addresses()[0], old.addresses()[1]);
    let new: Server = builder(&control, &tree.root()).arg("--host").arg("127.0.0.1,127.0.0.4").addresses(2).start();
    old.finish().assert_clean();
    assert_eq!(new.addresses()[0], kept);
    assert_eq!(new.addresses()[1], std::net::SocketAddr::new([127, 0, 0, 4].into(), kept.port()));
    for address in new.addresses() {
        assert_eq!(Client::connect(*address).get("/hello.txt").text(), HELLO);
    }
    assert!(std::net::TcpStream::connect(dropped).is_err());
}

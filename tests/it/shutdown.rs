//! The end: what is in flight is finished, nothing new begins, and nothing holds it up for longer than the grace.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, Ending, request};
use crate::harness::{Builder, HELLO, Server, Stopped, Tree, assert_same_bytes, noise, until};

/// Nobody accepts connections on the address any more.
fn until_refused(server: &Server) {
    let address = server.address();
    until("new connections are refused", || TcpStream::connect(address).is_err());
}

#[test]
fn both_signals_end_it_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&[]);
        server.assert_well("start");
        server.signal(signal);
        let closing = server.finish().assert_clean();
        assert_eq!((closing.connections, closing.requests), (1, 1), "{signal:?}");
    }
}

#[test]
fn idle_connections_do_not_hold_it_up() {
    let server = Server::start(&["--shutdown-grace", "10m"]);
    let mut kept: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut kept {
        assert_eq!(client.get("/hello.txt").text(), HELLO);
    }
    let mut silent: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    server.signal(Signal::TERM);
    for client in kept.iter_mut().chain(&mut silent) {
        client.assert_end("idle at the end");
    }
    server.finish().assert_clean();
}

/// Requests that were sent before the signal are answered, each of them, though they had not all been read by then.
#[test]
fn what_was_sent_before_the_signal_is_answered() {
    let server = Server::start(&["--threads", "2", "--queue", "1000", "--shutdown-grace", "10m"]);
    let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    // Half of them are known to the workers, half may still stand in a queue.
    for client in clients.iter_mut().take(100) {
        assert_eq!(client.get("/hello.txt").text(), HELLO);
    }
    for client in &mut clients {
        client.send(request("GET", "/hello.txt", "").repeat(5));
    }
    server.signal(Signal::TERM);
    for (number, client) in clients.iter_mut().enumerate() {
        let (answers, ending) = client.answers();
        assert_eq!((answers.len(), ending), (5, Ending::Eof), "client {number}");
        assert!(answers.iter().all(|answer| answer.text() == HELLO), "client {number}");
    }
    let closing = server.finish().assert_clean();
    assert_eq!((closing.connections, closing.requests), (200, 1_100));
}

/// Clients that never pause: whoever sent a request before the signal has its answer, whole.
#[test]
fn no_answer_is_lost_under_load() {
    let tree = Tree::site();
    let body = noise(3, 50_000);
    tree.write("body.bin", &body);
    let server = Builder::new(&["--threads", "4", "--queue", "1000"]).tree(tree).start();
    let signalled: Mutex<Option<Instant>> = Mutex::new(None);
    let address = server.address();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|number| {
                let body = &body;
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    let mut served = 0;
                    loop {
                        if client.send_what_it_takes(request("GET", "/body.bin", "")).is_err() {
                            return (number, served, None);
                        }
                        let sent = Instant::now();
                        match client.try_answer(false) {
                            Ok(answer) => {
                                assert_same_bytes(&answer.body, body, &format!("client {number}"));
                                served += 1;
                                if answer.closes() {
                                    return (number, served, None);
                                }
                            }
                            Err(cut) => {
                                assert!(cut.partial.is_none() && cut.stray.is_empty(), "client {number}: an answer was cut: {cut:?}");
                                return (number, served, Some(sent));
                            }
                        }
                    }
                })
            })
            .collect();
        // Under way for a moment.
        thread::sleep(Duration::from_millis(200));
        *signalled.lock().unwrap() = Some(Instant::now());
        server.signal(Signal::TERM);
        let signalled = signalled.lock().unwrap().unwrap();
        for client in clients {
            let (number, served, unanswered) = client.join().unwrap();
            assert!(served > 0, "client {number} was never served");
            assert!(unanswered.is_none_or(|sent| sent > signalled), "client {number}: a request sent before the signal has no answer");
        }
    });
    server.finish().assert_clean();
}

#[test]
fn a_download_under_way_is_finished() {
    let tree = Tree::site();
    let big = noise(4, 24 * 1024 * 1024);
    tree.write("big.bin", &big);
    let server = Builder::new(&["--shutdown-grace", "10m"]).tree(tree).start();
    let mut client = server.connect();
    client.send(request("GET", "/big.bin", ""));
    assert_eq!(client.any_answer_head().status, 200);
    server.signal(Signal::TERM);
    until_refused(&server);
    assert_same_bytes(&client.take_many(big.len()), &big, "a download that was under way");
    client.assert_end("the connection does not go on");
    server.finish().assert_clean();
}

/// Who takes too long is left behind: the grace is the bound.
#[test]
fn the_grace_has_an_end() {
    let tree = Tree::site();
    std::fs::File::create(tree.path("big.bin")).unwrap().set_len(64 * 1024 * 1024).unwrap();
    let server = Builder::new(&["--shutdown-grace", "300ms", "--write-timeout", "10m", "--head-timeout", "10m", "--access-log", "-"])
        .tree(tree)
        .start();
    let mut stuck = server.connect();
    stuck.send_get("/big.bin");
    assert_eq!(stuck.any_answer_head().status, 200);
    let mut half = server.connect();
    half.send("GET /hello.txt HTTP/1.1\r\n");
    server.signal(Signal::TERM);
    // Ends by itself, though both clients stay.
    let stopped = server.finish();
    stopped.assert_clean();
    assert_cut_off(&stopped, 2);
    assert!(half.rest().0.len() < 1_000);
}

/// Who waits for a place does not hold up the end of those that have one.
#[test]
fn the_grace_has_an_end_where_all_places_are_taken() {
    let tree = Tree::site();
    std::fs::File::create(tree.path("big.bin")).unwrap().set_len(64 * 1024 * 1024).unwrap();
    let flags = ["--connections", "2", "--shutdown-grace", "300ms", "--write-timeout", "10m", "--queue-wait", "10m", "--access-log", "-"];
    let server = Builder::new(&flags).tree(tree).start();
    let stuck: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = server.connect();
            client.send_get("/big.bin");
            assert_eq!(client.any_answer_head().status, 200);
            client
        })
        .collect();
    let waiting: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    server.signal(Signal::TERM);
    let stopped = server.finish();
    stopped.assert_clean();
    assert_cut_off(&stopped, 2);
    drop((stuck, waiting));
}

/// So many connections were cut off, and what was sent of the download is logged.
#[track_caller]
fn assert_cut_off(stopped: &Stopped, connections: usize) {
    let told = stopped.err.iter().find_map(|line| line.strip_prefix("millpond: how connections ended: "));
    let told = told.and_then(|ends| ends.split(", ").find_map(|end| end.strip_suffix(" stopped")?.parse().ok()));
    assert_eq!(told, Some(connections), "{:#?}", stopped.err);
    let log = String::from_utf8_lossy(&stopped.out);
    let sent = log.split_once("\"GET /big.bin HTTP/1.1\" 200 ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(sent.is_some_and(|sent| sent > 0 && sent < 64 * 1024 * 1024), "{log:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second, code) in [
        (Signal::TERM, Signal::TERM, 143),
        (Signal::INT, Signal::INT, 130),
        (Signal::TERM, Signal::INT, 130),
        (Signal::INT, Signal::TERM, 143),
    ] {
        let tree = Tree::site();
        std::fs::File::create(tree.path("big.bin")).unwrap().set_len(64 * 1024 * 1024).unwrap();
        let mut server = Builder::new(&["--shutdown-grace", "10m", "--write-timeout", "10m", "--access-log", "-"]).tree(tree).start();
        let mut stuck = server.connect();
        stuck.send_get("/big.bin");
        assert_eq!(stuck.any_answer_head().status, 200);
        server.signal(first);
        until_refused(&server);
        assert!(server.is_running(), "{first:?}: it ended though a download is under way");
        server.signal(second);
        let stopped = server.finish();
        assert_cut_off(&stopped, 1);
        let status = stopped.status;
        // A shell shows both in the same way.
        let shown = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        assert_eq!(shown, Some(code), "{first:?} and then {second:?}: {status:?}");
    }
}

#[test]
fn requests_behind_the_signal_are_told_that_the_connection_ends() {
    let tree = Tree::site();
    std::fs::File::create(tree.path("big.bin")).unwrap().set_len(32 * 1024 * 1024).unwrap();
    let server = Builder::new(&["--shutdown-grace", "10m"]).tree(tree).start();
    let mut client = server.connect();
    // The second request is in the stream before the signal, and is answered after it.
    client.send(request("GET", "/big.bin", "") + &request("GET", "/hello.txt", ""));
    assert_eq!(client.any_answer_head().length(), 32 * 1024 * 1024);
    server.signal(Signal::TERM);
    until_refused(&server);
    client.take_many(32 * 1024 * 1024);
    let answer = client.answer();
    assert_eq!(answer.text(), HELLO);
    assert!(answer.closes(), "{:?}", answer.fields);
    client.assert_end("after the last answer");
    server.finish().assert_clean();
}

/// Those in the queue when the signal comes have sent their requests: they are served.
#[cfg(debug_assertions)]
#[test]
fn the_queue_is_served_before_the_end() {
    let server = Server::start(&["--threads", "1", "--queue", "50", "--shutdown-grace", "10m"]);
    let mut holder = server.connect();
    assert_eq!(holder.get("/hello.txt").text(), HELLO);
    holder.send(request("GET", "/hello.txt", "Millpond-Fault: stall=600\r\n"));
    crate::harness::pause(100);
    let mut clients: Vec<Client> = (0..30).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send_get("/hello.txt");
    }
    crate::harness::pause(50);
    assert!(!holder.hears_now(), "the worker is not busy any more, so this has shown nothing");
    server.signal(Signal::TERM);
    for client in std::iter::once(&mut holder).chain(&mut clients) {
        assert_eq!(client.answer().text(), HELLO);
        client.assert_end("answered at the end");
    }
    let closing = server.finish().assert_clean();
    assert_eq!((closing.connections, closing.shed), (31, 0));
}

#[test]
fn the_end_tells_how_connections_ended() {
    let server = Server::start(&["--threads", "1", "--head-timeout", "100ms", "--idle-timeout", "100ms"]);
    for (sent, status) in
        [("GET /hello.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200), ("nonsense\r\n\r\n", 400), ("GET", 408)]
    {
        assert_eq!(server.ask(sent).status, status, "{sent:?}");
    }
    let mut idle = server.connect();
    assert_eq!(idle.get("/hello.txt").text(), HELLO);
    idle.assert_end("idle");
    let stopped = server.stop();
    stopped.assert_clean();
    let told = "millpond: how connections ended: 1 done, 1 idle, 1 slow, 1 malformed";
    assert!(stopped.err.iter().any(|line| line == told), "{:#?}", stopped.err);
}

//! The pool: many clients at once, idle ones that cost no one anything, an even spread, and a shortage of descriptors.
//!
//! Classes of failure covered: idle keep-alive clients that fill a pool, an endless loop on EMFILE.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use crate::client::{Client, Ending, HOST, request};
use crate::harness::{HELLO, Server, Tree, assert_same_bytes, noise, pause, until};

#[test]
fn two_hundred_clients_at_once_over_ten_threads() {
    let tree = Tree::site();
    let picture = noise(1, 150_000);
    tree.write("picture.png", &picture);
    let server = crate::harness::Builder::new(&["--threads", "10", "--queue", "1000"]).tree(tree).start();
    let together = Barrier::new(200);
    thread::scope(|scope| {
        for number in 0..200 {
            let (together, server, picture) = (&together, &server, &picture);
            scope.spawn(move || {
                together.wait();
                let mut client = server.connect();
                for round in 0..5 {
                    assert_eq!(client.get("/hello.txt").text(), HELLO, "client {number}, round {round}");
                    assert_same_bytes(&client.get("/picture.png").body, picture, &format!("client {number}, round {round}"));
                    assert_eq!(client.get("/nowhere").status, 404, "client {number}, round {round}");
                }
            });
        }
    });
    let closing = server.stop().assert_clean();
    assert_eq!((closing.connections, closing.requests, closing.shed, closing.panics), (200, 3_000, 0, 0));
    assert_eq!(closing.by_worker.len(), 10, "a count for each worker");
}

#[test]
fn a_thousand_idle_clients_hold_up_nobody() {
    let server = Server::start(&["--threads", "1", "--queue", "1000"]);
    let mut idle: Vec<Client> = (0..1_000).map(|_| server.connect()).collect();
    for client in &mut idle {
        client.send_get("/hello.txt");
    }
    for (number, client) in idle.iter_mut().enumerate() {
        assert_eq!(client.answer().text(), HELLO, "client {number}");
    }
    server.assert_well("a thousand clients that keep their connections");
    // And they are not forgotten.
    for client in &mut idle {
        client.send_get("/other.txt");
    }
    for (number, client) in idle.iter_mut().enumerate() {
        assert_eq!(client.answer().status, 200, "client {number}, again");
    }
}

#[test]
fn a_burst_spreads_over_the_workers() {
    for speak_at_once in [false, true] {
        let server = Server::start(&["--threads", "4", "--queue", "1000"]);
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..1_000 {
            let mut client = server.connect();
            if speak_at_once {
                client.send_get("/hello.txt");
            }
            clients.push(client);
        }
        if !speak_at_once {
            clients.iter_mut().for_each(|client| client.send_get("/hello.txt"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.answer().text(), HELLO, "client {number}");
        }
        drop(clients);
        let closing = server.stop().assert_clean();
        assert_eq!((closing.connections, closing.shed), (1_000, 0));
        assert_eq!((closing.by_worker.len(), closing.by_worker.iter().sum::<u64>()), (4, 1_000), "{closing:?}");
        let busiest = *closing.by_worker.iter().max().unwrap();
        assert!(busiest <= 300, "1.2 times the mean of 250 at most: {:?} (all spoke at once: {speak_at_once})", closing.by_worker);
    }
}

/// A queue of one is enough for clients that come one after another.
#[test]
fn clients_one_after_another_are_never_shed() {
    let server = Server::start(&["--threads", "1", "--queue", "1"]);
    for number in 0..200 {
        let mut client = server.connect();
        client.send(request("GET", "/hello.txt", "Connection: close\r\n"));
        assert_eq!(client.answer().text(), HELLO, "client {number}");
        client.assert_end("asked to close");
    }
    let closing = server.stop().assert_clean();
    assert_eq!((closing.connections, closing.requests, closing.shed), (200, 200, 0));
}

/// With all places taken by clients that are being answered the next one waits in the queue until one goes.
#[test]
fn connections_served_at_once_are_bounded() {
    let tree = Tree::site();
    std::fs::File::create(tree.path("big.bin")).unwrap().set_len(64 << 20).unwrap();
    let server = crate::harness::Builder::new(&["--threads", "1", "--connections", "5"]).tree(tree).start();
    let mut holders: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for client in &mut holders {
        client.send_get("/big.bin");
        assert_eq!(client.any_answer_head().status, 200);
    }
    let mut waiting = server.connect();
    waiting.send_get("/hello.txt");
    assert!(!waiting.hears_within(Duration::from_millis(150)), "a sixth connection was served beside the five");
    drop(holders.pop());
    assert_eq!(waiting.answer().text(), HELLO, "a place became free");
    for client in &mut holders {
        assert_eq!(client.take_many(64 << 20).len(), 64 << 20, "the others keep theirs");
    }
}

/// Few descriptors: said once, no spinning, and everybody is served when there are more again.
#[test]
fn a_shortage_of_descriptors_passes() {
    for relief in ["a higher limit", "clients that go"] {
        // One worker, which has shown that it is there: nothing else is still to be opened.
        let server = Server::start(&["--threads", "1"]);
        server.assert_well("start");
        server.limit_descriptors(server.descriptors() as u64 + 8);
        let mut early = server.connect();
        assert_eq!(early.get("/hello.txt").text(), HELLO);
        let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
        server.wait_for_line("out of file descriptors");

        let before = server.cpu_ticks();
        pause(500);
        let used = server.cpu_ticks() - before;
        assert!(used < 15, "{used} of 50 ticks of processor time used while nothing could be done");
        let said = server.err.all().iter().filter(|line| line.contains("out of file descriptors")).count();
        assert!(said <= 3, "said {said} times");

        // Whoever is in is still answered, with whatever can be had.
        let status = early.get("/hello.txt").status;
        assert!([200, 500, 503].contains(&status), "{status}");

        if relief == "a higher limit" {
            server.limit_descriptors(u64::MAX);
            for client in &mut clients {
                client.send_get("/hello.txt");
            }
            for (number, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.answer().text(), HELLO, "{relief}: client {number}");
            }
        } else {
            drop(clients);
        }
        server.assert_well(relief);
        drop(early);
        let closing = server.stop().assert_clean();
        assert_eq!(closing.panics, 0, "{relief}");
    }
}

/// Descriptors come back when clients go, whatever they were doing.
#[test]
fn closed_connections_leave_no_descriptor() {
    let server = Server::start(&["--threads", "2", "--queue", "1000"]);
    server.assert_well("start");
    until("the first connection is closed", || server.sockets() <= sockets_at_rest());
    let before = server.descriptors();
    for _ in 0..5 {
        let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            match number % 4 {
                0 => client.send(request("GET", "/hello.txt", "Connection: close\r\n")),
                1 => client.send_get("/hello.txt"),
                2 => client.send("GET /hel"),
                _ => {}
            }
        }
        for client in clients.iter_mut().step_by(4) {
            assert_eq!(client.answer().text(), HELLO);
            assert_eq!(client.rest().1, Ending::Eof);
        }
    }
    until("all sockets are closed", || server.sockets() <= sockets_at_rest());
    assert!(server.descriptors() <= before + 2, "{} descriptors, {before} before", server.descriptors());
}

/// The sockets of a server of two workers without clients: measured on one of its own.
fn sockets_at_rest() -> usize {
    static COUNT: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *COUNT.get_or_init(|| Server::start(&["--threads", "2"]).sockets())
}

/// Where there are not processors enough for all, what waits for a disk stands behind what is ready.
#[test]
fn the_blocking_pool_stands_behind_the_workers() {
    let server = Server::start(&["--threads", "1", "--allow-host", HOST]);
    // An upload is work for the pool.
    let answer = server.ask(request("POST", "/uploads/?name=a.txt", "Content-Length: 4\r\n") + "abcd");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let (workers, pool) = (server.niceness("worker-0"), server.niceness("blocking"));
    assert!(workers.len() == 1 && !pool.is_empty(), "{workers:?}, {pool:?}");
    assert!(pool.iter().all(|nice| *nice >= (workers[0] + 10).min(19)), "{workers:?}, {pool:?}");
}

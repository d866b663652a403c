//! Faults that were found by attacking the program, each with what it did wrong.

use rustix::process::Signal;

use crate::client::{Client, request};
use crate::harness::{Builder, HELLO, Server, Tree, assert_same_bytes, noise, pause};

/// The time that a kept connection may rest was counted from the start of a response: after a slow download it was over.
#[test]
fn a_connection_rests_from_the_end_of_its_response() {
    let tree = Tree::site();
    let large = noise(1, 24 << 20);
    tree.write("large.bin", &large);
    let server = Builder::new(&["--idle-timeout", "700ms"]).tree(tree).start();
    let mut client = server.connect();
    client.send_get("/large.bin");
    // Longer than it may rest; the kernel's buffers do not hold the file, so it is still being sent.
    pause(1200);
    assert_same_bytes(&client.answer().body, &large, "slowly");
    assert_eq!(client.get("/hello.txt").text(), HELLO, "right after it");
}

/// A byte that came after a request with `Connection: close` reset the connection, and what was on its way was lost.
#[test]
fn what_follows_the_last_request_does_not_cost_its_response() {
    let tree = Tree::site();
    let large = noise(2, 1 << 20);
    tree.write("large.bin", &large);
    let server = Server::serving(tree);
    let mut client = server.connect();
    client.send(request("GET", "/large.bin", "Connection: close\r\n"));
    // All of it has left for the kernel by then, and the server is done with the connection unless it lingers.
    pause(200);
    client.send("\r\n");
    assert_same_bytes(&client.answer().body, &large, "with a line end behind the request");
}

/// What the kernel had accepted before the signal was cut off when the listener closed.
#[test]
fn the_backlog_is_served_at_the_end() {
    let server = Server::start(&["--threads", "1", "--queue", "1000", "--shutdown-grace", "10m"]);
    server.assert_well("start");
    // While the process stands still the kernel accepts for it: more than is taken in at once.
    server.signal(Signal::STOP);
    let mut clients: Vec<Client> = (0..400).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send_get("/hello.txt");
    }
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer().text(), HELLO, "connection {number}");
    }
    server.finish().assert_clean();
}

/// With all slots held by idle clients and a full queue, the end waited for room, room for a slot, and the slot for the idle client.
#[test]
fn idle_clients_make_room_at_the_end() {
    let server = Server::start(&["--connections", "1", "--queue", "1", "--shutdown-grace", "10m"]);
    let mut idle = server.connect();
    assert_eq!(idle.get("/hello.txt").text(), HELLO);
    let mut waiting = server.connect();
    waiting.send_get("/hello.txt");
    server.signal(Signal::TERM);
    assert_eq!(waiting.answer().text(), HELLO);
    idle.assert_end("the idle one");
    server.finish().assert_clean();
}

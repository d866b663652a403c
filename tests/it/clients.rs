//! Limits for each client: connections at once and requests a second, by address, and by what a trusted proxy says.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::client::{Client, request};
use crate::harness::{Builder, HELLO, Server, Tree, until};

/// A connection from this address of this machine.
fn connect_from(address: &str, server: &Server) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from: SocketAddr = format!("{address}:0").parse().unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&server.address().into()).unwrap();
    Client::over(TcpStream::from(socket))
}

fn get_for(client: &mut Client, forwarded: &str) -> u16 {
    client.get_with("/hello.txt", &format!("X-Forwarded-For: {forwarded}\r\n")).status
}

/// Whether the client has used up its burst; a slow machine may give it one more.
fn is_limited(mut get: impl FnMut() -> u16) -> bool {
    (0..10).any(|_| get() == 429)
}

#[track_caller]
fn assert_turned_away(mut client: Client) {
    let answer = client.answer();
    assert_eq!((answer.status, answer.need("retry-after"), answer.closes()), (429, "1", true));
}

#[test]
fn connections_at_the_bound() {
    const MOST: usize = 5;
    let server = Server::start(&["--connections-per-ip", "5", "--queue", "1000"]);
    let served = |mut client: Client| {
        assert_eq!(client.get("/hello.txt").text(), HELLO);
        client
    };
    let mut kept: Vec<Client> = (0..MOST).map(|_| served(server.connect())).collect();
    for _ in 0..3 {
        assert_turned_away(server.connect());
    }
    // it may have sent a request with it
    let mut eager = server.connect();
    eager.send_get("/hello.txt");
    assert_turned_away(eager);
    for client in &mut kept {
        assert_eq!(client.get("/hello.txt").text(), HELLO, "those that are in stay");
    }
    // another client has a count of its own
    let others: Vec<Client> = (0..MOST).map(|_| served(connect_from("127.0.0.2", &server))).collect();
    assert_turned_away(connect_from("127.0.0.2", &server));
    drop(others);
    // one goes, one may come
    drop(kept.pop());
    let mut in_vain = 0;
    until("a place is free again", || {
        let mut client = server.connect();
        client.send_get("/hello.txt");
        let status = client.answer().status;
        in_vain += u64::from(status == 429);
        status == 200
    });
    drop(kept);
    let closing = server.stop().assert_clean();
    assert_eq!((closing.shed, closing.turned_away), (0, 5 + in_vain));
}

/// Connections that wait in the queue count too: one client can not fill it.
#[test]
fn one_client_can_not_fill_the_queue() {
    let server = Server::start(&["--threads", "1", "--connections", "2", "--queue", "4", "--connections-per-ip", "3"]);
    let mut first: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in first.iter_mut().take(2) {
        assert_eq!(client.get("/hello.txt").text(), HELLO);
    }
    assert_turned_away(server.connect());
    let mut other = connect_from("127.0.0.2", &server);
    other.send_get("/hello.txt");
    drop(first);
    assert_eq!(other.answer().text(), HELLO);
}

/// A connection is counted out whatever its end.
#[test]
fn places_come_back() {
    let server = Server::start(&["--connections-per-ip", "4"]);
    for round in 0..50 {
        let mut client = server.connect();
        match round % 4 {
            0 => client.send(request("GET", "/hello.txt", "Connection: close\r\n")),
            1 => client.send("GARBAGE\r\n\r\n"),
            2 => client.send("GET /hel"),
            _ => {}
        }
    }
    let mut kept: Vec<Client> = Vec::new();
    until("all places are back", || {
        let mut client = server.connect();
        client.send_get("/hello.txt");
        if client.answer().status == 200 {
            kept.push(client);
        }
        kept.len() == 4
    });
    assert_turned_away(server.connect());
    drop(kept);
}

#[test]
fn requests_at_the_bound() {
    // one in a hundred seconds would be needed for another, if one could say so; a second is enough for this
    let server = Server::start(&["--rate-limit", "1/s:5"]);
    let mut client = server.connect();
    let statuses: Vec<u16> = (0..5).map(|_| client.get("/hello.txt").status).collect();
    assert_eq!(statuses, [200; 5]);
    let answer = (0..10).map(|_| client.get("/hello.txt")).find(|answer| answer.status == 429).expect("a sixth, or soon after");
    assert_eq!(answer.need("retry-after"), "1");
    assert!(!answer.closes(), "the connection may be kept");
    // on another connection it is the same client; from another address it is not
    assert!(is_limited(|| server.get("/hello.txt").status));
    assert_eq!(connect_from("127.0.0.2", &server).get("/hello.txt").status, 200);
    until("the client may ask again", || client.get("/hello.txt").status == 200);
}

/// An upload that is refused for its rate leaves nothing, and its body is no request.
#[test]
fn what_is_refused_is_not_done() {
    let server = Server::start(&["--rate-limit", "1/s:1", "--allow-host", crate::client::HOST]);
    let mut client = server.connect();
    let mut stored = Vec::new();
    for number in 0.. {
        client.send(request("POST", &format!("/uploads/?name={number}"), "Content-Length: 5\r\n") + "hello");
        let answer = client.answer();
        if answer.status == 429 {
            break;
        }
        assert_eq!(answer.status, 201);
        stored.push(number.to_string());
    }
    assert!(!stored.is_empty(), "the first one is within the burst");
    until("the client may ask again", || client.get("/hello.txt").status == 200);
    let names = fs::read_dir(server.tree().path("uploads")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.collect::<std::collections::BTreeSet<_>>(), stored.into_iter().collect());
}

#[test]
fn proxies_speak_for_their_clients_if_they_are_trusted() {
    let server = Server::start(&["--rate-limit", "1/s:2", "--trusted-proxy", "127.0.0.1", "--trusted-proxy", "10.0.0.0/8"]);
    let mut proxy = server.connect();
    let twice = |client: &mut Client, forwarded: &str| [get_for(client, forwarded), get_for(client, forwarded)];
    assert_eq!(twice(&mut proxy, "192.0.2.1"), [200; 2]);
    assert!(is_limited(|| get_for(&mut proxy, "192.0.2.1")));
    assert!(is_limited(|| get_for(&mut proxy, "203.0.113.9, 192.0.2.1, 10.1.2.3")), "what a client adds at the left is not believed");
    assert_eq!(twice(&mut proxy, "192.0.2.2"), [200; 2]);
    assert_eq!(twice(&mut proxy, "2001:db8:0:1::1"), [200; 2]);
    assert!(is_limited(|| get_for(&mut proxy, "2001:db8:0:1:ffff::2")), "one network of IPv6 is one client");
    assert_eq!(twice(&mut proxy, "2001:db8:0:2::1"), [200; 2]);
    // who is no proxy speaks for itself alone
    let mut stranger = connect_from("127.0.0.2", &server);
    assert_eq!([get_for(&mut stranger, "192.0.2.3"), get_for(&mut stranger, "192.0.2.4")], [200; 2]);
    assert!(is_limited(|| get_for(&mut stranger, "192.0.2.5")));
}

/// The connections of a proxy are those of many clients: it may have as many as it likes.
#[test]
fn connections_of_a_trusted_proxy_are_not_counted() {
    let server = Server::start(&["--connections-per-ip", "1", "--trusted-proxy", "127.0.0.1"]);
    let kept: Vec<Client> = (0..10)
        .map(|_| {
            let mut client = server.connect();
            assert_eq!(client.get("/hello.txt").status, 200);
            client
        })
        .collect();
    let mut first = connect_from("127.0.0.2", &server);
    assert_eq!(first.get("/hello.txt").status, 200);
    assert_turned_away(connect_from("127.0.0.2", &server));
    drop(kept);
}

#[test]
fn the_log_has_the_client_behind_the_proxy() {
    let server = Builder::new(&["--access-log", "-", "--trusted-proxy", "127.0.0.1"]).tree(Tree::site()).start();
    let mut client = server.connect();
    for forwarded in ["X-Forwarded-For: 192.0.2.1\r\n", "Forwarded: for=\"[2001:db8::1]:80\"\r\n", "", "X-Forwarded-For: nobody\r\n"] {
        assert_eq!(client.get_with("/hello.txt", forwarded).status, 200);
    }
    let first_words = |lines: &[String]| lines.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    let expected = ["192.0.2.1", "2001:db8::1", "127.0.0.1", "127.0.0.1"];
    let found = server.out.wait_until(crate::harness::PATIENCE, |lines| (lines.len() == 4).then(|| first_words(lines)));
    assert_eq!(found.unwrap(), expected);
    // without the flag nobody is believed
    let server = Builder::new(&["--access-log", "-"]).tree(Tree::site()).start();
    assert_eq!(server.connect().get_with("/hello.txt", "X-Forwarded-For: 192.0.2.1\r\n").status, 200);
    let found = server.out.wait_until(crate::harness::PATIENCE, |lines| (lines.len() == 1).then(|| first_words(lines)));
    assert_eq!(found.unwrap(), ["127.0.0.1"]);
}

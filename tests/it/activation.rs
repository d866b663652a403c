//! Started by systemd: with listeners that it has bound, and told of when the server is ready and when it stops.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::net::sockopt::tcp_congestion;

use crate::client::{Client, request};
use crate::harness::{Builder, HELLO, PATIENCE, SetAtEnd, Tree, until};

/// What systemd does: the socket at descriptor 3, and its number in the environment.
const ACTIVATE: [&str; 3] = ["sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null"];

/// A start with this socket.
fn activated(socket: impl Into<OwnedFd>, args: &[&str]) -> Builder {
    Builder::new(args).through(&ACTIVATE).input(socket.into())
}

#[test]
fn its_listeners_are_used_and_nothing_else_is_bound() {
    let listener = TcpListener::bind("127.0.0.5:0").unwrap();
    let address = listener.local_addr().unwrap();
    // the port that the flags name is taken
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let server = activated(listener, &["--port", &taken]).start();
    assert_eq!(server.addresses(), [address]);
    server.assert_well("activation");
    assert!(TcpStream::connect(("127.0.0.1", taken.parse().unwrap())).is_err());
    server.stop().assert_clean();
}

/// systemd may have set it itself: TCPCongestion=.
#[test]
fn the_congestion_control_of_its_listeners_is_left_alone() {
    for (args, expected) in [(&[][..], "left"), (&["--congestion-control", "reno"], "reno")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = activated(listener.try_clone().unwrap(), args).start();
        let untouched = TcpListener::bind("127.0.0.1:0").unwrap();
        let expected = if expected == "left" { tcp_congestion(&untouched).unwrap() } else { expected.to_owned() };
        assert_eq!(tcp_congestion(&listener), Ok(expected), "{args:?}");
        server.stop().assert_clean();
    }
}

/// That uploads need not be asked for on this machine's own address says nothing of listeners that others have bound.
#[test]
fn uploads_that_nobody_asked_for_are_not_open_to_others() {
    for (address, args, is_on) in [("127.0.0.1:0", &[][..], true), ("0.0.0.0:0", &[], false), ("0.0.0.0:0", &["--uploads", "given"], true)]
    {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let tree = Tree::site();
        let given = tree.outside("given").to_str().unwrap().to_owned();
        let args: Vec<&str> = args.iter().map(|arg| if *arg == "given" { &given[..] } else { arg }).collect();
        let server = activated(listener, &args).tree(tree).start();
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.send("POST /uploads/?name=a.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(client.answer().status == 201, is_on, "{address} {args:?}");
        if !is_on {
            server.wait_for_line("uploads are off: others can reach these listeners");
        }
        server.stop().assert_clean();
    }
}

#[test]
fn what_is_no_listener_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for (name, socket) in
        [("connected", OwnedFd::from(connected)), ("a file", file.into()), ("datagrams", UnixDatagram::unbound().unwrap().into())]
    {
        let ran = activated(socket, &[]).tree(Tree::site()).run();
        assert_eq!((ran.code, ran.err.lines().count()), (Some(2), 1), "{name}: {ran:?}");
        assert!(ran.err.contains("Accept=no"), "{name}: {ran:?}");
    }
}

/// A restart with a load running: the socket stays open, so whoever comes between the two waits and is served.
#[test]
fn no_request_fails_across_a_restart() {
    let tree = Tree::site();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let start = || activated(listener.try_clone().unwrap(), &["--shutdown-grace", "10m"]).root(tree.root()).start();
    let mut server = start();
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let server = thread::scope(|scope| {
        let _stops = SetAtEnd(&stop);
        for number in 0..8 {
            let (stop, served) = (&stop, &served);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::connect(address);
                    client.send(request("GET", "/hello.txt", "Connection: close\r\n"));
                    let answer = client.try_answer(false).unwrap_or_else(|cut| panic!("client {number}: {cut:?}"));
                    assert_eq!(answer.text(), HELLO, "client {number}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..3 {
            let before = served.load(Ordering::Relaxed);
            until("the load is under way", || served.load(Ordering::Relaxed) > before + 100);
            assert_eq!(server.stop().assert_clean().shed, 0);
            server = start();
        }
        let before = served.load(Ordering::Relaxed);
        until("the load is under way", || served.load(Ordering::Relaxed) > before + 100);
        server
    });
    server.stop().assert_clean();
}

#[test]
fn the_manager_is_told_of_the_start_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).expect("something is told");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    let server = Builder::new(&[]).env("NOTIFY_SOCKET", &path).start();
    assert_eq!(hear(), "READY=1");
    server.assert_well("told that it is ready");
    server.stop().assert_clean();
    assert_eq!(hear(), "STOPPING=1");
}

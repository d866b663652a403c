//! Builds that people run have no fault points.

use crate::client::request;
use crate::harness::{HELLO, Server};

#[test]
fn faults_are_not_to_be_had() {
    let server = Server::start(&["--threads", "1"]);
    let mut client = server.connect();
    for fault in ["panic", "panic-late", "worker", "stall=60000", "body", "stream=5", "break=5"] {
        client.send(request("GET", "/hello.txt", &format!("Millpond-Fault: {fault}\r\n")));
        assert_eq!(client.answer().text(), HELLO, "{fault}");
    }
    assert_eq!(server.stop().assert_clean().panics, 0);
}

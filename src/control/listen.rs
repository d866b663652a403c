//! Listeners: bound to each address, with their options set before.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Error;
use crate::config::plan::Plan;

/// Connections that the kernel may hold before they are accepted; it lowers this to its own bound (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Binds a listener to each address, and has it listen or not.
pub fn bind(plan: &Plan, listens: bool) -> Result<Vec<TcpListener>, Error> {
    let mut port = None;
    let mut listeners = Vec::new();
    for address in &plan.listen {
        // one free port serves all addresses
        let address = SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
        let listener = listen(address, listens).map_err(|e| {
            let advice = match e.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program listens there; stop it, or choose another port with --port (0 takes a free one)"
                }
                io::ErrorKind::PermissionDenied => "ports below 1024 need more rights; choose a higher one with --port",
                io::ErrorKind::AddrNotAvailable => "this machine has no such address; choose another one with --host",
                _ => "choose another address with --host or --port",
            };
            Error(format!("can not listen on {address} ({e}): {advice}"))
        })?;
        port = listener.local_addr().ok().map(|a| a.port());
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listen(address: SocketAddr, listens: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // 0.0.0.0 and :: can then stand beside each other
        socket.set_only_v6(true)?;
    }
    // inherited by what it accepts: small responses leave at once
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    if listens {
        socket.listen(BACKLOG)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

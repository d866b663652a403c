//! Listeners: bound by us, by systemd, or by the process that ran before.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use socket2::SockRef;

use crate::config::Error;
use crate::config::plan::Plan;
use crate::net::gate::{self, BACKLOG, Wall};

/// The congestion control of connections from this machine, unless the user names one.
const LOOPBACK_CONGESTION_CONTROL: &[u8] = b"reno";

/// The listeners that systemd has bound for us, if it has (socket activation); they stand in for those of the plan.
///
/// # Errors
///
/// What it has handed over is something else.
pub fn activated(plan: &Plan) -> Result<Option<Vec<TcpListener>>, Error> {
    let mut inherited = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..inherited.len() {
        let listener = inherited.take_tcp_listener(index).ok().flatten().filter(|socket| socket_acceptconn(socket) == Ok(true));
        let Some(listener) = listener else {
            let advice = "use ListenStream= with an address or a port, and Accept=no";
            return Err(Error(format!("socket {index} of those handed over by systemd does not listen for TCP; {advice}")));
        };
        let socket = SockRef::from(&listener);
        let prepared = prepare(&socket, plan).and_then(|()| listener.set_nonblocking(true));
        prepared.map_err(|e| Error(format!("a socket handed over by systemd can not be used: {e}")))?;
        // without the flag it is for the unit to say: TCPCongestion=
        control_congestion(&socket, plan)?;
        listeners.push(listener);
    }
    Ok((!listeners.is_empty()).then_some(listeners))
}

/// A listener for each address of the plan: one of those in `taken`, or a new one, which listens or not.
///
/// # Errors
///
/// An address that can not be listened on.
pub fn bind(plan: &Plan, taken: &mut Vec<TcpListener>, listens: bool) -> Result<Vec<TcpListener>, Error> {
    let mut port = None;
    let mut listeners = Vec::new();
    for address in &plan.listen {
        // one free port serves all addresses
        let address = SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
        let is_it = |listener: &TcpListener| {
            listener.local_addr().is_ok_and(|bound| bound.ip() == address.ip() && [0, bound.port()].contains(&address.port()))
        };
        let listener = match taken.iter().position(is_it) {
            Some(index) => taken.remove(index),
            None => open(address).map_err(|e| failed(address, &e))?,
        };
        let socket = SockRef::from(&listener);
        prepare(&socket, plan).map_err(|e| failed(address, &e))?;
        if listens {
            // where it fails there is no wall, and the gate does with less
            let _ = Wall::allow(&socket);
            socket.listen(BACKLOG).map_err(|e| failed(address, &e))?;
        }
        control_congestion(&socket, plan)?;
        if plan.congestion_control.is_none() && address.ip().is_loopback() {
            // a path without loss or delay: where the system's paces what is sent, that costs time and brings nothing. Every kernel
            // has this one, and if it has not, its own will do
            let _ = socket.set_tcp_congestion(LOOPBACK_CONGESTION_CONTROL);
        }
        port = listener.local_addr().ok().map(|a| a.port());
        listeners.push(listener);
    }
    Ok(listeners)
}

/// A wall beside each listener: one of those in `taken`, or a new one. The rest of `taken` is closed.
pub fn walls(listeners: Vec<TcpListener>, mut taken: Vec<TcpListener>) -> Vec<(TcpListener, Option<Wall>)> {
    let wall = |listener: &TcpListener| {
        let address = listener.local_addr().ok()?;
        match taken.iter().position(|other| other.local_addr().is_ok_and(|bound| bound == address)) {
            Some(index) => Some(Wall::taken(taken.remove(index))),
            None => Wall::beside(listener).ok(),
        }
    };
    let walls: Vec<_> = listeners.iter().map(wall).collect();
    listeners.into_iter().zip(walls).collect()
}

fn failed(address: SocketAddr, e: &io::Error) -> Error {
    let advice = match e.kind() {
        io::ErrorKind::AddrInUse => "another program listens there; stop it, or choose another port with --port (0 takes a free one)",
        io::ErrorKind::PermissionDenied => "ports below 1024 need more rights; choose a higher one with --port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; choose another one with --host",
        _ => "choose another address with --host or --port",
    };
    Error(format!("can not listen on {address} ({e}): {advice}"))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = gate::socket(address)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sets the congestion control that is asked for; it is inherited by all that the listener accepts.
fn control_congestion(listener: &SockRef, plan: &Plan) -> Result<(), Error> {
    let Some(name) = &plan.congestion_control else { return Ok(()) };
    listener.set_tcp_congestion(name.as_bytes()).map_err(|e| {
        let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
        let advice = format!("name one that this system has ({}) and lets you use", known.trim());
        Error(format!("--congestion-control {name:?} can not be used ({e}): {advice}"))
    })
}

/// Sets what is inherited by all that a listener accepts.
fn prepare(listener: &SockRef, plan: &Plan) -> io::Result<()> {
    // small responses leave at once
    listener.set_tcp_nodelay(true)?;
    // what a client does not take stays where it is; see `Io::takes`
    listener.set_tcp_notsent_lowat(plan.limits.unsent_limit.try_into().unwrap_or(u32::MAX))
}

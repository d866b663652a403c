//! Limits for each client: how many connections it has at once, and how many requests it makes in a second.
//!
//! A client is an IPv4 address or, as one household or machine has that many, a /64 of IPv6. Behind a trusted proxy it is the address
//! that the proxy speaks for; connections of the proxy itself are not counted. All this is off unless it is asked for, and then costs
//! nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use rustix::net::{RecvFlags, SendFlags};

use crate::config::limits::RATED_CLIENTS;
use crate::config::plan::Clients as Rules;
use crate::config::units::Rate;
use crate::http::refuse::Refuse;
use crate::http::{Request, forwarded};

/// How often those who have not asked for a while are forgotten, at most, when there is no room for more.
const SWEEP: Duration = Duration::from_millis(100);

/// The answer to a connection that is one too many of its client.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 50\r\nconnection: close\r\n\r\nThere are too many connections from your address.\n";

/// The limits, and what is known of each client.
#[derive(Debug)]
pub struct Clients {
    trusted: Box<[IpNet]>,
    most_connections: Option<usize>,
    /// The connections of those who have some.
    connections: Mutex<HashMap<IpAddr, usize>>,
    rates: Option<Rates>,
}

impl Clients {
    /// These limits, of which there may be none.
    pub fn new(rules: &Rules) -> Clients {
        Clients {
            trusted: rules.trusted.clone().into(),
            most_connections: rules.connections,
            connections: Mutex::default(),
            rates: rules.rate.map(|rate| Rates::new(rate, RATED_CLIENTS)),
        }
    }

    /// Whether requests are looked at by the address of their connection.
    pub fn needs_peer(&self) -> bool {
        self.rates.is_some()
    }

    /// Counts a connection in. `None`: its client has as many as it may have.
    pub fn enter(self: &Arc<Self>, socket: &TcpStream) -> Option<Place> {
        let Some(most) = self.most_connections else { return Some(Place::default()) };
        // one that is gone already is seen to be when it is read
        let Ok(peer) = socket.peer_addr() else { return Some(Place::default()) };
        let peer = peer.ip().to_canonical();
        if self.is_trusted(peer) {
            return Some(Place::default());
        }
        let client = key(peer);
        let mut connections = self.connections();
        let count = connections.entry(client).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place(Some((Arc::clone(self), client))))
    }

    /// The client that a request comes from.
    pub fn client(&self, peer: IpAddr, request: &Request) -> IpAddr {
        if self.trusted.is_empty() { peer } else { forwarded::client(peer, request, |address| self.is_trusted(address)) }
    }

    /// Refuses a request that comes before its client may make another one.
    pub fn admit(&self, peer: IpAddr, request: &Request) -> Result<(), Refuse> {
        let Some(rates) = &self.rates else { return Ok(()) };
        rates.take(key(self.client(peer, request))).map_err(Refuse::too_many)
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is counted for its client, until this is dropped.
#[derive(Debug, Default)]
pub struct Place(Option<(Arc<Clients>, IpAddr)>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some((clients, client)) = &self.0 else { return };
        if let Entry::Occupied(mut count) = clients.connections().entry(*client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or a /64 of IPv6.
fn key(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Tells a connection that it is one too many. The client may not have said anything yet: nothing is waited for.
pub fn turn_away(socket: &TcpStream) {
    // what has come and is not read would reset the connection when it is closed, and the client might lose the answer
    let _ = rustix::net::recv(socket, &mut [0; 4096], RecvFlags::DONTWAIT);
    // fresh, the socket has room for this; a client that is gone needs no answer
    let _ = rustix::net::send(socket, TOO_MANY, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// The requests of each client in the last moments.
#[derive(Debug)]
struct Rates {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    most_clients: usize,
    swept: Mutex<Option<Instant>>,
}

impl Rates {
    fn new(rate: Rate, most_clients: usize) -> Rates {
        let quota = Quota::per_second(rate.per_s).allow_burst(rate.burst);
        Rates { limiter: RateLimiter::keyed(quota), most_clients, swept: Mutex::new(None) }
    }

    /// Takes a request of the client; or says how long it has to wait before the next one.
    fn take(&self, client: IpAddr) -> Result<(), Duration> {
        // so many are at it in this very moment: no single one of them is the trouble
        if self.limiter.len() >= self.most_clients && !self.sweep() {
            return Ok(());
        }
        self.limiter.check_key(&client).map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }

    /// Forgets those who could make a whole burst of requests again; says whether that made room.
    fn sweep(&self) -> bool {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            self.limiter.retain_recent();
            *swept = Some(Instant::now());
        }
        self.limiter.len() < self.most_clients
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn rate(per_s: u32, burst: u32) -> Rate {
        Rate { per_s: NonZeroU32::new(per_s).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    fn v4(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_burst_and_no_more() {
        let rates = Rates::new(rate(1, 3), 10);
        for _ in 0..3 {
            assert_eq!(rates.take(v4(1)), Ok(()));
        }
        let wait = rates.take(v4(1)).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(rates.take(v4(2)), Ok(()), "another client");
    }

    #[test]
    fn no_more_clients_are_remembered_than_may_be() {
        let rates = Rates::new(rate(1, 1), 3);
        for client in 1..=3 {
            assert_eq!(rates.take(v4(client)), Ok(()));
        }
        // all three have just used up their burst: nobody can be forgotten, and nobody is held back
        for client in 1..=20 {
            assert_eq!(rates.take(v4(client)), Ok(()));
        }
        assert_eq!(rates.limiter.len(), 3);

        // those who are as good as new make room
        let rates = Rates::new(rate(1_000_000, 1), 3);
        for client in 1..=20 {
            std::thread::sleep(SWEEP / 10);
            assert_eq!(rates.take(v4(client)), Ok(()));
            assert!(rates.limiter.len() <= 3);
        }
    }

    #[test]
    fn neighbours_in_one_network_of_ipv6_are_one_client() {
        let of = |text: &str| key(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn the_answer_has_the_length_that_it_says() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }
}

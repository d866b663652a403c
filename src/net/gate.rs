//! The gate: how the door holds connections back when the server is behind.
//!
//! A connection that is refused with 503 costs most of what it costs to serve it. So past the capacity of the server most of the
//! surplus must not come in at all: of the packets that ask for a connection the kernel drops a part, which costs next to nothing,
//! and the clients' kernels ask again after a second. Which part that is gets found step by step, from how long connections wait.
//! It is left to the kernel and chance, so that no more come in while the whole process is stopped, as a processor quota does. A
//! few are let in beyond that to be told 503 at once, as far as a budget goes that grows with what is served.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use nix::libc::{sock_filter, sock_fprog};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::AttachReusePortCbpf;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// Connections that the kernel may hold before they are accepted; it lowers this to its own bound (net.core.somaxconn). A burst has
/// to fit in, and what is more than a burst is held back by the gate before it is full.
pub const BACKLOG: i32 = 4096;
/// How often the gate is set anew: long against the times for which a quota stops a whole process.
const STEP: Duration = Duration::from_millis(100);
/// The gate lets so many in that the longest wait within a step is this part of the time that a connection may wait. An open gate
/// begins to hold connections back when one has waited for that.
const AIM: f64 = 0.3;
/// At this part the gate is shut.
const ALARM: f64 = 0.5;
/// Below this part a gate that was shut lets connections in again.
const RELIEF: f64 = 0.2;
/// How much a step changes the gate when nobody waits, and at most.
const GAIN: f64 = 0.3;
const RISE: f64 = 1.2;
/// What is let in at first, the least that ever is, and by how much it is lowered after the gate had to be shut.
const FIRST: f64 = 0.7;
const LEAST: f64 = 1.0 / 256.0;
const LOWERED: f64 = 0.8;
/// The gate opens when so few come that they would be this part of what can be served.
const FEW: f64 = 0.7;
/// What an estimate keeps of its last value.
const INERTIA: f64 = 0.6;
/// How long the server has to be behind before anyone is refused for it: a burst passes.
const BURST: Duration = Duration::from_millis(200);
/// How long the gate has to be open for the server to be behind no more.
const CALM: Duration = Duration::from_millis(500);
/// One connection may be refused for so many that are served: that bounds what refusals may cost to a ninth of all work.
const SERVED_FOR_ONE: usize = 8;
/// Refusals that may be saved up.
const SAVED: usize = 16;
/// How long the connection that a wall holds may take: it does not leave the machine.
const FILL: Duration = Duration::from_secs(1);

/// How far the gate is open, and who is refused.
#[derive(Debug)]
pub struct Gate {
    wait: Duration,
    /// The part of all connections that is let in.
    pass: f64,
    /// The same, when the gate was last neither open nor shut.
    found: Option<f64>,
    /// Connections a second that the workers take when some wait.
    pace: Option<f64>,
    step: Step,
    /// Since when the server is behind.
    since: Option<Instant>,
    /// When the gate was last not open.
    held: Option<Instant>,
    /// Whether a connection has waited for long enough to keep the gate shut, in this step or the last. What was before the gate
    /// opened for the first time again does not count: that may have been a moment that is over.
    is_waited: bool,
    /// Whether the gate has been shut and opened again since the server is behind.
    has_reopened: bool,
    /// What may be spent on refusals, in connections served.
    budget: usize,
}

/// What is seen at the door.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// Connections that came into the queue since the last look.
    pub came: usize,
    /// Connections that workers took since then.
    pub served: usize,
    /// How long the oldest that waits has waited, also with the kernel.
    pub waited: Duration,
    /// Whether the kernel may hold more.
    pub is_behind: bool,
}

/// What was seen since the gate was last set.
#[derive(Debug, Default)]
struct Step {
    since: Option<Instant>,
    came: usize,
    served: usize,
    longest: Duration,
}

impl Gate {
    /// An open gate for connections that may wait for this time.
    pub fn new(wait: Duration) -> Gate {
        Gate {
            wait,
            pass: 1.0,
            found: None,
            pace: None,
            step: Step::default(),
            since: None,
            held: None,
            is_waited: false,
            has_reopened: false,
            budget: 0,
        }
    }

    /// Takes in what is seen; returns the part of all connections that is to be let in from now on, if that changes.
    pub fn judge(&mut self, sight: Sight, now: Instant) -> Option<f64> {
        self.budget = (self.budget + sight.served).min(SAVED * SERVED_FOR_ONE);
        self.step.came += sight.came;
        self.step.served += sight.served;
        self.step.longest = self.step.longest.max(sight.waited);
        let time = now.saturating_duration_since(*self.step.since.get_or_insert(now));
        let has_waited = |part: f64| sight.waited >= self.wait.mul_f64(part);
        self.is_waited |= has_waited(RELIEF);
        let pass = if self.is_open() {
            if has_waited(AIM) {
                self.found.unwrap_or(FIRST)
            } else {
                if self.held.is_some_and(|held| now.saturating_duration_since(held) >= CALM) {
                    (self.found, self.pace, self.since, self.held) = (None, None, None, None);
                    self.has_reopened = false;
                }
                self.is_waited = has_waited(RELIEF);
                return None;
            }
        } else if self.pass == 0.0 {
            if sight.is_behind || has_waited(RELIEF) { self.pass } else { self.found.unwrap_or(FIRST) }
        } else if has_waited(ALARM) {
            self.found = Some((self.pass * LOWERED).max(LEAST));
            0.0
        } else if time >= STEP {
            self.fitting(time.as_secs_f64())
        } else {
            self.pass
        };
        self.since.get_or_insert(now);
        self.held = Some(now);
        if pass == self.pass && time < STEP {
            return None;
        }
        if pass > 0.0 && pass < 1.0 {
            self.found = Some(pass);
        }
        let reopens = self.pass == 0.0 && pass > 0.0;
        self.is_waited = self.step.longest >= self.wait.mul_f64(RELIEF) && (!reopens || self.has_reopened);
        self.has_reopened |= reopens;
        self.step = Step { since: Some(now), ..Step::default() };
        (std::mem::replace(&mut self.pass, pass) != pass).then_some(pass)
    }

    /// What is to be let in after a step that took this time.
    fn fitting(&mut self, time_s: f64) -> f64 {
        let Step { came, served, longest, .. } = self.step;
        if longest >= self.wait.mul_f64(RELIEF) {
            let pace = served as f64 / time_s;
            self.pace = Some(self.pace.map_or(pace, |before| before * INERTIA + pace * (1.0 - INERTIA)));
        }
        let offered = came as f64 / time_s / self.pass;
        if offered <= self.pace.unwrap_or(0.0) * FEW {
            return 1.0;
        }
        let off = 1.0 - longest.as_secs_f64() / (self.wait.as_secs_f64() * AIM);
        (self.pass * (1.0 + GAIN * off).min(RISE)).clamp(LEAST, 1.0)
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.pass == 1.0
    }

    /// Since when it is not open, but for short times, if it is not.
    pub fn held_since(&self) -> Option<Instant> {
        self.since.filter(|_| !self.is_open())
    }

    /// Whether a connection that has just come is to be refused: the server is behind, by more than a burst, and can afford it. Once
    /// nobody waits any more there is time for all that come, though the gate may still be on its way to open.
    pub fn refuses(&mut self, now: Instant) -> bool {
        let is_behind = self.is_waited && self.since.is_some_and(|since| now.saturating_duration_since(since) >= BURST);
        let is_due = self.budget >= SERVED_FOR_ONE && is_behind;
        if is_due {
            self.budget -= SERVED_FOR_ONE;
        }
        is_due
    }
}

/// How the kernel is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// By a program that leads what is held back to a wall beside the listener.
    Wall,
    /// By a filter on the listener. Newer kernels let only those set one who may administer the network.
    Filter,
    /// By a backlog of nothing: the gate is open or shut, and a client whose connection was under way when it shut believes itself
    /// connected, and finds out late.
    Backlog,
}

impl Means {
    /// The best that this system has for these listeners, and why it is neither wall nor filter if it is not.
    pub fn of(listeners: &[(TcpListener, Option<Wall>)]) -> (Means, Option<io::Error>) {
        if listeners.iter().all(|(_, wall)| wall.is_some()) {
            return (Means::Wall, None);
        }
        let tried = listeners.iter().try_for_each(|(listener, _)| {
            SockRef::from(listener).attach_filter(&filter(1.0))?;
            SockRef::from(listener).detach_filter()
        });
        match tried {
            Ok(()) => (Means::Filter, None),
            Err(e) => (Means::Backlog, Some(e)),
        }
    }

    /// Lets this part of all new connections in at this listener.
    ///
    /// # Errors
    ///
    /// The system will not.
    pub fn set(self, listener: &TcpListener, pass: f64) -> io::Result<()> {
        match self {
            Means::Wall if pass == 1.0 => steer(listener, &mut [answer(LISTENER)]),
            Means::Wall => steer(listener, &mut by_chance(pass)),
            Means::Filter if pass == 1.0 => SockRef::from(listener).detach_filter(),
            Means::Filter => SockRef::from(listener).attach_filter(&filter(pass)),
            Means::Backlog => rustix::net::listen(listener, if pass < 0.5 { 0 } else { BACKLOG }).map_err(io::Error::from),
        }
    }
}

/// A second listener at the address of another. It has no backlog and holds one connection that nobody accepts, so the kernel drops
/// whatever asks for one here, and answers nothing.
///
/// Both make up a group (`SO_REUSEPORT`), for which a program of ours tells where each packet that asks for a connection goes. It
/// takes no rights to set that program. The address is ours alone all the same: when the first of the two is bound, it is not shared.
#[derive(Debug)]
pub struct Wall(TcpListener);

/// Their places in the group, by the order in which they began to listen.
const LISTENER: u32 = 0;
const WALL: u32 = 1;

impl Wall {
    /// Lets a wall be built beside this socket, which is bound and does not listen yet.
    ///
    /// # Errors
    ///
    /// The system will not.
    pub fn allow(listener: &SockRef) -> io::Result<()> {
        listener.set_reuse_port(true)
    }

    /// Builds a wall beside a listener that allows it.
    ///
    /// # Errors
    ///
    /// The listener does not allow it or belongs to another user, or the system has no such groups.
    pub fn beside(listener: &TcpListener) -> io::Result<Wall> {
        steer(listener, &mut [answer(LISTENER)])?;
        let address = listener.local_addr()?;
        let wall = socket(address)?;
        wall.set_reuse_port(true)?;
        wall.bind(&address.into())?;
        wall.listen(0)?;
        let filled = fill(listener, address);
        steer(listener, &mut [answer(LISTENER)])?;
        filled.map(|()| Wall(wall.into()))
    }

    /// The wall that another process has built.
    pub fn taken(wall: TcpListener) -> Wall {
        Wall(wall)
    }

    /// Its socket, for another process.
    pub fn socket(&self) -> &TcpListener {
        &self.0
    }
}

/// A socket for a listener at this address; it is not bound yet.
///
/// # Errors
///
/// The system will not.
pub fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // 0.0.0.0 and :: can then stand beside each other
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Makes the one connection that a wall holds: no other is led there meanwhile.
fn fill(listener: &TcpListener, wall: SocketAddr) -> io::Result<()> {
    let (loopback, port_at): (IpAddr, u32) =
        if wall.is_ipv4() { (Ipv4Addr::LOCALHOST.into(), 20) } else { (Ipv6Addr::LOCALHOST.into(), 40) };
    let to = SocketAddr::new(if wall.ip().is_unspecified() { loopback } else { wall.ip() }, wall.port());
    let filler = Socket::new(Domain::for_address(wall), Type::STREAM, Some(Protocol::TCP))?;
    filler.bind(&SocketAddr::new(to.ip(), 0).into())?;
    let port = filler.local_addr()?.as_socket().map_or(0, |address| address.port());
    let mut by_port = [
        // A = the port that the packet comes from: it follows the header of IP
        code(0x28, 0, 0, NETWORK_HEADER + port_at),
        // if A == port answer the wall, else the listener
        code(0x15, 0, 1, port.into()),
        answer(WALL),
        answer(LISTENER),
    ];
    steer(listener, &mut by_port)?;
    // it stays in the backlog of the wall when it is closed here
    filler.connect_timeout(&to.into(), FILL)
}

/// Sets the program of the group of a listener.
fn steer(listener: &TcpListener, program: &mut [sock_filter]) -> io::Result<()> {
    let program = sock_fprog { len: program.len().try_into().unwrap_or(0), filter: program.as_mut_ptr() };
    Ok(setsockopt(listener, AttachReusePortCbpf, &program)?)
}

const fn code(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

const fn answer(value: u32) -> sock_filter {
    code(0x06, 0, 0, value)
}

/// Leads this part of what asks for a connection to the listener, by chance, and the rest to the wall.
fn by_chance(pass: f64) -> [sock_filter; 4] {
    [
        // A = a random number
        code(0x20, 0, 0, RANDOM),
        // if A >= this part of all numbers answer the wall, else the listener
        code(0x35, 0, 1, part_of_all(pass)),
        answer(WALL),
        answer(LISTENER),
    ]
}

/// Where a program finds a random number and the header of IP (SKF_AD_RANDOM and SKF_NET_OFF in linux/filter.h).
const RANDOM: u32 = 0xffff_f038;
const NETWORK_HEADER: u32 = 0xfff0_0000;

fn part_of_all(pass: f64) -> u32 {
    (pass * f64::from(u32::MAX)) as u32
}

/// Passes this part of what asks for a connection (SYN without ACK), by chance, and everything else. A connection inherits this from
/// its listener; there it has nothing to drop.
fn filter(pass: f64) -> [SockFilter; 7] {
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [
        // A = the flags of the TCP header, without those that do not matter
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x54, 0, 0, SYN | ACK),
        // if A == SYN go on, else pass
        SockFilter::new(0x15, 0, 3, SYN),
        // A = a random number
        SockFilter::new(0x20, 0, 0, RANDOM),
        // if A >= this part of all numbers drop, else pass
        SockFilter::new(0x35, 0, 1, part_of_all(pass)),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    const WAIT: Duration = Duration::from_millis(80);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn waited(time_ms: u64) -> Sight {
        Sight { waited: ms(time_ms), ..Sight::default() }
    }

    fn served(served: usize) -> Sight {
        Sight { served, ..Sight::default() }
    }

    #[test]
    fn the_gate_is_used_when_connections_wait() {
        let now = Instant::now();
        let mut gate = Gate::new(WAIT);
        assert_eq!(gate.judge(waited(23), now), None);
        assert_eq!(gate.judge(waited(24), now), Some(FIRST));
        assert_eq!(gate.judge(waited(39), now), None);
        assert_eq!(gate.judge(waited(40), now), Some(0.0));
        assert_eq!(gate.judge(waited(16), now), None);
        assert_eq!(gate.judge(Sight { is_behind: true, ..waited(0) }, now), None, "the kernel may hold more");
        assert_eq!(gate.judge(waited(15), now), Some(FIRST * LOWERED));
        assert_eq!(gate.judge(waited(0), now + STEP), Some(1.0), "nobody comes");
    }

    /// A server that is stopped for most of the time, and to which twice and four times as many come as it can serve: nobody waits
    /// for too long, and hardly any time is lost.
    #[test]
    fn the_gate_finds_what_fits() {
        const SERVED: usize = 50;
        for offered in [100.0, 200.0] {
            let mut now = Instant::now();
            let mut gate = Gate::new(WAIT);
            let (mut pass, mut queue, mut served_in_all, mut longest) = (1.0, std::collections::VecDeque::new(), 0, ms(0));
            for period in 0..1000 {
                now += ms(10);
                let came = (offered * pass) as usize;
                queue.extend(std::iter::repeat_n(now, came));
                let waited = queue.front().map_or(ms(0), |at| now - *at);
                let served = queue.len().min(SERVED);
                for at in queue.drain(..served) {
                    if period >= 100 {
                        longest = longest.max(now - at);
                        served_in_all += 1;
                    }
                }
                pass = gate.judge(Sight { came, served, waited, is_behind: false }, now).unwrap_or(pass);
            }
            assert!(longest <= WAIT, "{offered}: {longest:?}");
            assert!(served_in_all >= 900 * SERVED * 9 / 10, "{offered}: {served_in_all}");
            // when so few come that they fit, the gate opens
            for _ in 0..20 {
                now += ms(10);
                gate.judge(Sight { came: (20.0 * gate.pass) as usize, served: 20, ..Sight::default() }, now);
            }
            assert!(gate.is_open());
        }
    }

    #[test]
    fn a_burst_is_not_refused() {
        let now = Instant::now();
        let mut gate = Gate::new(WAIT);
        gate.judge(served(1000), now);
        assert!(!gate.refuses(now));
        gate.judge(waited(40), now);
        gate.judge(waited(60), now);
        assert!(!gate.refuses(now + BURST - ms(1)));
        assert!(gate.refuses(now + BURST));
        // and what came of it is forgotten when the gate has been open for a while
        let opens = now + BURST;
        assert_eq!(gate.judge(waited(0), opens), Some(FIRST * LOWERED));
        assert_eq!(gate.judge(waited(0), opens + STEP), Some(1.0));
        gate.judge(waited(0), opens + STEP + CALM - ms(1));
        gate.judge(waited(16), opens + STEP + CALM - ms(1));
        assert!(gate.refuses(opens + STEP + CALM));
        gate.judge(waited(0), opens + STEP + CALM);
        assert!(!gate.refuses(opens + STEP + CALM));
    }

    /// While the gate opens again step by step, those that it lets in are served.
    #[test]
    fn nobody_is_refused_when_nobody_waits() {
        let now = Instant::now();
        let at = |ms_later| now + BURST + ms(ms_later);
        let mut gate = Gate::new(WAIT);
        gate.judge(Sight { served: 1000, came: 1000, ..waited(40) }, now);
        gate.judge(waited(40), at(0));
        assert!(gate.refuses(at(0)), "it is shut");
        gate.judge(waited(15), at(1));
        assert!(!gate.refuses(at(1)), "it opens again, and what was before does not count");
        gate.judge(waited(15), at(50));
        assert!(!gate.refuses(at(50)));
        gate.judge(waited(16), at(51));
        assert!(gate.refuses(at(51)));
        // so many come that it stays in use
        gate.judge(Sight { came: 1000, ..waited(15) }, at(101));
        assert!(gate.refuses(at(101)), "one has waited in the last step");
        gate.judge(Sight { came: 1000, ..waited(15) }, at(200));
        assert!(gate.refuses(at(200)));
        gate.judge(Sight { came: 1000, ..waited(15) }, at(201));
        assert!(!gate.refuses(at(201)), "nobody has in this one and the last");
        // the second time it is no moment any more
        gate.judge(waited(40), at(210));
        gate.judge(waited(40), at(211));
        assert!(gate.refuses(at(211)), "it is shut");
        gate.judge(waited(15), at(212));
        assert!(gate.refuses(at(212)));
        // few come, and it opens, right after one has waited
        assert_eq!(gate.judge(waited(16), at(312)), Some(1.0));
        assert!(gate.refuses(at(312)));
        gate.judge(waited(15), at(313));
        assert!(!gate.refuses(at(313)));
    }

    #[test]
    fn refusals_keep_to_their_budget() {
        let now = Instant::now();
        let mut gate = Gate::new(WAIT);
        gate.judge(waited(40), now);
        let later = now + BURST;
        gate.judge(Sight { served: SERVED_FOR_ONE - 1, ..waited(40) }, later);
        assert!(!gate.refuses(later));
        gate.judge(Sight { served: 1, ..waited(40) }, later);
        assert!(gate.refuses(later));
        assert!(!gate.refuses(later));
        gate.judge(Sight { served: usize::from(u16::MAX), ..waited(40) }, later);
        assert_eq!((0..1000).filter(|_| gate.refuses(later)).count(), SAVED);
    }

    /// Nobody connects to a closed gate, some to one that is ajar, and what was connected before goes on.
    fn assert_holds_back(means: Means, listener: &TcpListener) {
        let address = listener.local_addr().unwrap();
        let _before = TcpStream::connect(address).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        means.set(listener, 0.0).unwrap();
        assert!((0..4).all(|_| TcpStream::connect_timeout(&address, ms(50)).is_err()), "{means:?}");
        means.set(listener, 0.5).unwrap();
        let connected = (0..64).filter(|_| TcpStream::connect_timeout(&address, ms(2)).is_ok()).count();
        assert!((1..64).contains(&connected), "{means:?}: {connected} of 64");
        io::Write::write_all(&mut accepted, b"still here").unwrap();
        means.set(listener, 1.0).unwrap();
        assert!((0..16).all(|_| TcpStream::connect_timeout(&address, ms(500)).is_ok()), "{means:?}");
    }

    #[test]
    fn a_filter_holds_back_new_connections_alone() {
        let listeners = [(TcpListener::bind("127.0.0.1:0").unwrap(), None)];
        // newer kernels have it for few
        if Means::of(&listeners).0 == Means::Filter {
            assert_holds_back(Means::Filter, &listeners[0].0);
        }
    }

    #[test]
    fn a_wall_holds_back_new_connections_alone_and_the_address_stays_ours() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            listener.bind(&address.into()).unwrap();
            let listener = TcpListener::from(listener);
            assert!(Wall::beside(&listener).is_err(), "{address}: it does not allow one");
            Wall::allow(&SockRef::from(&listener)).unwrap();
            rustix::net::listen(&listener, BACKLOG).unwrap();
            let wall = Wall::beside(&listener).unwrap();
            let listeners = [(listener, Some(wall))];
            let (means, why) = Means::of(&listeners);
            assert!((means, why.is_none()) == (Means::Wall, true), "{address}");
            assert_holds_back(means, &listeners[0].0);
            assert!(TcpListener::bind(listeners[0].0.local_addr().unwrap()).is_err(), "{address}: another program may listen there");
        }
    }
}

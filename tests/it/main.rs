//! The integration tests: they start the real program on a free port, speak to it over plain sockets and look at nothing but what it sends,
//! prints and leaves behind. One binary, so that it links once; a module for each part of what was promised.
//!
//! Each rule that has many cases is a table, and the name of the row stands in the failure message. Every read has a deadline, so no test
//! hangs; where something takes time, the test waits for the event and not for the clock.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "what is skipped is said, and the server's messages are shown with a failure")]

mod client;
mod harness;
mod http_date;

mod activation;
mod archive;
mod bodies;
mod bounds;
mod budget;
mod changes;
mod cli;
mod clients;
mod codings;
mod corpus;
mod deadlines;
mod digests;
mod errors;
mod files;
mod heads;
mod keepalive;
mod listing;
mod log;
mod methods;
mod paths;
mod pool;
mod preconditions;
mod ranges;
mod regressions;
mod sample;
mod sandbox;
mod shutdown;
mod sites;
mod symlinks;
mod system_calls;
mod takeover;
mod uploads;
mod user;
mod walls;
mod wire;

#[cfg(debug_assertions)]
mod anomalies;
#[cfg(debug_assertions)]
mod faults;
#[cfg(debug_assertions)]
mod overload;
#[cfg(not(debug_assertions))]
mod release;
#[cfg(debug_assertions)]
mod streams;

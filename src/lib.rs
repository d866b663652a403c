//! Millpond: a web server for files.
//!
//! The library is what the program is made of, for tests, fuzzing, benchmarks and for embedding; until 1.0 its API may change.
//! The modules, in reading order; each uses only those above it.

#![forbid(unsafe_code)]

pub mod http;

pub mod config;

pub mod observe;

pub mod files;

pub mod site;

pub mod net;

pub mod control;

pub mod cli;

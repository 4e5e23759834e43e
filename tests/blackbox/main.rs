//! The engine from outside: the real binary, and the clients that others wrote.
//!
//! Each test starts an engine of its own on free ports over a directory of its own, so that they
//! run side by side. Real clients show that the protocols are what the world speaks; the socket
//! client in `wire` says what no well-behaved client would.

#![allow(clippy::unwrap_used)] // a test's panic is its report

mod clients;
mod engine;
mod random;
mod sequences;
mod wire;

mod benching;
mod cleaning;
mod consuming;
mod cores;
mod crowd;
mod damage;
mod mqtt_rules;
mod partitioning;
mod payloads;
mod publishing;
mod reconnecting;
mod redriving;
mod reloading;
mod restarting;
mod rules;
mod segments;
mod slow_log;
mod starting;
mod streams;
mod tables;

//! `tidegate log` from outside: the real binary over a small directory that the real log wrote.

#![allow(clippy::unwrap_used)] // a test's panic is its report

mod data;
mod exporting;
mod golden;
mod harming;
mod looking;
mod repairing;
mod verifying;

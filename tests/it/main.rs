//! pail from outside: a server on a real socket, and clients that hold it to the contract. A module a promise.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test that can't go on says so and stops

mod add;
mod age;
mod auth;
mod bench;
mod binary;
mod cli;
mod config;
mod crash;
mod deadline;
mod descriptors;
mod doctor;
mod drain;
mod entries;
mod errors;
mod export;
mod lag;
mod lifecycle;
mod limits;
mod link_command;
mod metrics;
mod paging;
mod promise;
mod random;
mod raw;
mod resume;
mod support;
mod tidy;
mod times;
mod tls;
mod traces;
mod transact;
mod watch;
mod watch_churn;
mod watch_entries;

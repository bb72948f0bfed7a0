//! The contract over the core: one handler for each RPC.

pub mod status;

//! The contract over the core: one handler for each RPC.

pub mod codec;
pub mod status;
pub mod streams;

//! The locks, the atomics and what else the layers below the service share between threads, under one name: so
//! `tests/interleavings` can put others in their place, with which it walks through every order of their steps.

pub(crate) use std::{
    hash::RandomState,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
    thread_local,
};

pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock};

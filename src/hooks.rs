//! Faults on demand, for the tests of what a crash does. No release build has them: see the feature `test-hooks`.

/// A key or a name that begins with this makes its handler panic, with the rest as the message.
pub const PANIC: &str = "test-hook:panic:";

/// Panics where `text` asks for it.
pub fn trip(text: &str) {
    if let Some(message) = text.strip_prefix(PANIC) {
        panic!("{message}");
    }
}

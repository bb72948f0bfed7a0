//! Every bound that pail keeps, with its default and what happens at it.
//!
//! The fields of [`Limits`] are options of `pail serve`; what follows them are bounds that no one has needed to move.
//! A refused request changes nothing.

use std::time::Duration;

use clap::Args;

use crate::memory;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The bounds that an operator can set. The defaults are [`Limits::default`]'s.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
#[allow(clippy::doc_markdown, clippy::struct_field_names)] // the docs are the help; `_max` is our name for a bound
pub struct Limits {
    /// Bytes of a bucket's name; more is INVALID_NAME
    #[arg(long, value_name = "BYTES", default_value_t = 255, value_parser = bounded(1, KIB))]
    pub name_bytes_max: usize,

    /// Bytes of a key; more is INVALID_KEY
    #[arg(long, value_name = "BYTES", default_value_t = KIB, value_parser = bounded(1, 64 * KIB))]
    pub key_bytes_max: usize,

    /// Bytes of a text or data value; more is TOO_LARGE. At most half of --message-bytes-max
    #[arg(long, value_name = "BYTES", default_value_t = MIB, value_parser = bounded(1, 1 << 30))]
    pub value_bytes_max: usize,

    /// Bytes of one message, in either direction; more is TOO_LARGE. Most clients accept no more than 4 MiB
    #[arg(long, value_name = "BYTES", default_value_t = 4 * MIB, value_parser = bounded(256 * KIB, 1 << 30))]
    pub message_bytes_max: usize,

    /// Bytes of requests that have begun and are not whole, in the whole server; more is OVERLOADED
    #[arg(long, value_name = "BYTES", default_value_t = 32 * MIB, value_parser = bounded(MIB, 1 << 40))]
    pub undecoded_bytes_max: usize,

    /// Bytes of answers of more than 64 KiB that clients have not taken, in the whole server; more is OVERLOADED.
    /// What one worker has freed of them may stay with it for a while, when another begins
    #[arg(long, value_name = "BYTES", default_value_t = 24 * MIB, value_parser = bounded(MIB, 1 << 40))]
    pub untaken_bytes_max: usize,

    /// How long calls wait for their turn at most, about, once a worker has been asked for more than it can do for 100 ms; what
    /// would wait longer is OVERLOADED, but for health and Link: seconds, or a number with ms or s
    #[arg(long, value_name = "TIME", default_value = "100ms",
          value_parser = time(Duration::from_millis(1), Duration::from_secs(60)))]
    pub queue_time_max: Duration,

    /// Living buckets; more is TOO_MANY_BUCKETS
    #[arg(long, value_name = "COUNT", default_value_t = 10_000_000, value_parser = bounded(1, 1 << 40))]
    pub buckets_max: usize,

    /// Entries of one bucket; more is TOO_MANY_ENTRIES
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = bounded(1, 1 << 40))]
    pub entries_max: usize,

    /// Bytes that one bucket is charged for; more is OUT_OF_MEMORY
    #[arg(long, value_name = "BYTES", default_value_t = 256 * MIB, value_parser = bounded(1, 1 << 50))]
    pub bucket_bytes_max: usize,

    /// Bytes that all buckets together are charged for; more is OUT_OF_MEMORY [default: 75 % of the machine's memory or
    /// of the cgroup's, whichever is less]
    #[arg(long, value_name = "BYTES", default_value_t = memory::available() / 4 * 3, hide_default_value = true,
          value_parser = bounded(1, 1 << 50))]
    pub memory_bytes_max: usize,

    /// Bytes that the process may have in memory, whatever for, while more is put: where it has them, what would be charged
    /// more for is OUT_OF_MEMORY, lest the kernel end all of it [default: 7/8 of the machine's memory or of the cgroup's,
    /// whichever is less]
    #[arg(long, value_name = "BYTES", default_value_t = memory::available() / 8 * 7, hide_default_value = true,
          value_parser = bounded(1, 1 << 50))]
    pub resident_bytes_max: usize,

    /// Streams that one connection may have open at once; more wait at the client, as HTTP/2 says
    #[arg(long, value_name = "COUNT", default_value_t = 2_048, value_parser = bounded(1, 1 << 20))]
    pub streams_max: usize,

    /// Watch, Link and Pipeline streams of one connection; more is TOO_MANY_STREAMS, so that unary calls have room
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = bounded(1, 1 << 20))]
    pub long_streams_max: usize,

    /// Watch, Link and Pipeline streams in all; more is TOO_MANY_STREAMS
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = bounded(1, 1 << 30))]
    pub long_streams_total_max: usize,

    /// Connections at once; more wait to be accepted
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = bounded(1, 1 << 24))]
    pub connections_max: usize,

    /// TLS handshakes under way at once; more wait, within the 10 s that each client has to come through
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = bounded(1, 1 << 20))]
    pub handshakes_max: usize,

    /// Buckets that one Watch may name; more is TOO_LARGE
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = bounded(1, 1 << 20))]
    pub watch_names_max: usize,

    /// Links of one Link stream; more is TOO_LARGE
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = bounded(1, 1 << 20))]
    pub links_max: usize,

    /// Bytes of the detail that a Stop gives; more is TOO_LARGE
    #[arg(long, value_name = "BYTES", default_value_t = KIB, value_parser = bounded(0, 64 * KIB))]
    pub detail_bytes_max: usize,

    /// Lifecycle events kept for watchers that catch up; one that falls behind them is WATCHER_LAGGED
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = bounded(1, 1 << 30))]
    pub history_events_max: usize,

    /// Bytes of the lifecycle events kept, whichever bound is met first
    #[arg(long, value_name = "BYTES", default_value_t = 128 * MIB, value_parser = bounded(KIB, 1 << 40))]
    pub history_bytes_max: usize,

    /// Bytes of the changes of watched entries kept for watchers; one that falls behind them is WATCHER_LAGGED
    #[arg(long, value_name = "BYTES", default_value_t = 64 * MIB, value_parser = bounded(KIB, 1 << 40))]
    pub ring_bytes_max: usize,

    /// A connection on which no call was open for this long is told to go away, and closed: seconds, or a number with ms or s
    #[arg(long, value_name = "TIME", default_value = "900s",
          value_parser = time(Duration::from_secs(1), Duration::from_secs(24 * 60 * 60)))]
    pub connection_idle_max: Duration,

    /// A connection of this age is told to go away, give or take a tenth, so that clients spread over servers anew: seconds, or a
    /// number with ms or s [default: none]
    #[arg(long, value_name = "TIME", value_parser = time(Duration::from_secs(1), Duration::from_secs(365 * 24 * 60 * 60)))]
    pub connection_age_max: Option<Duration>,

    /// How long its calls may go on then, before it is closed: seconds, or a number with ms or s
    #[arg(long, value_name = "TIME", default_value = "10s",
          value_parser = time(Duration::ZERO, Duration::from_secs(24 * 60 * 60)))]
    pub connection_age_grace: Duration,

    /// A Link that is silent for this long sends a heartbeat: seconds, or a number with ms or s. Proxies on the way must not
    /// call it idle sooner
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = time(HEARTBEAT_MIN, HEARTBEAT_MAX))]
    pub link_heartbeat: Duration,
}

impl Default for Limits {
    /// What `pail serve` does without options: the attributes above are the one place where defaults are written.
    #[allow(clippy::expect_used)]
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Defaults {
            #[command(flatten)]
            limits: Limits,
        }
        let defaults: Defaults = clap::Parser::try_parse_from(["pail"]).expect("every limit has a default");
        defaults.limits
    }
}

/// A page holds this many items where the request does not say.
pub const PAGE_ITEMS_DEFAULT: usize = 100;

/// A page holds at most this many items; a larger `page_size` is cut to it, as <https://aip.dev/158> says.
pub const PAGE_ITEMS_MAX: usize = 1_000;

/// Connections that the kernel has made and the server has not accepted yet; the kernel's own bound may be less
/// (net.core.somaxconn, 4,096). One past it has to try again.
pub const ACCEPT_QUEUE_MAX: u32 = 4_096;

/// Messages that wait in one process's mailbox; a cast beyond it is refused. Signals (DOWN, exit) are always taken: their
/// number is bounded by the monitors and links that exist.
pub const MAILBOX_CASTS_MAX: usize = 65_536;

/// Bytes of the detail that a process itself makes of a death: a panic's message, a linked process's end.
pub const EXIT_DETAIL_BYTES_MAX: usize = KIB;

/// The registry is restarted this often within [`RESTART_WINDOW`] before its supervisor gives up (OTP's intensity).
pub const RESTARTS_MAX: usize = 3;

/// The time in which [`RESTARTS_MAX`] restarts are allowed (OTP's period).
pub const RESTART_WINDOW: Duration = Duration::from_secs(5);

/// A dead bucket that was charged more bytes than this is freed by a thread of its own, so that no request waits for it.
pub const FREE_INLINE_BYTES_MAX: usize = 32 * KIB;

/// Buckets that a drain takes from the registry in one step.
pub const STOP_BATCH: usize = 256;

/// Monitors that a watch sets in one step: the registry serves others in between.
pub const MONITOR_BATCH: usize = 256;

/// Names of what is there that a watch reads from the registry in one step, and packs into one response.
pub const SNAPSHOT_PAGE_NAMES: usize = 64;

/// Events that a watch takes from the log in one step, and packs into one response at most.
pub const WATCH_BATCH_EVENTS: usize = 256;

/// Changes of entries that a watch takes from the ring in one step, and that are announced in one.
pub const RING_BATCH: usize = 256;

/// More than an event has on the wire besides its texts: tags, lengths, a ref, an id, a version, a revision, a time.
pub const EVENT_FIXED_BYTES: usize = 96;

/// A watch packs events into one response until it is about this large.
pub const WATCH_BATCH_BYTES: usize = 16 * KIB;

/// A Watch that is silent for this long sends a heartbeat, where the request does not say.
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(15);

/// The shortest heartbeat of a Link, or that a Watch can ask for; a shorter one is `INVALID_OPTION`.
pub const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

/// The longest heartbeat of a Link, or that a Watch can ask for: a day.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest lease that a Link can ask for; a shorter one is `INVALID_OPTION`.
pub const LEASE_MIN: Duration = Duration::from_secs(1);

/// The longest lease that a Link can ask for, a day; a longer one is `INVALID_OPTION`.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the links of a stream that the server ended are kept for their client, where it asked for no lease.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(15);

/// The shortest time to live; a shorter one is `INVALID_OPTION`.
pub const TTL_MIN: Duration = Duration::from_millis(1);

/// The longest time to live, ten years; a longer one is `INVALID_OPTION`.
pub const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Alarms that are taken in one step.
pub const ALARM_BATCH: usize = 256;

/// Operations and checks of one Transact, and operations of one Pipeline message; more is `TOO_LARGE`.
pub const OPS_MAX: usize = 1_024;

/// A Pipeline packs results into one response until it is about this large; a larger result has a response of its own.
pub const PIPELINE_PACK_BYTES: usize = 64 * KIB;

/// What a Pipeline does before others on its thread have their turn: an operation counts 1, a Transact also 1 for each of
/// its checks and operations, a request message 1, and a result 1 for each KiB.
pub const PIPELINE_SLICE: usize = 256;

/// The Creates of one Pipeline that `bucket_id_from` can refer to, the last ones; an earlier one is `INVALID_OPTION`. Each
/// costs some 24 bytes.
pub const PIPELINE_CREATES_MAX: usize = 4 * OPS_MAX;

/// Operations of one Pipeline message with the checks and operations of its transactions; more is `TOO_LARGE`.
pub const PIPELINE_STEPS_MAX: usize = 16 * OPS_MAX;

/// Bytes of `grpc-status-details-bin`: what is longer loses its details, never its code. Clients refuse headers of 8 KiB.
pub const STATUS_DETAILS_BYTES_MAX: usize = 4 * KIB;

/// Bytes of one answer that the client accepts, and of a value that it reads from a file or from standard input: a little
/// above what a server sends by default, so that the server's own `TOO_LARGE` is what a user sees.
pub const CLIENT_BYTES_MAX: usize = 4 * MIB + 64 * KIB;

/// Bytes of one line of an export: an entry as large as an answer can be, each byte of it escaped as `\u0000` is, and the
/// line's own words. A longer one is no line of an export.
pub const EXPORT_LINE_BYTES_MAX: usize = 6 * CLIENT_BYTES_MAX + KIB;

/// Bytes of an export that `import` sends in one message, unless a single entry is larger; it sends [`OPS_MAX`] lines at most.
pub const IMPORT_BATCH_BYTES: usize = MIB;

/// Bytes of one line that the shell reads; a longer one is answered with an error and skipped.
pub const SHELL_LINE_BYTES_MAX: usize = 4 * MIB;

/// Bucket names that the shell offers for completion.
pub const SHELL_COMPLETIONS_MAX: usize = 50;

/// How long the shell waits for those names; then it offers none.
pub const SHELL_COMPLETION_TIMEOUT: Duration = Duration::from_millis(500);

/// Lines that the shell remembers; older ones are forgotten.
pub const SHELL_HISTORY_LINES_MAX: usize = 1_000;

pub(crate) fn bounded(min: usize, max: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match text.parse() {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        Ok(_) => Err(format!("must be {min} to {max}")),
        Err(_) => Err(format!("must be a whole number, {min} to {max}")),
    }
}

/// `10`, `10s` or `500ms`, from `min` to `max`.
pub(crate) fn time(min: Duration, max: Duration) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let (digits, unit): (_, fn(u64) -> Duration) = match text.strip_suffix("ms") {
            Some(digits) => (digits, Duration::from_millis),
            None => (text.strip_suffix('s').unwrap_or(text), Duration::from_secs),
        };
        match digits.parse().map(unit) {
            Ok(time) if (min..=max).contains(&time) => Ok(time),
            _ => {
                let (min, max) = (min.as_secs(), max.as_secs());
                Err(format!("must be a whole number of seconds, or one with ms or s, {min} s to {max} s"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let limits = Limits::default();
        assert_eq!((limits.name_bytes_max, limits.key_bytes_max, limits.value_bytes_max), (255, 1_024, 1_048_576));
        assert_eq!((limits.message_bytes_max, limits.undecoded_bytes_max), (4_194_304, 33_554_432));
        assert_eq!(
            (limits.buckets_max, limits.entries_max, limits.bucket_bytes_max),
            (10_000_000, 1_000_000, 268_435_456)
        );
        assert_eq!(
            (limits.streams_max, limits.long_streams_max, limits.long_streams_total_max),
            (2_048, 1_000, 100_000)
        );
        assert_eq!((limits.watch_names_max, limits.links_max, limits.detail_bytes_max), (10_000, 1_000, 1_024));
        assert_eq!((limits.history_events_max, limits.history_bytes_max), (1_000_000, 134_217_728));
        assert_eq!(limits.ring_bytes_max, 67_108_864);
        assert_eq!(limits.queue_time_max, Duration::from_millis(100));
        assert_eq!(limits.link_heartbeat, Duration::from_secs(15));
        assert_eq!(limits.connection_idle_max, Duration::from_secs(15 * 60));
        assert_eq!((limits.connection_age_max, limits.connection_age_grace), (None, Duration::from_secs(10)));
        assert!(0 < limits.memory_bytes_max && limits.memory_bytes_max < limits.resident_bytes_max);
    }

    #[test]
    fn a_limit_out_of_its_range_says_what_is_allowed() {
        assert_eq!(bounded(1, 10)("11"), Err("must be 1 to 10".to_owned()));
        assert_eq!(bounded(1, 10)("x"), Err("must be a whole number, 1 to 10".to_owned()));
    }

    #[test]
    fn a_time_is_seconds_or_has_a_unit() {
        let time = time(Duration::ZERO, Duration::from_secs(60));
        assert_eq!(time("7"), Ok(Duration::from_secs(7)));
        assert_eq!(time("7s"), Ok(Duration::from_secs(7)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "s", "ms", "-1", "1.5s", "1m", "18446744073709551615"] {
            assert!(time(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_time_out_of_its_range_says_what_is_allowed() {
        let time = time(HEARTBEAT_MIN, Duration::from_secs(60));
        assert_eq!((time("1000ms"), time("60")), (Ok(HEARTBEAT_MIN), Ok(Duration::from_secs(60))));
        for text in ["999ms", "61s"] {
            let words = time(text).unwrap_err();
            assert!(words.ends_with(", 1 s to 60 s"), "{words}");
        }
    }
}

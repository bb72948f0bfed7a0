//! How a command that we have run ended, as shells tell it.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

/// 128 and a signal's number.
const EXIT_SIGNAL: i32 = 128;

/// How a command ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended(pub(super) ExitStatus);

impl Ended {
    /// As a shell would have it.
    pub(super) fn exit_code(self) -> u8 {
        let code = self.0.code().unwrap_or_else(|| EXIT_SIGNAL + self.0.signal().unwrap_or_default());
        u8::try_from(code).unwrap_or(u8::MAX)
    }

    /// What went wrong, in words; `None` for status 0.
    pub(super) fn fault(self) -> Option<String> {
        match (self.0.code(), self.0.signal()) {
            (Some(0), _) => None,
            (Some(code), _) => Some(format!("exit {code}")),
            (None, signal) => Some(format!("signal {}", signal.unwrap_or_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_as_shells_do() {
        let ended = |raw| Ended(ExitStatus::from_raw(raw));
        let told = |ended: Ended| (ended.exit_code(), ended.fault());
        assert_eq!(told(ended(0)), (0, None));
        assert_eq!(told(ended(3 << 8)), (3, Some("exit 3".to_owned())));
        assert_eq!(told(ended(255 << 8)), (255, Some("exit 255".to_owned())));
        assert_eq!(told(ended(9)), (137, Some("signal 9".to_owned())));
    }
}

//! What is made of files, and made again when they change: certificates, and who may do what.

use std::{convert::Infallible, fmt, fs, path::Path, sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio::{sync::watch, time::sleep};

/// So often the files are looked at.
///
/// They are read rather than watched for: what Kubernetes mounts changes by links to folders, which no watch of a
/// file sees.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The bytes of some files.
pub type Contents = Vec<Vec<u8>>;

type Read = Box<dyn Fn() -> Result<Contents, String> + Send + Sync>;
type Make<T> = Box<dyn Fn(&Contents) -> Result<T, String> + Send + Sync>;

/// A `T` as its files say now.
pub struct Followed<T> {
    /// What it is called in the log.
    what: &'static str,
    read: Read,
    make: Make<T>,
    current: RwLock<(Contents, Arc<T>)>,
    changes: watch::Sender<()>,
}

impl<T> Followed<T> {
    /// Reads the files, and makes what they say.
    ///
    /// # Errors
    ///
    /// A line for the operator, of `read` or of `make`: it names the file.
    pub fn new(
        what: &'static str,
        read: impl Fn() -> Result<Contents, String> + Send + Sync + 'static,
        make: impl Fn(&Contents) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let contents = read()?;
        let made = Arc::new(make(&contents)?);
        let (read, make) = (Box::new(read), Box::new(make));
        Ok(Self { what, read, make, current: RwLock::new((contents, made)), changes: watch::Sender::new(()) })
    }

    /// What they said last.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.read().1)
    }

    /// Is told of each change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Reads the files again, and takes what is new in them. Whether anything was.
    ///
    /// # Errors
    ///
    /// A line for the operator; then all is as it was.
    pub fn read_again(&self) -> Result<bool, String> {
        let contents = (self.read)()?;
        if contents == self.current.read().0 {
            return Ok(false);
        }
        let made = Arc::new((self.make)(&contents)?);
        *self.current.write() = (contents, made);
        self.changes.send_replace(());
        Ok(true)
    }

    /// The same, and says so in the log, but for what was said there `before`.
    ///
    /// # Errors
    ///
    /// The same line as in the log; then all is as it was.
    pub fn take_news(&self, before: Option<&str>) -> Result<(), String> {
        match self.read_again() {
            Ok(false) => {}
            Ok(true) => tracing::info!(what = self.what, "files were read again"),
            Err(why) => {
                if before != Some(&why) {
                    tracing::error!(what = self.what, ?why, "files were not read again: what they said before holds");
                }
                return Err(why);
            }
        }
        Ok(())
    }

    /// Takes what is new in the files as it comes, for ever.
    pub async fn follow(&self) -> Infallible {
        let mut complaint = None;
        loop {
            sleep(LOOK_EVERY).await;
            // A certificate is often there before its key: one complaint, not one every five seconds.
            complaint = self.take_news(complaint.as_deref()).err();
        }
    }
}

impl<T> fmt::Debug for Followed<T> {
    /// Without what the files hold: some of it is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Followed({})", self.what)
    }
}

/// A file's bytes.
///
/// # Errors
///
/// A line that names it.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: can't be read: {error}", path.display()))
}

/// What is wrong with a file of TOML, and where.
#[must_use]
pub fn at_line(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .map_or(0, |span| text.as_bytes()[..span.start.min(text.len())].split(|byte| *byte == b'\n').count());
    format!("line {line}: {}", error.message().replace('\n', "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_taken_and_what_is_no_good_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        fs::write(&path, "1").unwrap();
        let from = path.clone();
        let number = Followed::new(
            "the number",
            move || Ok(vec![read(&from)?]),
            |contents| String::from_utf8_lossy(&contents[0]).parse::<u8>().map_err(|error| error.to_string()),
        )
        .unwrap();
        let changes = number.changes();
        assert_eq!((*number.get(), number.read_again()), (1, Ok(false)));

        fs::write(&path, "no number").unwrap();
        let complaint = number.take_news(None);
        assert_eq!(complaint, Err("invalid digit found in string".to_owned()));
        fs::remove_file(&path).unwrap();
        assert!(number.read_again().unwrap_err().contains("can't be read"));
        assert_eq!((*number.get(), changes.has_changed().unwrap()), (1, false));

        fs::write(&path, "2").unwrap();
        assert_eq!(number.read_again(), Ok(true));
        assert_eq!((*number.get(), changes.has_changed().unwrap()), (2, true));
    }
}

//! The file of an export: begun, written over, or gone on with after its last whole line.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Seek as _, Write as _},
    path::Path,
};

use crate::client::{
    dump::{Bucket, Counts, Fault, Header, Line, Reader},
    error::Error,
};

/// What is done about a file that is there already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    /// It is left alone: that is an error.
    New,
    Overwrite,
    Resume,
}

/// An open file, at the place where it goes on.
pub(super) struct Open {
    pub(super) to: BufWriter<File>,
    pub(super) place: Place,
    name: String,
}

/// How far an export has come.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) header: Option<Header>,
    /// The name of the last bucket that is in it.
    pub(super) last: Option<String>,
    /// That bucket and the last of its keys (or ""), where it may have more of them.
    pub(super) open: Option<(Bucket, String)>,
    /// Nothing is missing.
    pub(super) is_whole: bool,
    pub(super) counts: Counts,
    pub(super) bytes: u64,
}

impl Open {
    pub(super) fn file(path: &Path, mode: Mode) -> Result<Self, Error> {
        let name = path.display().to_string();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).create_new(mode == Mode::New).truncate(mode == Mode::Overwrite);
        let mut file = options.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::Usage(format!("{name} is there already: --resume goes on with it, --force writes over it"))
            }
            _ => Error::Usage(format!("cannot write {name}: {error}")),
        })?;
        let place = if mode == Mode::Resume { Place::read(&file, &name)? } else { Place::default() };
        let cut = file.set_len(place.bytes).and_then(|()| file.seek(io::SeekFrom::Start(place.bytes)));
        cut.map_err(|error| Error::File(format!("cannot write {name}: {error}")))?;
        Ok(Self { to: BufWriter::with_capacity(64 << 10, file), place, name })
    }

    /// Makes sure that it outlives the machine's next power cut.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let written = self.to.flush().and_then(|()| self.to.get_ref().sync_all());
        written.map_err(|error| self.blame(error.into()))
    }

    /// An error of writing is this file's.
    pub(super) fn blame(&self, error: Error) -> Error {
        match error {
            Error::Output(error) => Error::File(format!("cannot write {}: {error}", self.name)),
            error => error,
        }
    }
}

impl Place {
    /// Reads an export up to its last whole line.
    fn read(file: &File, name: &str) -> Result<Self, Error> {
        let mut reader = Reader::new(BufReader::new(file));
        let mut place = Self::default();
        loop {
            match reader.next() {
                Ok(Some(line)) => place.pass(line),
                Ok(None) => {
                    // An end without a newline is written anew.
                    place.is_whole = file.metadata().is_ok_and(|file| file.len() == reader.bytes);
                    break;
                }
                Err(Fault::CutOff) => break,
                Err(Fault::Read(error)) => return Err(Error::File(format!("cannot read {name}: {error}"))),
                Err(Fault::Wrong(why)) => {
                    let line = reader.lines + 1;
                    return Err(Error::File(format!("{name} can not be gone on with: line {line}: {why}")));
                }
            }
        }
        (place.counts, place.bytes) = (reader.counts, reader.bytes);
        Ok(place)
    }

    fn pass(&mut self, line: Line) {
        match line {
            Line::Header(header) => self.header = Some(header),
            Line::Bucket(bucket) => {
                self.last = Some(bucket.name.clone());
                self.open = Some((bucket, String::new()));
            }
            Line::Entry(entry) => self.open = self.open.take().map(|(bucket, _)| (bucket, entry.key)),
            Line::Gone(_) | Line::End(_) => self.open = None,
        }
    }

    /// Whether an export of this registry and this prefix can go on here.
    pub(super) fn check(&self, registry_id: &str, prefix: &str) -> Result<(), Error> {
        let Some(header) = &self.header else { return Ok(()) };
        if header.registry_id != registry_id {
            return Err(Error::File(format!(
                "the file is an export of registry {}, and this is {registry_id}: the server was started anew, or is \
                 another; --force begins anew",
                header.registry_id
            )));
        }
        if header.prefix != prefix {
            return Err(Error::Usage(format!(
                "the file is an export with the prefix {:?}, and not {prefix:?}",
                header.prefix
            )));
        }
        Ok(())
    }
}

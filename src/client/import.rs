//! `import`: an export's lines into buckets and entries.

mod batches;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write as _, stderr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use clap::{Args, value_parser};

use self::batches::Importer;
use super::{
    dump::{Fault, Reader},
    error::{EXIT_INTERRUPTED, Error},
    options::Options,
    output::Output,
    pipeline::Pipeline,
    progress::{Progress, Summary},
};

/// Creates the buckets and puts the entries of an export
///
/// Reads the lines that 'pail export' writes. What has a time to live gets what is left of it, by this machine's clock; what
/// is past its time is left out. An --idle-ttl is not in an export: such a bucket gets what was left of it as its --ttl. Ids,
/// versions and create times are the server's own.
///
/// A bucket that is there already and was ever written to is refused, unless --merge is given: then the entries of the export
/// are put into it, its other entries and its own time to live stay. Where one is refused, some of the buckets after it may
/// have been created, and be empty. To import the same lines twice is to import them once.
///
/// Where it ends early it says at which line and why, and with which options the same file is gone on with. After a kill
/// without a word, go on with --merge. An export that is cut off is imported as far as it goes; then that is an error.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail import backup.jsonl
  pail import backup.jsonl --from-line 20481
  gunzip < users.jsonl.gz | pail import --merge
  pail export --addr old | pail import --addr new")]
pub struct Import {
    /// Read this file [default: standard input]
    file: Option<PathBuf>,
    /// Put into buckets that are there already
    #[arg(long)]
    merge: bool,
    /// Only read, and do not import, the lines before this one
    #[arg(long, value_name = "LINE", default_value_t = 1, hide_default_value = true)]
    #[arg(value_parser = value_parser!(u64).range(1..))]
    from_line: u64,
}

impl Import {
    pub(super) async fn run(self, options: &Options, _: &mut Output<'_>) -> Result<(), Error> {
        let place = Arc::new(AtomicU64::new(self.from_line));
        tokio::spawn(exit_at_interrupt(Arc::clone(&place)));
        let summary = self.import(options, &place).await?;
        writeln!(stderr(), "{}", summary.line(options.output)).ok();
        Ok(())
    }

    /// Whether it reads a file rather than standard input.
    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Imports all there is. `place` is the line to go on from, at any time.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, what stands before `place` is imported, and perhaps more.
    pub(super) async fn import(self, options: &Options, place: &AtomicU64) -> Result<Summary, Error> {
        let (input, progress): (Box<dyn BufRead>, _) = match &self.file {
            None => (Box::new(io::stdin().lock()), Progress::of_bytes(None)),
            Some(path) => {
                let wrong = |error| Error::Usage(format!("cannot read {}: {error}", path.display()));
                let file = File::open(path).map_err(wrong)?;
                let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|it| it.len());
                (Box::new(BufReader::with_capacity(64 << 10, file)), Progress::of_bytes(length))
            }
        };
        let mut reader = Reader::new(input);
        let pipeline = Pipeline::open(options).await?;
        let mut importer = Importer::new(pipeline, self.merge, self.from_line, place);
        loop {
            let bytes = reader.bytes;
            match reader.next() {
                Ok(Some(line)) => {
                    importer.take(reader.lines, line, reader.bytes - bytes).await?;
                    progress.reach(reader.bytes);
                }
                Ok(None) => {
                    importer.flush().await?;
                    return Ok(importer.summary);
                }
                Err(fault) => {
                    importer.flush().await?;
                    return Err(at_line(reader.lines + 1, fault, &importer));
                }
            }
        }
    }
}

/// Ends the process from a task of its own: the import may be held up in reading from somebody who has paused.
async fn exit_at_interrupt(place: Arc<AtomicU64>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        let line = place.load(Ordering::Relaxed);
        writeln!(stderr(), "pail: interrupted; go on with --from-line {line} --merge").ok();
        std::process::exit(EXIT_INTERRUPTED.into());
    }
}

/// The input is no whole export.
fn at_line(line: u64, fault: Fault, importer: &Importer<'_>) -> Error {
    let why = match fault {
        Fault::Read(error) => format!("cannot be read: {error}"),
        Fault::Wrong(why) => why,
        Fault::CutOff => "the export is cut off here: its end is missing".to_owned(),
    };
    if line == 1 {
        return Error::File(format!("line 1: {why}; nothing is imported"));
    }
    importer.ended(line, Error::File(why))
}

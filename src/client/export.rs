//! `export`: buckets and their entries as lines of JSON, in a file that can be gone on with.

mod file;

use std::{
    io::{self, IsTerminal as _, Write, stderr},
    path::PathBuf,
    time::SystemTime,
};

use clap::Args;
use tonic::Status;

use self::file::{Mode, Open, Place};
use super::{
    dump::{Gone, Header, Line, VERSION, Writer},
    entries::each_entry,
    error::Error,
    lifecycle::page_size,
    options::{Client, Options},
    output::Output,
    pipeline::within,
    progress::{Progress, Summary},
};
use crate::pb::{Bucket, EventKind, ListRequest, ScanRequest, WatchRequest, watch_response::Response};

/// Writes buckets and their entries as lines of JSON, which 'pail import' reads
///
/// Every value is written so that it comes back to the bit. Each bucket is read in pages by its id, so that a namesake is
/// never mixed in. It is no snapshot: a bucket that lives throughout is in it once, and so is an entry that is there
/// throughout, as it was at some moment of the export; what comes or goes meanwhile may be in it or not. To read a bucket is
/// to use it: its --idle-ttl starts anew. The server does not tell of an --idle-ttl but by the time at which the bucket would
/// expire unused; so that is all the export has, as if it were of a --ttl.
///
/// At the end a line on standard error says how much was written; on a terminal there is a bar before.
#[derive(Args, Debug)]
#[command(after_help = "\
Lines:
  {\"pail_export\":1,\"registry_id\":…,\"revision\":…,\"time\":…,\"prefix\":…}      first
  {\"bucket\":…,\"bucket_id\":…,\"create_time\":…,\"expire_time\":…}             a bucket
  {\"key\":…,\"value\":…,\"version\":…,\"expire_time\":…}                       an entry of it
  {\"gone\":…,\"bucket_id\":…}         the bucket above ended meanwhile: it is cut short
  {\"end\":{\"buckets\":…,\"entries\":…}}   last; without it the file is cut off
Where there is no expire_time, it is for ever. What came and went while the export ran
is told by: pail watch --prefix '' --after REVISION

Values:
  {\"text\":…}          as it is
  {\"data\":…}          in base64
  {\"integer\":…}       a string, for not every tool has 64 bits
  {\"number\":…}        a number, or the string \"Infinity\" or \"-Infinity\"
  {\"number_bits\":…}   a NaN: its bits, 16 hexadecimal digits
  {\"flag\":…}          true or false

Examples:
  pail export backup.jsonl
  pail export backup.jsonl --resume        goes on where a killed one stopped
  pail export --prefix user/ | gzip > users.jsonl.gz
  pail export | jq -r 'select(.bucket).bucket'")]
pub struct Export {
    /// Write to this file, which must not be there yet [default: standard output]
    file: Option<PathBuf>,
    /// Only buckets whose names begin with this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// Go on with the file after its last whole line, or begin it
    #[arg(long, requires = "file")]
    resume: bool,
    /// Write over the file that is there
    #[arg(long, requires = "file", conflicts_with = "resume")]
    force: bool,
}

impl Export {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let has_room = !out.is_terminal || self.has_file(); // a bar and lines would be in each other's way
        let summary = self.export(options, out.to, has_room).await?;
        writeln!(stderr(), "{}", summary.line(options.output)).ok();
        Ok(())
    }

    /// Whether it writes to a file rather than to standard output.
    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Writes to the file, or else to `stdout`.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the file is one that can be resumed.
    pub(super) async fn export(
        self,
        options: &Options,
        stdout: &mut dyn Write,
        with_progress: bool,
    ) -> Result<Summary, Error> {
        let client = options.connect().await?;
        let mode = match self {
            Self { resume: true, .. } => Mode::Resume,
            Self { force: true, .. } => Mode::Overwrite,
            _ => Mode::New,
        };
        let mut open = self.file.as_deref().map(|path| Open::file(path, mode)).transpose()?;
        let place = open.as_mut().map(|open| std::mem::take(&mut open.place)).unwrap_or_default();
        let prefix = self.prefix;
        let pages = Pages { client, options, prefix, with_progress, left_out: 0, cut_short: 0 };
        match open {
            None => pages.write(place, stdout).await,
            Some(mut open) => {
                let summary = pages.write(place, &mut open.to).await.map_err(|error| open.blame(error))?;
                open.finish()?;
                Ok(summary)
            }
        }
    }
}

/// Reads page after page.
struct Pages<'a> {
    client: Client,
    options: &'a Options,
    prefix: String,
    with_progress: bool,
    left_out: u64,
    cut_short: u64,
}

impl Pages<'_> {
    async fn write(mut self, place: Place, to: &mut dyn Write) -> Result<Summary, Error> {
        let registry_id = self.registry_id().await?;
        place.check(&registry_id, &self.prefix)?;
        let mut writer = Writer::after(place.counts, place.bytes, to);
        let (counts, bytes) = if place.is_whole {
            (place.counts, place.bytes)
        } else {
            let progress = self.progress().await?;
            self.buckets(registry_id, place, &mut writer, &progress).await?;
            writer.end()?
        };
        Ok(Summary {
            done: "exported",
            buckets: counts.buckets,
            entries: counts.entries,
            bytes,
            skipped: self.left_out,
            skipped_because: "that ended meanwhile",
            cut_short: self.cut_short,
        })
    }

    /// A Watch is the one that tells it.
    async fn registry_id(&mut self) -> Result<String, Error> {
        let kinds = vec![EventKind::Down.into()];
        let prefix = Some(self.prefix.clone());
        let request = WatchRequest { prefix, kinds, skip_initial: true, ..WatchRequest::default() };
        let started = async {
            let mut stream = self.client.watch(request).await?.into_inner();
            match stream.message().await?.and_then(|answer| answer.response) {
                Some(Response::Started(started)) => Ok(started.registry_id),
                _ => Err(Status::unavailable("a watch did not begin with 'started'")),
            }
        };
        within(self.options.timeout, started).await
    }

    /// A bar needs to know how much there is: where there is one, everything is listed once before.
    async fn progress(&mut self) -> Result<Progress, Error> {
        if !self.with_progress || !stderr().is_terminal() {
            return Ok(Progress::hidden());
        }
        let mut entries = 0;
        let prefix = self.prefix.clone();
        super::lifecycle::each_bucket(&mut self.client, self.options, prefix, None, |bucket| {
            entries += bucket.entry_count;
            Ok(())
        })
        .await?;
        Ok(Progress::of_entries(entries))
    }

    async fn buckets(
        &mut self,
        registry_id: String,
        place: Place,
        writer: &mut Writer<'_>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let Place { header, last, mut open, .. } = place;
        let mut header_due = header.is_none();
        let mut page_token = String::new();
        loop {
            let request = ListRequest { prefix: self.prefix.clone(), page_size: page_size(usize::MAX), page_token };
            let page = self.client.list(self.options.request(request)).await?.into_inner();
            if std::mem::take(&mut header_due) {
                let (revision, prefix) = (page.revision, self.prefix.clone());
                let (registry_id, time) = (registry_id.clone(), Some(SystemTime::now().into()));
                writer.write(&Line::Header(Header { pail_export: VERSION, registry_id, revision, time, prefix }))?;
            }
            for bucket in page.buckets {
                // The bucket in which an earlier export stopped is gone on with, if it is this very one.
                if let Some((was, key)) = open.take_if(|(was, _)| was.name <= bucket.name) {
                    if was.bucket_id == bucket.id {
                        self.bucket(bucket, Some(key), writer, progress).await?;
                        continue;
                    }
                    self.gone(was.name, was.bucket_id, writer)?;
                }
                if Some(&bucket.name) > last.as_ref() {
                    self.bucket(bucket, None, writer, progress).await?;
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        if let Some((was, _)) = open {
            self.gone(was.name, was.bucket_id, writer)?;
        }
        Ok(())
    }

    /// Writes a bucket and its entries; only those after the key, where the bucket and the key are written already. One that
    /// is gone before its first page is left out.
    async fn bucket(
        &mut self,
        bucket: Bucket,
        after: Option<String>,
        writer: &mut Writer<'_>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let (name, id) = (bucket.name.clone(), bucket.id);
        let request = ScanRequest { bucket: name.clone(), bucket_id: Some(id), ..ScanRequest::default() };
        let head = Line::Bucket(bucket.into());
        let mut is_begun = after.is_some();
        let begin = |is_begun: &mut bool, writer: &mut Writer<'_>| -> io::Result<()> {
            if !std::mem::replace(is_begun, true) { writer.write(&head) } else { Ok(()) }
        };
        let outcome = each_entry(&mut self.client, self.options, request, None, |entry| {
            begin(&mut is_begun, writer)?;
            if after.as_ref().is_none_or(|after| entry.key > *after) {
                writer.write(&Line::Entry(entry.into()))?;
                progress.reach(writer.counts().entries);
            }
            Ok(())
        })
        .await;
        match outcome {
            Err(error) if matches!(error.reason().as_deref(), Some("BUCKET_NOT_FOUND" | "BUCKET_CRASHED")) => {
                if is_begun {
                    self.gone(name, id, writer)?;
                } else {
                    self.left_out += 1;
                }
                Ok(())
            }
            Err(error) => Err(error),
            Ok(()) => Ok(begin(&mut is_begun, writer)?),
        }
    }

    fn gone(&mut self, name: String, bucket_id: u64, writer: &mut Writer<'_>) -> io::Result<()> {
        self.cut_short += 1;
        writer.write(&Line::Gone(Gone { name, bucket_id }))
    }
}

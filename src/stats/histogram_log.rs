//! Histograms in files that other tools read: an interval log, as HdrHistogram's
//! HistogramLogProcessor and its plotters take it, and a `.hgrm` file for each kind beside it.

use std::fs::File;
use std::io::{self, BufWriter, LineWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, Tag};

use crate::stats::percentiles;
use crate::stats::report::Part;

/// An interval log that is being written.
#[derive(Debug)]
pub struct HistogramLog {
    path: PathBuf,
    file: LineWriter<File>,
}

/// One to whose entries its histograms are added.
pub(super) struct Entries<'a>(IntervalLogWriter<'a, 'a, LineWriter<File>, V2DeflateSerializer>);

impl HistogramLog {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: LineWriter::new(File::create(path)?) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what stands before the first entry.
    pub(super) fn begin<'a>(
        &'a mut self,
        serializer: &'a mut V2DeflateSerializer,
        started: SystemTime,
    ) -> io::Result<Entries<'a>> {
        writeln!(self.file, "#[Histogram log format version 1.3]")?;
        let writer = IntervalLogWriterBuilder::new()
            .add_comment(concat!("ringmq ", env!("CARGO_PKG_VERSION"), ", nanoseconds by tag"))
            .with_start_time(started)
            .with_base_time(started)
            // The column of the maximum is for people: milliseconds, as others have it.
            .with_max_value_divisor(1e6)
            .begin_log_with(&mut self.file, serializer)?;
        Ok(Entries(writer))
    }
}

impl Entries<'_> {
    /// Adds what was recorded from `start`, after the log's start time, for so long: that of all
    /// cores under the names of the kinds, and where there are several, that of each.
    pub(super) fn add(
        &mut self,
        (start, duration): (Duration, Duration),
        cores: &[Part],
        all: &Part,
    ) -> io::Result<()> {
        for (kind, name, _) in all.recording.each() {
            self.add_one(all.recording.of(kind), start, duration, name)?;
        }
        let several = if cores.len() > 1 { cores } else { &[] };
        for (number, core) in several.iter().enumerate() {
            for (kind, name, _) in core.recording.each() {
                let tag = format!("core{number}-{name}");
                self.add_one(core.recording.of(kind), start, duration, &tag)?;
            }
        }
        Ok(())
    }

    fn add_one(
        &mut self,
        histogram: &Histogram<u64>,
        start: Duration,
        duration: Duration,
        tag: &str,
    ) -> io::Result<()> {
        let tag = Tag::new(tag).expect("names hold no comma, space or line end");
        let written = self.0.write_histogram(histogram, start, duration, Some(tag));
        written.map_err(|error| io::Error::other(error.to_string()))
    }
}

/// Writes a `.hgrm` file for each kind beside the log of this name: `x.log` has `x.turn.hgrm`.
pub(super) fn write_percentiles(log: &Path, all: &Part) -> io::Result<()> {
    for (kind, name, _) in all.recording.each() {
        let mut file = BufWriter::new(File::create(log.with_extension(format!("{name}.hgrm")))?);
        percentiles::write(all.recording.of(kind), &mut file)?;
        file.flush()?;
    }
    Ok(())
}

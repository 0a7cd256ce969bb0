//! Takes a database of Mosquitto from a file into the store in a folder.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::collect::{Collector, Options};
use super::reader::{ReadError, Reader};
use super::report::Report;
#[cfg(feature = "mosquitto-sqlite")]
use super::sqlite;
use crate::storage::image::Image;
use crate::storage::log::{StoreError, offline};

/// The file in the folder of a store that names the files imported into it: checksum and size of each, a line each.
const IMPORTED: &str = "imported";

/// The beginning of an SQLite database, as Mosquitto 2.1 can have.
const SQLITE: &[u8; 16] = b"SQLite format 3\0";

/// Why an import failed. The store is as before.
#[derive(Debug)]
pub enum ImportError {
    /// The file cannot be read.
    File(PathBuf, ReadError),
    /// The file is an SQLite database, which this build cannot read.
    NoSqlite(PathBuf),
    /// The SQLite database cannot be read, with the reason.
    Sqlite(PathBuf, String),
    /// The store cannot be read or written.
    Store(StoreError),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => {
                write!(f, "{}: {error}", path.display())?;
                match error {
                    ReadError::Empty | ReadError::Zeros => write!(
                        f,
                        "; nothing was imported. Use a backup of the file, or --salvage to begin without it"
                    ),
                    ReadError::Damaged(_) => write!(
                        f,
                        "; nothing was imported. Use a backup of the file, or --salvage to take the part \
                         before"
                    ),
                    _ => Ok(()),
                }
            }
            Self::NoSqlite(path) => write!(
                f,
                "{} is an SQLite database; this broker was built without the feature mosquitto-sqlite, \
                 which can read it",
                path.display()
            ),
            Self::Sqlite(path, error) => {
                write!(f, "{}: {error}; nothing was imported", path.display())
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ImportError {}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Takes the database in `file` into the store in `folder`, which is created if necessary and must not be in use. None
/// if the same file was imported into this store before: nothing changes then.
pub fn import(folder: &Path, file: &Path, options: Options) -> Result<Option<Report>, ImportError> {
    let identity =
        Identity::of(file).map_err(|error| ImportError::File(file.to_owned(), error.into()))?;
    if identity.is_noted(folder)? {
        return Ok(None);
    }
    let collector = collect(file, options)?;
    let mut report = None;
    offline::change(folder, |image: &mut Image| {
        let taken = report.insert(collector.add_to(image));
        !taken.is_empty()
    })?;
    // After a crash before this line, the next import finds everything in the store, and takes nothing.
    identity.note(folder)?;
    Ok(report)
}

/// Imports `file` if it exists and the store in `folder` is empty, as at the first start in Mosquitto's place, and logs
/// the report. The store must not be open yet. None if there is nothing to do.
pub fn import_at_first_start(
    folder: &Path,
    file: &Path,
    options: Options,
) -> Result<Option<Report>, ImportError> {
    if !file.exists() || !offline::is_empty(folder)? {
        return Ok(None);
    }
    let report = import(folder, file, options)?;
    report.iter().for_each(Report::log);
    Ok(report)
}

/// Reads a database.
fn collect(file: &Path, options: Options) -> Result<Collector, ImportError> {
    let failed = |error: ReadError| ImportError::File(file.to_owned(), error);
    let now_us = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_us = now_us.map_or(0, |since| since.as_micros() as u64);
    let mut input = File::open(file).map_err(|error| failed(error.into()))?;
    let bytes = input.metadata().map_err(|error| failed(error.into()))?.len();
    let mut head = Vec::new();
    let begin = Read::take(&mut input, SQLITE.len() as u64).read_to_end(&mut head);
    begin.map_err(|error| failed(error.into()))?;
    if head == SQLITE {
        return collect_sqlite(file, bytes, Collector::new(String::new(), options, now_us));
    }
    let input = BufReader::with_capacity(1 << 18, io::Cursor::new(head).chain(input));
    let at = file.display();
    let mut reader = match Reader::new(input, bytes) {
        Ok(reader) => reader,
        Err(error @ (ReadError::Empty | ReadError::Zeros)) if options.salvage => {
            let mut collector = Collector::new(format!("{at}: {bytes} bytes"), options, now_us);
            collector.report().damage = Some(error.to_string());
            return Ok(collector);
        }
        Err(error) => return Err(failed(error)),
    };
    let source = format!("{at}: format {}, {bytes} bytes", reader.format().0);
    let mut collector = Collector::new(source, options, now_us);
    loop {
        match reader.next_chunk() {
            Ok(Some(chunk)) => collector.take(&chunk),
            Ok(None) => return Ok(collector),
            Err(ReadError::Damaged(damage)) if options.salvage => {
                collector.report().damage = Some(damage.to_string());
                return Ok(collector);
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

#[cfg(not(feature = "mosquitto-sqlite"))]
fn collect_sqlite(file: &Path, _bytes: u64, _into: Collector) -> Result<Collector, ImportError> {
    Err(ImportError::NoSqlite(file.to_owned()))
}

#[cfg(feature = "mosquitto-sqlite")]
fn collect_sqlite(file: &Path, bytes: u64, into: Collector) -> Result<Collector, ImportError> {
    let failed = |error| ImportError::Sqlite(file.to_owned(), error);
    let mut collector = into;
    let database = sqlite::Database::open(file).map_err(failed)?;
    let schema = database.schema().map_err(failed)?;
    let report = collector.report();
    report.source = format!("{}: SQLite, schema {schema}, {bytes} bytes", file.display());
    match database.read(&mut collector) {
        Err(error) if collector.salvages() => collector.report().damage = Some(error),
        outcome => outcome.map_err(failed)?,
    }
    Ok(collector)
}

/// The content of a file, by its checksum and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    checksum: u32,
    bytes: u64,
}

impl Identity {
    /// An SQLite database can have changes in a file beside it, which belong to the content.
    fn of(file: &Path) -> io::Result<Self> {
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let mut input: Box<dyn Read> = Box::new(File::open(file)?);
        if let Ok(log) = File::open(log) {
            input = Box::new(input.chain(log));
        }
        let mut checksum = crc32fast::Hasher::new();
        let (mut block, mut bytes) = (vec![0; 1 << 18], 0);
        loop {
            match input.read(&mut block) {
                Ok(0) => return Ok(Self { checksum: checksum.finalize(), bytes }),
                Ok(read) => {
                    checksum.update(&block[..read]);
                    bytes += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn line(self) -> String {
        format!("mosquitto {:08x} {}", self.checksum, self.bytes)
    }

    /// Whether the file was imported into the store in `folder`.
    fn is_noted(self, folder: &Path) -> Result<bool, StoreError> {
        let path = folder.join(IMPORTED);
        match fs::read_to_string(&path) {
            Ok(lines) => Ok(lines.lines().any(|line| line == self.line())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::Io(path, "read", error)),
        }
    }

    fn note(self, folder: &Path) -> Result<(), StoreError> {
        let path = folder.join(IMPORTED);
        let append = || {
            let mut file = File::options().create(true).append(true).open(&path)?;
            writeln!(file, "{}", self.line())?;
            file.sync_all()
        };
        append().map_err(|error| StoreError::Io(path.clone(), "write to", error))
    }
}

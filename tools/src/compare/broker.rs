//! Starts and stops the compared brokers.

use std::{
    fs::{self, File},
    io,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    Certificates,
    peers::{self, File as Configuration},
};
use crate::{
    address::LoopbackAddress,
    affinity,
    cli::CompareArgs,
    error::{Error, Result},
    limits::BROKER_TIMEOUT,
    meter::Meter,
};

/// A broker that can be started: a name, a command line in which {port} and {dir} are replaced, and
/// configuration files to write first.
#[derive(Debug)]
pub struct BrokerKind {
    name: String,
    command: String,
    configuration: Vec<Configuration>,
}

impl BrokerKind {
    /// Parses a known broker's name, or NAME=COMMAND.
    pub(super) fn parse(
        text: &str,
        args: &CompareArgs,
        certificates: &Certificates,
    ) -> Result<Self> {
        let (name, (command, configuration)) = match text.split_once('=') {
            Some((name, command)) => (name, (command.to_string(), Vec::new())),
            None => (text, peers::known(text, args, &certificates.transport)?),
        };
        let configuration = configuration
            .into_iter()
            .map(|(file, text)| (file, certificates.fill(&text)))
            .collect();
        Ok(Self { name: name.into(), command: certificates.fill(&command), configuration })
    }

    /// `ringmq` with this many cores, or NAME=COMMAND.
    pub fn parse_ringmq(text: &str, binary: &Path, cores: usize) -> Result<Self> {
        let (name, command) = match text.split_once('=') {
            Some((name, command)) => (name, command.to_string()),
            None if text == "ringmq" => {
                (text, format!("{} --cores {cores}", peers::ringmq(binary)?))
            }
            None => return Err(Error::Usage(format!("{text} is neither ringmq nor NAME=COMMAND"))),
        };
        Ok(Self { name: name.into(), command, configuration: Vec::new() })
    }

    /// A broker with this command line, and files to write into {dir} first.
    pub fn new(name: &str, command: String, configuration: Vec<Configuration>) -> Self {
        Self { name: name.into(), command, configuration }
    }

    /// The name in tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts the broker on these cores and waits until it listens. `port` 0 selects a free one.
    pub fn start(&self, port: u16, cores: &[usize]) -> Result<RunningBroker> {
        let address = free_address(port)?;
        let folder = Folder::new()?;
        let fill = |text: &str| {
            text.replace("{port}", &address.socket_address().port().to_string())
                .replace("{dir}", &folder.path.display().to_string())
        };
        let log_path = folder.path.join("broker.log");
        let doing = || format!("start {}", self.name);
        let prepare = || {
            for (name, text) in &self.configuration {
                fs::write(folder.path.join(name), fill(text))?;
            }
            let log = File::create(&log_path)?;
            Ok((log.try_clone()?, log))
        };
        let (output, errors) = prepare().map_err(|source| Error::io(doing(), source))?;
        // The child inherits the affinity of this thread, so it never runs on other cores.
        affinity::pin_to(cores)?;
        let child = Command::new("sh")
            .arg("-c")
            .arg(exec(&fill(&self.command)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|source| Error::io(doing(), source))?;
        let mut running = RunningBroker { child, address, log_path, _folder: folder };
        running.await_listening(&self.name)?;
        Ok(running)
    }
}

/// A broker process, stopped on drop.
#[derive(Debug)]
pub struct RunningBroker {
    child: Child,
    address: LoopbackAddress,
    log_path: PathBuf,
    _folder: Folder,
}

impl RunningBroker {
    /// The address of the broker.
    pub fn address(&self) -> LoopbackAddress {
        self.address
    }

    /// A meter for the process.
    pub fn meter(&self) -> Result<Meter> {
        Meter::new(self.child.id())
    }

    /// Adds the end of the broker's log to an error, as it often states the cause.
    pub fn explain(&self, name: &str, error: Error) -> Error {
        match error {
            Error::Usage(_) => error,
            Error::Io { .. } | Error::Broker(_) => {
                Error::Broker(format!("{name}: {error}\n{}", self.log_end()))
            }
        }
    }

    fn await_listening(&mut self, name: &str) -> Result<()> {
        let deadline = Instant::now() + BROKER_TIMEOUT;
        while TcpStream::connect(self.address.socket_address()).is_err() {
            let ended = self.child.try_wait().map_err(|source| Error::io("wait", source))?;
            if ended.is_some() || Instant::now() > deadline {
                let log = self.log_end();
                return Err(Error::Broker(format!(
                    "{name} does not listen on {}:\n{log}",
                    self.address
                )));
            }
            thread::sleep(Duration::from_millis(10));
        }
        // The cost of this connection, and of the start, must not be measured.
        thread::sleep(Duration::from_millis(100));
        Ok(())
    }

    /// Whether the process has exited.
    pub fn has_ended(&mut self) -> Result<bool> {
        let ended =
            self.child.try_wait().map_err(|source| Error::io("look at a broker", source))?;
        Ok(ended.is_some())
    }

    /// Size of the log in bytes.
    pub fn log_bytes(&self) -> u64 {
        fs::metadata(&self.log_path).map_or(0, |metadata| metadata.len())
    }

    /// The last lines of the log.
    pub fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log_path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    fn stop(&mut self) -> io::Result<()> {
        terminate(&mut self.child)?;
        let deadline = Instant::now() + BROKER_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for RunningBroker {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("ringmq-bench: cannot stop a broker: {error}");
        }
    }
}

/// An empty folder, removed on drop.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Creates a folder.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmq-bench-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)
            .map_err(|source| Error::io(format!("create {}", path.display()), source))?;
        Ok(Self { path })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("ringmq-bench: cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Replaces the shell by the command, so that the measured process is the broker.
fn exec(command: &str) -> String {
    if command.contains("exec ") { command.into() } else { format!("exec {command}") }
}

fn free_address(port: u16) -> Result<LoopbackAddress> {
    let doing = || format!("find port {port} of 127.0.0.1 free");
    let listener = TcpListener::bind(("127.0.0.1", port))
        .and_then(|listener| listener.local_addr())
        .map_err(|source| Error::io(doing(), source))?;
    listener.to_string().parse().map_err(Error::Usage)
}

#[cfg(unix)]
fn terminate(child: &mut Child) -> io::Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let pid = rustix::process::Pid::from_child(child);
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}

#[cfg(not(unix))]
fn terminate(child: &mut Child) -> io::Result<()> {
    child.kill()
}

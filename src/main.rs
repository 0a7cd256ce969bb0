//! The `broker` command: flags, log, signals.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use clap::Parser;
use ringmq::access::{self, Control};
use ringmq::base::output::Output;
#[cfg(all(feature = "service", windows))]
use ringmq::cli::ServiceCommand;
use ringmq::cli::{self, Command, Flags, StoreCommand};
use ringmq::config::{Cores, Log, LogFormat, LogLevel, Settings};
use ringmq::executor::Stop;
use ringmq::platform::{
    self,
    report::{PlanReport, Report},
};
use ringmq::reload::Reload;
use ringmq::server::{Server, ServerError};
use ringmq::service::{self, HandedOver};
use ringmq::stats::Prompt;
use serde::Serialize;
use tracing::level_filters::LevelFilter;

/// Exit codes, which `--help` documents.
const EXIT_OTHER: u8 = 1;
const EXIT_CONFIGURATION: u8 = 2;
const EXIT_LISTEN: u8 = 3;
const EXIT_DESCRIPTORS: u8 = 4;
#[cfg(feature = "store")]
const EXIT_STORE: u8 = 5;

/// Where the log goes, once there is one.
static LOG: OnceLock<Output> = OnceLock::new();

fn main() -> ExitCode {
    let code = do_what_is_asked();
    if let Some(log) = LOG.get() {
        log.finish();
    }
    code
}

/// Says on standard error why this ends, as far as it can be said.
fn complain(why: impl Display) {
    let line = format!("{why}\n");
    match LOG.get() {
        Some(log) => log.say(line.as_bytes()),
        // Nobody is there to hear that nobody hears it; the exit code says it too.
        None => drop(std::io::stderr().write_all(line.as_bytes())),
    }
}

/// Prints what was asked for, with the exit code for that.
fn answer(text: impl Display, code: ExitCode) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => code,
        Err(error) => {
            complain(format_args!("broker: cannot write to standard output: {error}"));
            ExitCode::from(EXIT_OTHER)
        }
    }
}

fn do_what_is_asked() -> ExitCode {
    let flags = Flags::parse();
    let settings = match flags.settings() {
        Ok(settings) => settings,
        Err(error) => {
            complain(format_args!("broker: {error}"));
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    if let Some(Command::Platform { json, plan, cores, numa }) = &flags.command {
        let outcome = match plan {
            true => print_plan(cores.as_ref().unwrap_or(&settings.cores), *numa, *json),
            false => print(&Report::new(&settings), *json),
        };
        return outcome.map_or_else(
            |error| {
                complain(format_args!("broker platform: {error}"));
                ExitCode::from(EXIT_CONFIGURATION)
            },
            |()| ExitCode::SUCCESS,
        );
    }
    if let Some(Command::Store { what }) = &flags.command {
        if let Err(code) = start_log(settings.log) {
            return code;
        }
        return store_command(what, &settings);
    }
    #[cfg(all(feature = "service", windows))]
    if let Some(Command::Service { what }) = &flags.command {
        return service_command(*what, &flags, settings);
    }
    let outcome = match &flags.command {
        Some(Command::Passwd { file, what }) => {
            Some(("passwd", cli::access::passwd(what, file.as_deref(), &settings)))
        }
        Some(Command::Acl { what }) => Some(("acl", cli::access::acl(what, &settings))),
        _ => None,
    };
    if let Some((name, outcome)) = outcome {
        return say(name, outcome);
    }
    if flags.check_config {
        return check_configuration(&settings);
    }
    if let Err(code) = start_log(settings.log) {
        return code;
    }
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            complain(format_args!("broker: {error}"));
            ExitCode::from(code)
        }
    }
}

fn print_plan(cores: &Cores, numa: bool, json: bool) -> Result<(), Box<dyn std::error::Error>> {
    print(&PlanReport::new(cores, numa)?, json)
}

fn print<T: Serialize + Display>(what: &T, json: bool) -> Result<(), Box<dyn std::error::Error>> {
    let text = if json { serde_json::to_string_pretty(what)? } else { what.to_string() };
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(())
}

/// Prints what a command has to say; its exit code says whether that is a yes.
fn say(command: &str, outcome: Result<(String, bool), Box<dyn std::error::Error>>) -> ExitCode {
    match outcome {
        Ok((text, is_yes)) => {
            answer(text, if is_yes { ExitCode::SUCCESS } else { ExitCode::from(EXIT_OTHER) })
        }
        Err(error) => {
            complain(format_args!("broker {command}: {error}"));
            ExitCode::from(EXIT_CONFIGURATION)
        }
    }
}

/// `broker store`.
#[cfg(not(feature = "store"))]
fn store_command(_what: &StoreCommand, _settings: &Settings) -> ExitCode {
    complain("broker store: this broker was built without a store");
    ExitCode::from(EXIT_CONFIGURATION)
}

/// `broker store`.
#[cfg(feature = "store")]
fn store_command(what: &StoreCommand, settings: &Settings) -> ExitCode {
    let folder = match settings.data_folder() {
        Ok(folder) => folder,
        Err(because) => {
            complain(format_args!("broker store: no folder: {because}; name one with --data DIR"));
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    match run_store_command(what, &folder) {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("broker store: {error}"));
            ExitCode::from(EXIT_STORE)
        }
    }
}

#[cfg(feature = "store")]
fn run_store_command(
    what: &StoreCommand,
    folder: &std::path::Path,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    use ringmq::storage::log::tools;
    let at = folder.display();
    let mut to = std::io::stdout().lock();
    match what {
        StoreCommand::Inspect { json } => print(&tools::inspect(folder)?, *json)?,
        StoreCommand::Verify => {
            let verdict = tools::verify(folder)?;
            for damage in &verdict.damages {
                writeln!(to, "damaged: {damage}")?;
            }
            let (frames, torn) = (verdict.frames, verdict.torn_bytes);
            writeln!(to, "{at}: {frames} frames are whole, {torn} bytes at the end are torn")?;
            if !verdict.damages.is_empty() {
                return Ok(ExitCode::from(EXIT_STORE));
            }
        }
        StoreCommand::Compact => {
            let (before, after) = tools::compact(folder)?;
            writeln!(to, "{at}: {before} bytes before, {after} after")?;
        }
        StoreCommand::Export => tools::export(folder, &mut to)?,
        StoreCommand::Import => {
            let (sessions, retained) = tools::import(folder, std::io::stdin().lock())?;
            writeln!(to, "{at}: {sessions} sessions, {retained} retained messages")?;
        }
        StoreCommand::Repair => match tools::repair(folder)? {
            None => writeln!(to, "{at}: nothing is damaged")?,
            Some((aside, places)) => writeln!(
                to,
                "{at}: what is whole is kept; {places} places were damaged, the files as they were \
                 are in {}",
                aside.display()
            )?,
        },
        StoreCommand::EndSession { client } => {
            if !tools::end_session(folder, client)? {
                complain(format_args!("broker store: {at}: there is no session of {client:?}"));
                return Ok(ExitCode::FAILURE);
            }
            writeln!(to, "{at}: the session of {client:?} has ended")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says all that would stop a start; the exit code is the one that a start would have.
fn check_configuration(settings: &Settings) -> ExitCode {
    let access = Control::open(settings).err();
    let access = access.map(|error| (EXIT_CONFIGURATION, error.into()));
    let server = ringmq::server::check(settings).into_iter().map(with_code);
    let failures: Vec<Failure> = access.into_iter().chain(server).collect();
    for (_, error) in &failures {
        complain(format_args!("broker: {error}"));
    }
    match failures.first() {
        Some((code, _)) => ExitCode::from(*code),
        None => print_configuration(settings),
    }
}

fn print_configuration(settings: &Settings) -> ExitCode {
    let addresses: Vec<String> =
        settings.every_listener().map(|listener| listener.bind.to_string()).collect();
    let text = format!("configuration ok; listens on {}", addresses.join(", "));
    answer(text, ExitCode::SUCCESS)
}

/// `broker service`, on Windows.
#[cfg(all(feature = "service", windows))]
fn service_command(what: ServiceCommand, flags: &Flags, settings: Settings) -> ExitCode {
    let done = match what {
        ServiceCommand::Install => service::windows::install(
            flags.config.as_deref(), // read already, so that it is there and says what it should
            flags.data.as_deref(),
        ),
        ServiceCommand::Uninstall => service::windows::uninstall(),
        ServiceCommand::Run => {
            if let Err(error) = start_log_of_service(settings.log) {
                complain(format_args!("broker service: {error}"));
                return ExitCode::from(EXIT_OTHER);
            }
            service::windows::run(Box::new(move |stop, when_serving| {
                match serve(settings.clone(), stop, &Reload::new(), |_| Ok(()), when_serving) {
                    Ok(()) => 0,
                    Err((code, error)) => {
                        tracing::error!("{error}");
                        code
                    }
                }
            }))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("broker service: {error}"));
            ExitCode::from(EXIT_OTHER)
        }
    }
}

/// A service has no standard error: its log is a file, and the log of the start before is another.
#[cfg(all(feature = "service", windows))]
fn start_log_of_service(log: Log) -> Result<(), String> {
    let folder = service::windows::folder();
    let file = folder.join("broker.log");
    let error = |error| format!("cannot write the log {}: {error}", file.display());
    std::fs::create_dir_all(&folder).map_err(error)?;
    // At the first start there is none.
    let _ = std::fs::rename(&file, file.with_extension("old.log"));
    let writer = std::fs::File::create(&file).map_err(error)?;
    start_log_to(log, false, writer).map_err(|error| error.to_string())
}

/// An exit code, and why.
type Failure = (u8, Box<dyn std::error::Error>);

fn run(settings: Settings) -> Result<(), Failure> {
    let (stop, reload) = (Stop::new(), Reload::new());
    let held = hold_signals().map_err(|error| (EXIT_OTHER, error.into()))?;
    let listen = |prompt| listen_to_signals(held, stop.clone(), reload.clone(), prompt);
    serve(settings, stop.clone(), &reload, listen, || {})
}

/// Serves until `stop` is asked; has signals listened to once there is what they ask for, and says
/// `when_serving`.
fn serve(
    mut settings: Settings,
    stop: Stop,
    reload: &Reload,
    listen_to_signals: impl FnOnce(Option<Prompt>) -> Result<(), Box<dyn std::error::Error>>,
    when_serving: impl FnOnce(),
) -> Result<(), Failure> {
    let keys = keys().map_err(|error| (EXIT_OTHER, error.to_string().into()))?;
    let cores = settings.cores.count();
    let connections_asked = settings.limits.connections_max;
    let handed_over = HandedOver::from_manager().map_err(|error| (EXIT_LISTEN, error.into()))?;
    handed_over.configure(&mut settings).map_err(|error| (EXIT_LISTEN, error.into()))?;
    let control = Control::open(&settings).map_err(|error| (EXIT_CONFIGURATION, error.into()))?;
    if let Some(control) = &control {
        let control = Arc::clone(control);
        reload.register("access", move || control.reload().map_err(|error| error.to_string()));
    }
    access::say_who_is_let_in(&settings);
    let access = |bell| access::make(control.as_ref(), bell);
    let server = Server::open(settings, &access, keys, stop.clone(), reload, handed_over)
        .map_err(with_code)?;
    listen_to_signals(server.prompt()).map_err(|error| (EXIT_OTHER, error))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        executor = server.kind().name(),
        cores,
        machine = platform::line(),
        connections_max = server.connections_max(),
        chosen_by = if connections_asked == 0 { "descriptors and memory" } else { "configuration" },
        "starting"
    );
    let open = server.open_listeners().to_vec();
    let say_serving = || {
        for listener in &open {
            let (bind, transport) = (&listener.bind, listener.transport.name());
            tracing::info!(address = %bind, transport, "listening");
        }
        let addresses: Vec<_> = open.iter().map(|listener| listener.bind.to_string()).collect();
        let addresses = addresses.join(", ");
        service::say_ready(&format!("serving on {addresses}"), &stop);
        when_serving();
    };
    server.serve(say_serving).map_err(with_code)?;
    tracing::info!("stopped");
    Ok(())
}

fn with_code(error: ServerError) -> Failure {
    let code = match error {
        ServerError::Listen(..) => EXIT_LISTEN,
        ServerError::Descriptors(_) => EXIT_DESCRIPTORS,
        ServerError::Seats(_) | ServerError::Stats(..) | ServerError::Tls(..) => EXIT_CONFIGURATION,
        #[cfg(feature = "store")]
        ServerError::Store(_) | ServerError::NoFolder(_) => EXIT_STORE,
        ServerError::Mode(_) | ServerError::Executor(_) => EXIT_OTHER,
    };
    (code, error.into())
}

/// SIGHUP and SIGUSR1 end no broker that is still starting, as they would by themselves: they wait.
#[cfg(unix)]
fn hold_signals() -> std::io::Result<signal_hook::iterator::Signals> {
    use signal_hook::consts::{SIGHUP, SIGUSR1};
    signal_hook::iterator::Signals::new([SIGHUP, SIGUSR1])
}

/// Elsewhere there are none.
#[cfg(not(unix))]
fn hold_signals() -> std::io::Result<()> {
    Ok(())
}

/// The first SIGTERM or SIGINT asks for a clean stop, the second ends the process. SIGHUP has read
/// anew what can be, and SIGUSR1 asks for statistics; it does no harm to a broker that takes none.
#[cfg(unix)]
fn listen_to_signals(
    mut signals: signal_hook::iterator::Signals,
    stop: Stop,
    reload: Reload,
    prompt: Option<Prompt>,
) -> Result<(), Box<dyn std::error::Error>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    signals.add_signal(SIGTERM)?;
    signals.add_signal(SIGINT)?;
    let run = move || {
        for signal in signals.forever() {
            match (signal, &prompt) {
                (SIGHUP, _) => drop(reload.run()),
                (SIGUSR1, Some(prompt)) => prompt.ask(),
                (SIGUSR1, None) => {}
                _ => ask_to_stop(&stop),
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(run)?;
    Ok(())
}

/// The first Ctrl-C, or whatever else ends programs here, asks for a clean stop, the second ends the
/// process.
#[cfg(not(unix))]
fn listen_to_signals(
    _held: (),
    stop: Stop,
    _reload: Reload,
    _prompt: Option<Prompt>,
) -> Result<(), Box<dyn std::error::Error>> {
    Ok(ctrlc::set_handler(move || ask_to_stop(&stop))?)
}

fn ask_to_stop(stop: &Stop) {
    // First: the process may be gone a moment after it is asked.
    service::say_stopping();
    if stop.ask() > 1 {
        std::process::exit(i32::from(EXIT_OTHER));
    }
}

fn start_log(log: Log) -> Result<(), ExitCode> {
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    start_log_to(log, is_terminal, std::io::stderr()).map_err(|error| {
        complain(format_args!("broker: cannot start the thread that writes the log: {error}"));
        ExitCode::from(EXIT_OTHER)
    })
}

fn start_log_to(
    log: Log,
    has_colours: bool,
    writer: impl Write + Send + 'static,
) -> std::io::Result<()> {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let output = Output::for_log(writer)?;
    // A process has one log.
    let _ = LOG.set(output.clone());
    log_panics(output.clone());
    let log_to = tracing_subscriber::fmt()
        .with_writer(output)
        .log_internal_errors(false)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(has_colours);
    match log.format {
        LogFormat::Text => log_to.init(),
        LogFormat::Json => log_to.json().init(),
    }
    Ok(())
}

/// A panic is told the way of the log: standard error may have a reader that stands still.
fn log_panics(output: Output) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{trace}"),
            _ => "set RUST_BACKTRACE=1 for where it came from\n".to_owned(),
        };
        output.say(format!("thread '{name}' {panic}\n{trace}").as_bytes());
        // Where a panic ends the process, this is the last chance.
        output.finish();
    }));
}

/// Secrets from the system, which has them independent of each other.
fn keys() -> Result<ringmq::engine::Keys, getrandom::Error> {
    let identifiers = [getrandom::u64()?, getrandom::u64()?];
    Ok(ringmq::engine::Keys { tables: getrandom::u64()?, identifiers })
}

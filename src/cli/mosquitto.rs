//! `broker mosquitto`: checks and converts configuration files of Mosquitto; and the command line of Mosquitto, for a
//! broker that is called by its name.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{ArgAction, Parser};

use super::console::{print, print_error};
use super::{Exit, Failure, Flags, MosquittoCommand};
use crate::config::{Configuration, LogTo};
use crate::mosquitto::configuration::options::Class;
use crate::mosquitto::configuration::{Generation, Translation, convert};

const COMMAND: &str = "mosquitto";

/// The command line of Mosquitto.
#[derive(Debug, Parser)]
#[command(name = COMMAND, version, about = "An MQTT broker in the place of Mosquitto.")]
struct MosquittoFlags {
    /// Configuration file of Mosquitto. Without one, the broker serves clients on this machine, and keeps nothing.
    #[arg(short, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Port, for a configuration without listeners; may be repeated.
    #[arg(short, value_name = "PORT")]
    port: Vec<u16>,

    /// Run in the background.
    #[arg(short)]
    daemon: bool,

    /// Log everything.
    #[arg(short)]
    verbose: bool,

    /// Log nothing.
    #[arg(short, conflicts_with = "verbose")]
    quiet: bool,

    /// Check the configuration, report errors, and exit.
    #[arg(long, action = ArgAction::SetTrue)]
    test_config: bool,
}

/// The flags of Mosquitto that no flag of this broker expresses.
#[derive(Clone, Debug, Default)]
pub struct InPlace {
    ports: Vec<u16>,
    is_quiet: bool,
    /// Whether the process starts another one that serves.
    pub(super) is_in_background: bool,
}

/// The flags of this process, which may be called as `mosquitto`.
pub fn flags() -> Flags {
    let name = std::env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_stem() == Some(OsStr::new(COMMAND)) {
        true => of_mosquitto(MosquittoFlags::parse()),
        false => Flags::parse(),
    }
}

fn of_mosquitto(flags: MosquittoFlags) -> Flags {
    let MosquittoFlags { config, port, daemon, verbose, quiet, test_config } = flags;
    let mut all = Flags::parse_from([COMMAND]);
    all.mosquitto_conf = config;
    all.check_config = test_config;
    all.verbose = if verbose { 2 } else { 0 };
    all.in_place = Some(InPlace { ports: port, is_quiet: quiet, is_in_background: daemon });
    all
}

/// The configuration in a file of Mosquitto, over which environment variables take precedence.
pub(super) fn configuration(
    file: Option<&Path>,
    generation: Generation,
    in_place: Option<&InPlace>,
) -> Result<Configuration, Vec<crate::config::ConfigError>> {
    let ports = in_place.map_or(&[][..], |flags| &flags.ports);
    let translation = Translation::read(file, ports, generation).map_err(|error| vec![error])?;
    let mut configuration = translation.configuration(std::env::vars_os())?;
    if in_place.is_some_and(|flags| flags.is_quiet) {
        configuration.settings.log.to = LogTo::None;
        configuration.set_by_flag("log.to", "-q");
    }
    Ok(configuration)
}

/// Starts this program again without the terminal, and leaves it running.
pub(super) fn start_in_background() -> Result<Exit, Failure> {
    let start = || -> std::io::Result<()> {
        let arguments = std::env::args_os().skip(1).filter(|argument| argument != "-d");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt as _;
            command.arg0(COMMAND).process_group(0);
        }
        command.spawn().map(drop)
    };
    start().map_err(|error| {
        Failure::new(Exit::Other, format!("-d: cannot start in the background: {error}"))
    })?;
    Ok(Exit::Success)
}

/// Runs the command.
pub(super) fn run(what: &MosquittoCommand, generation: Generation) -> Result<Exit, Failure> {
    let (MosquittoCommand::Check { file } | MosquittoCommand::Convert { file }) = what;
    let translation = Translation::read(Some(file), &[], generation)
        .map_err(Failure::of(Exit::Configuration, COMMAND))?;
    let errors = match translation.configuration([]) {
        Ok(configuration) => configuration.check().err().into_iter().collect(),
        Err(errors) => errors,
    };
    match what {
        MosquittoCommand::Check { .. } => {
            if translation.is_whole() {
                errors.iter().for_each(say);
            }
            print(verdicts(&translation), Exit::of_answer(errors.is_empty()))
        }
        MosquittoCommand::Convert { .. } if errors.is_empty() => {
            print(convert::to_toml(&translation).trim_end().to_owned(), Exit::Success)
        }
        MosquittoCommand::Convert { .. } => {
            errors.iter().for_each(say);
            Ok(Exit::Other)
        }
    }
}

fn say(error: &crate::config::ConfigError) {
    print_error(&Failure::of(Exit::Other, COMMAND)(error.to_string()));
}

/// A line for each line of the file, and their numbers.
fn verdicts(translation: &Translation) -> String {
    let mut text = String::new();
    for line in &translation.lines {
        let (place, class) = (line.place(), line.class.name());
        text += &format!("{place}: {class}: {}", line.line);
        if !line.what.is_empty() {
            text += &format!(" -> {}", line.what);
        }
        text.push('\n');
    }
    let of = |class| translation.lines.iter().filter(|line| line.class == class).count();
    let [same, translated, ignored, refused] =
        [Class::Same, Class::Translated, Class::Ignored, Class::Refused].map(of);
    text + &format!("{same} same, {translated} translated, {ignored} ignored, {refused} refused")
}

//! `broker service`: installs, removes and runs the broker as a Windows service.

use super::serve::serve;
use super::{Exit, Failure, Flags, ServiceCommand, log};
use crate::config::{Log, Settings};
use crate::control::reload::Reload;
use crate::service::windows;

const COMMAND: &str = "service";

/// Runs the command.
pub(super) fn run(
    what: ServiceCommand,
    flags: &Flags,
    settings: Settings,
) -> Result<Exit, Failure> {
    let done = match what {
        // The configuration file has been read by now, so it is there and valid.
        ServiceCommand::Install => windows::install(flags.config.as_deref(), flags.data.as_deref()),
        ServiceCommand::Uninstall => windows::uninstall(),
        ServiceCommand::Run => {
            start_log(&settings.log).map_err(Failure::of(Exit::Other, COMMAND))?;
            windows::run(Box::new(move |stop, when_serving| {
                match serve(settings.clone(), stop, &Reload::new(), |_| Ok(()), when_serving) {
                    Ok(()) => 0,
                    Err(failure) => {
                        tracing::error!("{}", failure.error);
                        failure.exit as u8
                    }
                }
            }))
        }
    };
    done.map_err(Failure::of(Exit::Other, COMMAND))?;
    Ok(Exit::Success)
}

/// Starts the log in a file, because a service has no standard error. The log of the previous run is renamed.
fn start_log(log: &Log) -> Result<(), String> {
    let folder = windows::folder();
    let file = folder.join("broker.log");
    let error = |error| format!("cannot write the log {}: {error}", file.display());
    std::fs::create_dir_all(&folder).map_err(error)?;
    // Fails on the first run, when there is none.
    let _ = std::fs::rename(&file, file.with_extension("old.log"));
    let writer = std::fs::File::create(&file).map_err(error)?;
    log::start_to(log, Box::new(writer)).map_err(|error| error.to_string())
}

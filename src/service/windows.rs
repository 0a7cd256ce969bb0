//! Windows service: install, uninstall, and run under the service manager.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use windows_service::service::{
    ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept,
    ServiceErrorControl, ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod,
    ServiceInfo, ServiceStartType, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{
    self, ServiceControlHandlerResult, ServiceStatusHandle,
};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};
use windows_service::{define_windows_service, service_dispatcher};

use crate::control::stop::Stop;

/// The name of the service.
pub const NAME: &str = "ringmq";
/// The account of the service, which has few rights and no password.
const ACCOUNT: &str = r"NT AUTHORITY\LocalService";
/// How long the service may take to start, with all sessions from disk, and to stop.
const PATIENCE: Duration = Duration::from_secs(600);
/// Delay before the manager restarts a service that has ended by itself.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// How long the service must have run for a failure to count as the first again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3_600);

/// An operation on the service failed.
#[derive(Debug)]
pub struct Failed {
    what: &'static str,
    why: windows_service::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, why } = self;
        let hint = "run this as administrator";
        match why {
            windows_service::Error::Winapi(error) => write!(f, "cannot {what}: {error}; {hint}"),
            error => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for Failed {}

fn failed(what: &'static str) -> impl FnOnce(windows_service::Error) -> Failed {
    move |why| Failed { what, why }
}

/// The folder of the service's data and log: `%ProgramData%\ringmq`.
pub fn folder() -> PathBuf {
    let base = std::env::var_os("ProgramData").filter(|base| !base.is_empty());
    let base = base.unwrap_or_else(|| r"C:\ProgramData".into());
    Path::new(&base).join(NAME)
}

/// Installs this program as a service that starts with the machine, and starts the service. The paths of its
/// configuration file and data folder become absolute.
pub fn install(config: Option<&Path>, data: Option<&str>) -> Result<(), Failed> {
    let io = |what| move |error: io::Error| failed(what)(windows_service::Error::Winapi(error));
    std::fs::create_dir_all(folder()).map_err(io("create the folder for data and log"))?;
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .map_err(io("resolve the paths of the service's files"))
            .map(PathBuf::into_os_string)
    };
    let mut arguments: Vec<OsString> = Vec::new();
    if let Some(config) = config {
        arguments.extend(["--config".into(), absolute(config)?]);
    }
    let data = match data {
        Some("none") => "none".into(),
        Some(data) => absolute(Path::new(data))?,
        None => folder().join("data").into_os_string(),
    };
    arguments.extend(["--data".into(), data, "service".into(), "run".into()]);
    let executable_path = std::env::current_exe().map_err(io("find the path of this program"))?;
    let info = ServiceInfo {
        name: NAME.into(),
        display_name: "ringmq MQTT broker".into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path,
        launch_arguments: arguments,
        dependencies: Vec::new(),
        account_name: Some(ACCOUNT.into()),
        account_password: None,
    };
    let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
    let manager = ServiceManager::local_computer(None::<&str>, access)
        .map_err(failed("reach the service manager"))?;
    let access = ServiceAccess::CHANGE_CONFIG | ServiceAccess::START;
    let service = manager.create_service(&info, access).map_err(failed("install the service"))?;
    // The service works without both.
    let restart = ServiceAction { action_type: ServiceActionType::Restart, delay: RESTART_AFTER };
    let restarts = service.update_failure_actions(ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(FORGIVEN_AFTER),
        reboot_msg: None,
        command: None,
        actions: Some(vec![restart.clone(), restart.clone(), restart]),
    });
    if let Err(error) = restarts {
        let line = format!("broker service: cannot configure restarts after failures: {error}\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    let _ = service.set_description(env!("CARGO_PKG_DESCRIPTION"));
    service.start::<OsString>(&[]).map_err(failed("start the service"))
}

/// Stops the service and deletes it; its configuration, data and log stay.
pub fn uninstall() -> Result<(), Failed> {
    let manager = ServiceManager::local_computer(None::<&str>, ServiceManagerAccess::CONNECT)
        .map_err(failed("reach the service manager"))?;
    let access = ServiceAccess::QUERY_STATUS | ServiceAccess::STOP | ServiceAccess::DELETE;
    let service = manager.open_service(NAME, access).map_err(failed("find the service"))?;
    let status = service.query_status().map_err(failed("query the service's state"))?;
    if status.current_state != ServiceState::Stopped {
        service.stop().map_err(failed("stop the service"))?;
    }
    service.delete().map_err(failed("delete the service"))
}

/// A broker: serves until a stop is requested, calls the function once it is ready, and returns its exit code.
pub type Broker = dyn Fn(Stop, &dyn Fn()) -> u8 + Send + Sync;

/// The broker for the service manager's thread, which calls a function without an environment.
static BROKER: OnceLock<Box<Broker>> = OnceLock::new();

/// Runs as the service. Fails unless the service manager has started this process.
pub fn run(broker: Box<Broker>) -> Result<(), Failed> {
    assert!(BROKER.set(broker).is_ok(), "a process is one service");
    entry::start().map_err(failed("run as a service without being started as one"))
}

#[allow(unsafe_code, reason = "the service manager hands over its arguments as pointers")]
mod entry {
    use super::{NAME, define_windows_service, serve, service_dispatcher};

    define_windows_service!(service_main, serve);

    pub(super) fn start() -> windows_service::Result<()> {
        service_dispatcher::start(NAME, service_main)
    }
}

fn serve(_arguments: Vec<OsString>) {
    let stop = Stop::new();
    let to_ask = stop.clone();
    let handle = move |control| match control {
        ServiceControl::Stop | ServiceControl::Shutdown => {
            to_ask.request();
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    };
    let status = match service_control_handler::register(NAME, handle) {
        Ok(status) => status,
        Err(error) => return tracing::error!(%error, "cannot register with the service manager"),
    };
    report_status(status, ServiceState::StartPending, 0);
    let broker = BROKER.get().expect("the broker is set before the service starts");
    let code = broker(stop, &|| report_status(status, ServiceState::Running, 0));
    report_status(status, ServiceState::Stopped, code);
}

fn report_status(status: ServiceStatusHandle, state: ServiceState, code: u8) {
    let controls_accepted = match state {
        ServiceState::Running => ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN,
        _ => ServiceControlAccept::empty(),
    };
    let exit_code = match code {
        0 => ServiceExitCode::NO_ERROR,
        code => ServiceExitCode::ServiceSpecific(u32::from(code)),
    };
    let told = status.set_service_status(ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted,
        exit_code,
        checkpoint: 0,
        wait_hint: if state == ServiceState::StartPending { PATIENCE } else { Duration::ZERO },
        process_id: None,
    });
    if let Err(error) = told {
        tracing::warn!(%error, ?state, "cannot report the state to the service manager");
    }
}

//! The brokers that are known by name: how each is started, and with what configuration. Each is
//! configured for what is measured: nothing on disk, no log of messages, no bound that the load would
//! meet. {port} and {dir}, an empty folder, stand for what a broker is given.

use std::path::Path;

use crate::{
    cli::CompareArgs,
    error::{Error, Result},
};

/// A file of a broker's configuration: its name in {dir}, and what it says.
pub type File = (&'static str, String);

/// A known broker's command line and configuration.
pub fn known(name: &str, args: &CompareArgs) -> Result<(String, Vec<File>)> {
    let peers = args.peers_folder.display();
    let installed = |binary: &str| {
        let path = args.peers_folder.join("bin").join(binary);
        require(&path).map(|()| format!("exec {}", path.display()))
    };
    match name {
        "ringmq" => {
            let cores = args.broker_cores.len();
            Ok((format!("{} --cores {cores}", ringmq(&args.ringmq_binary)?), Vec::new()))
        }
        "mosquitto" => {
            let text = include_str!("../../peers/mosquitto.conf");
            let inflight = args.mosquitto_inflight.to_string();
            let file = ("mosquitto.conf", text.replace("{inflight}", &inflight));
            let command = "PATH=\"$PATH:/usr/sbin\" exec mosquitto -c {dir}/mosquitto.conf";
            Ok((command.into(), vec![file]))
        }
        "rumqttd" => {
            let text = include_str!("../../peers/rumqttd.toml");
            let command = format!("{} --quiet --config {{dir}}/rumqttd.toml", installed(name)?);
            Ok((command, vec![("rumqttd.toml", text.into())]))
        }
        "rmqtt" => {
            let [broker, retainer] = [
                include_str!("../../peers/rmqtt.toml"),
                include_str!("../../peers/rmqtt-retainer.toml"),
            ];
            let files =
                vec![("rmqtt.toml", broker.into()), ("rmqtt-retainer.toml", retainer.into())];
            Ok((format!("{} --config {{dir}}/rmqtt.toml", installed("rmqttd")?), files))
        }
        "aedes" => {
            require(&args.peers_folder.join("aedes.mjs"))?;
            Ok((format!("exec node {peers}/aedes.mjs {{port}}"), Vec::new()))
        }
        _ => Err(Error::Usage(format!(
            "{name} is neither ringmq, mosquitto, rumqttd, rmqtt, aedes nor NAME=COMMAND"
        ))),
    }
}

/// How this broker is started on one core.
pub fn ringmq(binary: &Path) -> Result<String> {
    if !binary.is_file() {
        return Err(Error::Usage(format!(
            "there is no {}: run `cargo build --release`, or name one with --ringmq-binary",
            binary.display()
        )));
    }
    Ok(format!("exec {} --listen 127.0.0.1:{{port}} --data none", binary.display()))
}

fn require(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    Err(Error::Usage(format!("there is no {}: run tools/peers/setup", path.display())))
}

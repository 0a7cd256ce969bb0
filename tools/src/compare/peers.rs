//! The brokers known by name: how each is started and configured. Each configuration suits the
//! measurement: no storage, no log of messages, no limit that the load would reach. {port} and
//! {dir}, an empty folder, are replaced.

use std::path::Path;

use crate::{
    cli::CompareArgs,
    error::{Error, Result},
    transport::{Kind, Transport},
};

/// A configuration file: its name in {dir}, and its content.
pub type File = (&'static str, String);

/// A known broker's command line and configuration.
pub fn known(name: &str, args: &CompareArgs, transport: &Transport) -> Result<(String, Vec<File>)> {
    let peers = args.peers_folder.display();
    let installed = |binary: &str| {
        let path = args.peers_folder.join("bin").join(binary);
        require(&path).map(|()| format!("exec {}", path.display()))
    };
    if transport.kind() != Kind::Tcp && !matches!(name, "ringmq" | "mosquitto") {
        return Err(Error::Usage(format!(
            "{name} is compared over TCP only: omit it or --tls and --ws, or state how it is \
             started with NAME=COMMAND"
        )));
    }
    match name {
        "ringmq" => {
            let cores = args.broker_cores.len();
            let Some(file) = ringmq_file(transport) else {
                let command = ringmq(&args.ringmq_binary)?;
                return Ok((format!("{command} --cores {cores}"), Vec::new()));
            };
            let binary = ringmq_binary(&args.ringmq_binary)?;
            let command =
                format!("exec {binary} --config {{dir}}/broker.toml --data none --cores {cores}");
            Ok((command, vec![("broker.toml", file)]))
        }
        "mosquitto" => {
            let text = include_str!("../../peers/mosquitto.conf");
            let inflight = args.mosquitto_inflight.to_string();
            let text = text.replace("{inflight}", &inflight);
            let file = ("mosquitto.conf", text.replace("{transport}", mosquitto_lines(transport)));
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

/// ringmq's configuration, unless it is only a plain TCP listener.
fn ringmq_file(transport: &Transport) -> Option<String> {
    let name = match transport.kind() {
        Kind::Tcp => return None,
        Kind::Tls => "tls",
        Kind::Ws => "ws",
        Kind::Wss => "wss",
    };
    let mut text = format!(
        "[[listeners]]\nbind = \"127.0.0.1:{{port}}\"\ntransport = \"{name}\"\nanonymous = true\n"
    );
    if transport.tls.is_some() {
        text.push_str(
            "[listeners.tls]\ncertificate = \"{certificates}/server.pem\"\n\
             key = \"{certificates}/server-key.pem\"\n",
        );
    }
    if let Some(path) = &transport.websocket_path {
        text.push_str(&format!("[listeners.websocket]\npath = {path:?}\n"));
    }
    Some(text)
}

/// The transport options of Mosquitto's listener.
fn mosquitto_lines(transport: &Transport) -> &'static str {
    match transport.kind() {
        Kind::Tcp => "",
        Kind::Tls => "certfile {certificates}/server.pem\nkeyfile {certificates}/server-key.pem\n",
        Kind::Ws => "protocol websockets\n",
        Kind::Wss => {
            "protocol websockets\ncertfile {certificates}/server.pem\n\
             keyfile {certificates}/server-key.pem\n"
        }
    }
}

/// How this project's broker is started on one core.
pub fn ringmq(binary: &Path) -> Result<String> {
    let binary = ringmq_binary(binary)?;
    Ok(format!("exec {binary} --listen 127.0.0.1:{{port}} --data none"))
}

/// The path of the binary, which must exist.
pub fn ringmq_binary(binary: &Path) -> Result<String> {
    if !binary.is_file() {
        return Err(Error::Usage(format!(
            "{} does not exist: run `cargo build --release`, or use --ringmq-binary",
            binary.display()
        )));
    }
    Ok(binary.display().to_string())
}

fn require(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    Err(Error::Usage(format!("{} does not exist: run tools/peers/setup", path.display())))
}

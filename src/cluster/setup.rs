//! From the configuration to a connection to the engine, with a server of its own where that is configured.

use std::fs;
use std::path::{Path, PathBuf};

use super::identity::store_number;
use super::membership::Me;
use super::nats::{Carrier, CarrierOptions};
use super::spawn::{Engine, EngineOptions};
use super::view::{LaneVersions, NodeNumber};
use crate::base::host_name::host_name;
use crate::config::{Cluster, ClusterEngine, ClusterNode};
use crate::control::cluster::ClusterBoard;

/// Characters of the secret that engine servers share.
const SECRET_MIN: usize = 16;

/// The name of this node, and the number that it has to have.
pub fn node_name(settings: &Cluster) -> (String, Option<NodeNumber>) {
    match &settings.node {
        ClusterNode::Host => {
            // Names of machines may have dots; subjects and names of servers may not.
            let is_right = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            let host =
                host_name().chars().map(|c| if is_right(c) { c } else { '-' }).take(32).collect();
            (host, None)
        }
        ClusterNode::Name(name) => (name.clone(), None),
        ClusterNode::Number(number) => (number.to_string(), NodeNumber::new(*number)),
    }
}

/// Starts the engine server, if the broker is to run one, and the carrier. `data` is the folder of the store, locked by this
/// process.
///
/// # Errors
///
/// The engine cannot be run, or a file cannot be used; the text names the key.
pub async fn start(
    settings: &Cluster,
    data: Option<&Path>,
    lanes: LaneVersions,
    board: ClusterBoard,
) -> Result<(Option<Engine>, Carrier), String> {
    let (engine, options) = start_engine(settings, data, lanes).await?;
    match Carrier::start(options, board).await {
        Ok(carrier) => Ok((engine, carrier)),
        Err(why) => {
            if let Some(engine) = engine {
                engine.stop().await;
            }
            Err(why)
        }
    }
}

/// Starts the engine server, if the broker is to run one; how the engine is reached. `data` is the folder of the store,
/// locked by this process.
///
/// # Errors
///
/// The engine cannot be run, or a file cannot be used; the text names the key.
pub async fn start_engine(
    settings: &Cluster,
    data: Option<&Path>,
    lanes: LaneVersions,
) -> Result<(Option<Engine>, CarrierOptions), String> {
    let (name, number) = node_name(settings);
    let store = store_number(data).map_err(|error| error.to_string())?;
    let given = |path: &PathBuf| Some(path.clone()).filter(|path| !path.as_os_str().is_empty());
    let certificate = given(&settings.tls_certificate).zip(given(&settings.tls_key));
    let me = Me {
        cluster: settings.name.clone(),
        name: name.clone(),
        number,
        advertise: settings.advertise.clone(),
        lanes,
        store,
    };
    let mut options = CarrierOptions { me, ..CarrierOptions::default() };
    let engine = match &settings.engine {
        ClusterEngine::Servers(servers) => {
            options.servers = servers.clone();
            options.user = Some((settings.user.clone(), settings.password.clone()))
                .filter(|(user, _)| !user.is_empty());
            options.credentials = given(&settings.credentials);
            options.nkey = given(&settings.nkey);
            options.ca = given(&settings.tls_ca);
            options.certificate = certificate;
            None
        }
        ClusterEngine::Spawn => {
            let data = data.ok_or(
                "cluster.engine: \"spawn\" needs a folder for the engine's data; name one with storage.data, or name \
                 servers that run already in cluster.engine",
            )?;
            let secret = match given(&settings.routes_secret_file) {
                Some(file) => read_secret(&file)?,
                None => String::new(),
            };
            let tls =
                given(&settings.tls_ca).zip(certificate).map(|(ca, (own, key))| (ca, own, key));
            let engine = Engine::start(EngineOptions {
                program: settings.engine_path.clone(),
                folder: data.join("engine"),
                cluster: settings.name.clone(),
                node: name,
                port: settings.engine_port,
                routes_listen: settings.routes_listen.clone(),
                routes: settings.routes.clone(),
                secret,
                tls,
            })
            .await?;
            options.servers = vec![engine.url().to_owned()];
            options.servers_expected = engine.servers();
            options.user = Some(engine.user().clone());
            Some(engine)
        }
    };
    Ok((engine, options))
}

fn read_secret(file: &Path) -> Result<String, String> {
    let wrong = |why: String| format!("cluster.routes_secret_file {}: {why}", file.display());
    let secret = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let secret = secret.trim();
    match secret.len() >= SECRET_MIN {
        true => Ok(secret.to_owned()),
        false => Err(wrong(format!("the secret has fewer than {SECRET_MIN} characters"))),
    }
}

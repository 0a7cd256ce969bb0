//! MQTT.js and paho-mqtt over TLS and WebSocket, and with passwords.

use std::process::{Child, Command, Stdio};

use crate::matrix::record;
use crate::secured::{open, with_users};
use crate::support::Broker;
use crate::{PYTHON, clients_are_there, wait};

/// A client in another language.
struct Script {
    client: &'static str,
    program: &'static str,
    file: &'static str,
    /// The names of its scenarios on a broker without authentication.
    open: &'static [&'static str],
    wrong_password: &'static str,
}

const PAHO: Script = Script {
    client: "paho-mqtt",
    program: PYTHON,
    file: "tests/interop/paho_client.py",
    open: &["every_qos", "large", "takeover"],
    wrong_password: "wrong_password",
};

const MQTT_JS: Script = Script {
    client: "MQTT.js",
    program: "node",
    file: "tests/interop/mqttjs_client.js",
    open: &["everyQos", "manyInOrder", "properties", "large"],
    wrong_password: "wrongPassword",
};

/// Paho C 1.3.12 (Debian), which handles only the first packet of a WebSocket frame and then waits
/// for another frame.
const PAHO_C: Script = Script {
    client: "Paho C",
    program: "target/interop/paho_c_client",
    file: "",
    open: &["many_retained", "every_qos", "large"],
    wrong_password: "wrong_password",
};

/// The address of a transport's listener.
fn url(broker: &Broker, transport: &str) -> String {
    let (scheme, path) = match transport {
        "tcp" => ("mqtt", ""),
        "tls" => ("mqtts", ""),
        "ws" => ("ws", "/mqtt"),
        _ => ("wss", "/mqtt"),
    };
    format!("{scheme}://{}{path}", broker.address(transport))
}

impl Script {
    fn start(&self, broker: &Broker, transport: &str, scenario: &str) -> Child {
        let url = url(broker, transport);
        // Its URL schemes for MQTT are those of the transport.
        let url = match self.file {
            "" => url.replace("mqtts:", "ssl:").replace("mqtt:", "tcp:"),
            _ => url,
        };
        let mut command = Command::new(self.program);
        if !self.file.is_empty() {
            command.arg(self.file);
        }
        command
            .args([scenario, &url])
            .env("RINGMQ_CA", broker.folder.join("ca.pem"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run tests/interop/setup", self.program))
    }

    fn does(&self, broker: &Broker, transport: &str, scenario: &str) {
        let what = format!("{}: {scenario} over {transport}", self.client);
        wait(self.start(broker, transport, scenario), &what);
    }

    fn does_everything_over(&self, transport: &str) {
        if !clients_are_there() {
            return;
        }
        let broker = open();
        for scenario in self.open {
            self.does(&broker, transport, scenario);
        }
        record(&broker.setup, transport, "none", self.client);
    }

    fn logs_in(&self) {
        if !clients_are_there() {
            return;
        }
        let broker = with_users("");
        for transport in ["tcp", "tls", "ws", "wss"] {
            self.does(&broker, transport, "rules");
            record(&broker.setup, transport, "password", self.client);
            record(&broker.setup, transport, "denied by rules", self.client);
            self.does(&broker, transport, self.wrong_password);
            record(&broker.setup, transport, "wrong password, refused", self.client);
        }
    }
}

#[test]
fn paho_works_over_tls() {
    PAHO.does_everything_over("tls");
}

#[test]
fn paho_works_over_websocket() {
    PAHO.does_everything_over("ws");
}

#[test]
fn paho_works_over_websocket_with_tls() {
    PAHO.does_everything_over("wss");
}

#[test]
fn mqtt_js_works_over_tls() {
    MQTT_JS.does_everything_over("tls");
}

#[test]
fn mqtt_js_works_over_websocket() {
    MQTT_JS.does_everything_over("ws");
}

#[test]
fn mqtt_js_works_over_websocket_with_tls() {
    MQTT_JS.does_everything_over("wss");
}

#[test]
fn paho_c_works_over_tcp() {
    PAHO_C.does_everything_over("tcp");
}

#[test]
fn paho_c_works_over_tls() {
    PAHO_C.does_everything_over("tls");
}

#[test]
fn paho_c_receives_each_packet_in_a_websocket_frame_of_its_own() {
    PAHO_C.does_everything_over("ws");
}

#[test]
fn paho_c_receives_each_packet_in_a_websocket_frame_of_its_own_over_tls() {
    PAHO_C.does_everything_over("wss");
}

#[test]
fn paho_authenticates_by_password_over_every_transport_and_is_restricted_by_the_rules() {
    PAHO.logs_in();
}

#[test]
fn mqtt_js_authenticates_by_password_over_every_transport_and_is_restricted_by_the_rules() {
    MQTT_JS.logs_in();
}

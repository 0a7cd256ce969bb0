//! MQTT.js and paho-mqtt over TLS and WebSocket, and by password.

use std::process::{Child, Command, Stdio};

use crate::did::did;
use crate::secured::{open, with_users};
use crate::support::Broker;
use crate::{PYTHON, clients_are_there, wait};

/// A client in a language of its own.
struct Script {
    client: &'static str,
    program: &'static str,
    file: &'static str,
    /// Its names of what to do where everybody may do everything.
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

/// Debian's Paho C 1.3.12, which handles the first packet of a WebSocket frame and waits for another frame.
const PAHO_C: Script = Script {
    client: "Paho C",
    program: "target/interop/paho_c_client",
    file: "",
    open: &["many_retained", "every_qos", "large"],
    wrong_password: "wrong_password",
};

/// Where a transport's listener is.
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
        // Its schemes of MQTT are those of the transport.
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
        did(&broker.setup, transport, "none", self.client);
    }

    fn logs_in(&self) {
        if !clients_are_there() {
            return;
        }
        let broker = with_users("");
        for transport in ["tcp", "tls", "ws", "wss"] {
            self.does(&broker, transport, "rules");
            did(&broker.setup, transport, "password", self.client);
            did(&broker.setup, transport, "denied by rules", self.client);
            self.does(&broker, transport, self.wrong_password);
            did(&broker.setup, transport, "wrong password, refused", self.client);
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
fn paho_works_over_websocket_in_tls() {
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
fn mqtt_js_works_over_websocket_in_tls() {
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
fn paho_c_gets_each_packet_in_a_websocket_frame_of_its_own() {
    PAHO_C.does_everything_over("ws");
}

#[test]
fn paho_c_gets_each_packet_in_a_websocket_frame_of_its_own_in_tls() {
    PAHO_C.does_everything_over("wss");
}

#[test]
fn paho_logs_in_by_password_over_every_transport_and_is_held_to_the_rules() {
    PAHO.logs_in();
}

#[test]
fn mqtt_js_logs_in_by_password_over_every_transport_and_is_held_to_the_rules() {
    MQTT_JS.logs_in();
}

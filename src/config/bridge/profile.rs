//! Profiles: what a service needs of its clients, and what it refuses. The facts are those of the services' public
//! documentation, named beside each; they were not tried with the services.

use serde::{Deserialize, Serialize};

use super::overlap::Topics;
use super::{Bridge, Version};

/// The kind of far broker.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Any.
    #[default]
    None,
    /// As a bridge of Mosquitto (mosquitto.conf(5), `notifications`): whether it is connected is told to both brokers.
    Mosquitto,
    /// AWS IoT Core (AWS IoT Core Developer Guide, "Device communication protocols" and "MQTT"; AWS General Reference,
    /// "AWS IoT Core endpoints and quotas").
    AwsIot,
    /// Azure IoT Hub (Microsoft Learn, "Communicate with an IoT hub using the MQTT protocol").
    AzureIotHub,
}

/// What a far broker accepts, beyond what it says in CONNACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// Highest QoS.
    pub qos_max: u8,
    /// Whether messages may be retained.
    pub retain: bool,
    /// Bytes of a packet at most; none: those of CONNACK.
    pub packet_bytes_max: Option<u32>,
    /// Bytes and levels of a topic at most.
    topic_bytes_max: usize,
    levels_max: usize,
    /// How topics begin; none: in any way.
    beginnings: Vec<String>,
}

impl Default for Accepts {
    fn default() -> Self {
        Self {
            qos_max: 2,
            retain: true,
            packet_bytes_max: None,
            topic_bytes_max: usize::MAX,
            levels_max: usize::MAX,
            beginnings: Vec::new(),
        }
    }
}

impl Accepts {
    /// Whether a message with this topic may be sent: the service ends the connection for any other.
    pub fn takes_topic(&self, topic: &str) -> bool {
        if self.levels_max == usize::MAX && self.beginnings.is_empty() {
            return true;
        }
        let begins = |beginning: &String| topic.starts_with(&**beginning);
        topic.len() <= self.topic_bytes_max
            && topic.split('/').count() <= self.levels_max
            && (self.beginnings.is_empty() || self.beginnings.iter().any(begins))
    }
}

/// ALPN of AWS IoT Core at port 443 with a client certificate, and with custom authentication ("Device communication
/// protocols", table of protocols, authentication and ports). At port 8883 none is needed.
const AWS_CERTIFICATE: &str = "x-amzn-mqtt-ca";
const AWS_CUSTOM: &str = "mqtt";
/// "AWS IoT Core endpoints and quotas": seven slashes, 256 bytes of a topic, 128 KB of a message.
const AWS_LEVELS_MAX: usize = 8;
const AWS_TOPIC_BYTES_MAX: usize = 256;
const AWS_PACKET_BYTES_MAX: u32 = 128 * 1024;
/// "Send device-to-cloud messages": 256 KB of a message.
const AZURE_PACKET_BYTES_MAX: u32 = 256 * 1024;
/// Topics of Azure IoT Hub for methods and twins.
const AZURE_HUB: &str = "$iothub/";

impl Bridge {
    /// The bridge with what its profile sets.
    pub fn with_profile(&self) -> Self {
        let mut bridge = self.clone();
        match self.profile {
            Profile::None | Profile::Mosquitto => return bridge,
            Profile::AwsIot => {
                // 443 alone needs ALPN, and all servers of a bridge get the same.
                let needs_alpn = self.servers.iter().all(|server| server.port == 443);
                let is_plain =
                    self.servers.iter().all(|server| server.websocket_request().is_none());
                let tls = bridge.tls.get_or_insert_default();
                if tls.alpn.is_empty() && needs_alpn && is_plain {
                    let has_certificate = !tls.certificate.as_os_str().is_empty();
                    let name = if has_certificate { AWS_CERTIFICATE } else { AWS_CUSTOM };
                    tls.alpn = vec![name.to_owned()];
                }
            }
            Profile::AzureIotHub => {
                bridge.version = Version::V311;
                if let Some(device) = self.azure_device() {
                    bridge.client_identifier = device.to_owned();
                }
            }
        }
        bridge.bridge_bit = false;
        // Neither has QoS 2.
        for rule in &mut bridge.outgoing {
            rule.qos_max = rule.qos_max.min(1);
        }
        for rule in &mut bridge.incoming {
            rule.qos = rule.qos.min(1);
        }
        bridge
    }

    /// What the service accepts.
    pub fn accepts(&self) -> Accepts {
        match self.profile {
            Profile::None | Profile::Mosquitto => Accepts::default(),
            Profile::AwsIot => Accepts {
                qos_max: 1,
                packet_bytes_max: Some(AWS_PACKET_BYTES_MAX),
                topic_bytes_max: AWS_TOPIC_BYTES_MAX,
                levels_max: AWS_LEVELS_MAX,
                ..Accepts::default()
            },
            Profile::AzureIotHub => Accepts {
                qos_max: 1,
                retain: false,
                packet_bytes_max: Some(AZURE_PACKET_BYTES_MAX),
                beginnings: self.azure_device().map(azure_beginnings).unwrap_or_default(),
                ..Accepts::default()
            },
        }
    }

    /// Checks what the service refuses.
    pub(super) fn check_profile(&self) -> Result<(), String> {
        match self.profile {
            Profile::None | Profile::Mosquitto => return Ok(()),
            _ if !self.has_tls() => {
                return Err(
                    "profile: the service is reached with TLS only; use mqtts or wss".to_owned()
                );
            }
            Profile::AwsIot => {}
            Profile::AzureIotHub => self.check_azure()?,
        }
        let accepts = self.accepts();
        for rule in &self.outgoing {
            let is_accepted =
                Topics::there(rule).is_some_and(|topics| match &*accepts.beginnings {
                    [] => topics.levels() <= accepts.levels_max,
                    all => all.iter().any(|beginning| topics.meets_below(beginning)),
                });
            if !is_accepted {
                return Err(format!(
                    "out filter = {:?}: the service accepts no topic of it; see docs/bridges.md#profiles",
                    rule.filter
                ));
            }
        }
        match self.incoming.iter().find(|rule| rule.filter.split('/').count() > accepts.levels_max)
        {
            Some(rule) => Err(format!(
                "in filter = {:?}: the service accepts {AWS_LEVELS_MAX} levels at most",
                rule.filter
            )),
            None => Ok(()),
        }
    }

    fn check_azure(&self) -> Result<(), String> {
        if !matches!(self.version, Version::Auto | Version::V311) {
            return Err("version: Azure IoT Hub has MQTT 3.1.1; leave version out".to_owned());
        }
        let Some(device) = self.azure_device() else {
            return Err("username: Azure IoT Hub expects HUB/DEVICE/?api-version=2021-04-12, with the host name of \
                        the hub"
                .to_owned());
        };
        if !self.client_identifier.is_empty() && self.client_identifier != device {
            return Err(format!(
                "client_identifier: for Azure IoT Hub it is that of the device, {device:?}; leave it out"
            ));
        }
        let own = format!("devices/{device}/messages/devicebound/");
        let is_own = |filter: &str| filter.starts_with(&own) || filter.starts_with(AZURE_HUB);
        match self.incoming.iter().find(|rule| !is_own(&rule.filter)) {
            Some(rule) => Err(format!(
                "in filter = {:?}: a device of Azure IoT Hub subscribes below {own} or {AZURE_HUB}",
                rule.filter
            )),
            None => Ok(()),
        }
    }

    /// The device in the User Name.
    fn azure_device(&self) -> Option<&str> {
        let (hub, rest) = self.username.split_once('/')?;
        let (device, query) = rest.split_once('/')?;
        let is_right = !hub.is_empty() && !device.is_empty() && query.starts_with("?api-version=");
        is_right.then_some(device)
    }
}

/// How the topics begin that a device may publish to.
fn azure_beginnings(device: &str) -> Vec<String> {
    vec![format!("devices/{device}/messages/events/"), AZURE_HUB.to_owned()]
}

/// Seconds since 1970 at which a SAS token ends (`se=`; Microsoft Learn, "Control access to IoT Hub by using shared
/// access signatures"); none if it is no such token.
pub fn end_of_token(token: &str) -> Option<u64> {
    let fields = token.trim().strip_prefix("SharedAccessSignature ")?;
    fields.split('&').find_map(|field| field.strip_prefix("se="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn read(keys: &str, tables: &str) -> Result<Bridge, String> {
        let text = format!("[[bridges]]\nname = \"a\"\n{keys}\n{tables}");
        let settings = Settings::from_toml(&text)?;
        settings.check().map_err(|error| error.to_string())?;
        Ok(settings.bridges[0].with_profile())
    }

    const AWS: &str = "profile = \"aws-iot\"\nservers = [\"mqtts://h:443\"]";
    const AZURE: &str = "profile = \"azure-iot-hub\"\nservers = [\"mqtts://h\"]\n\
                         username = \"h/dev/?api-version=2021-04-12\"\npassword_file = \"p\"";
    const EVENTS: &str =
        "[[bridges.out]]\nfilter = \"#\"\nremote_prefix = \"devices/dev/messages/events/\"\n";

    #[test]
    fn the_profile_of_aws_has_its_alpn_qos_levels_and_no_bit_of_bridges() {
        let out = "[[bridges.out]]\nfilter = \"#\"\n[[bridges.in]]\nfilter = \"a\"\n";
        let bridge = read(AWS, out).expect("valid");
        assert_eq!(bridge.tls.as_ref().expect("TLS").alpn, ["mqtt"], "custom authentication");
        assert!(!bridge.bridge_bit);
        assert_eq!((bridge.outgoing[0].qos_max, bridge.incoming[0].qos), (1, 1));
        let certificate = "[bridges.tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        let bridge = read(AWS, &format!("{certificate}{out}")).expect("valid");
        assert_eq!(bridge.tls.expect("TLS").alpn, ["x-amzn-mqtt-ca"]);
        let bridge = read(&AWS.replace(":443", ""), out).expect("valid");
        assert!(bridge.tls.as_ref().expect("TLS").alpn.is_empty(), "none at 8883");
        let accepts = bridge.accepts();
        assert!(
            accepts.takes_topic("1/2/3/4/5/6/7/8") && !accepts.takes_topic("1/2/3/4/5/6/7/8/9")
        );
        assert!(accepts.takes_topic(&"x".repeat(256)) && !accepts.takes_topic(&"x".repeat(257)));
        assert!(Accepts::default().takes_topic("1/2/3/4/5/6/7/8/9"));
    }

    #[test]
    fn the_profile_of_azure_has_the_device_3_1_1_and_its_topics() {
        let bridge = read(AZURE, EVENTS).expect("valid");
        assert_eq!((bridge.version, &*bridge.client_identifier), (Version::V311, "dev"));
        let accepts = bridge.accepts();
        assert_eq!((accepts.qos_max, accepts.retain), (1, false));
        assert!(accepts.takes_topic("devices/dev/messages/events/a"));
        assert!(accepts.takes_topic("$iothub/twin/GET/?$rid=1"));
        assert!(!accepts.takes_topic("devices/other/messages/events/a"));
    }

    #[test]
    fn what_a_service_refuses_is_refused_with_why() {
        let deep = "[[bridges.out]]\nfilter = \"1/2/3/4/5/6/7/8/9\"\n";
        let deep_in = "[[bridges.in]]\nfilter = \"1/2/3/4/5/6/7/8/#\"\n";
        let all = "[[bridges.out]]\nfilter = \"#\"\n";
        let other = "[[bridges.out]]\nfilter = \"#\"\nremote_prefix = \"devices/x/\"\n";
        for (keys, tables, says) in [
            (&*AWS.replace("mqtts", "mqtt"), all, "with TLS only"),
            (AWS, deep, "accepts no topic of it"),
            (AWS, deep_in, "8 levels at most"),
            (&*AZURE.replace("mqtts", "ws"), all, "with TLS only"),
            (&*AZURE.replace("/?api-version", "?api-version"), EVENTS, "HUB/DEVICE/?api-version"),
            (&*format!("{AZURE}\nversion = \"5\""), EVENTS, "has MQTT 3.1.1"),
            (
                &*format!("{AZURE}\nclient_identifier = \"x\""),
                EVENTS,
                "that of the device, \"dev\"",
            ),
            (AZURE, other, "accepts no topic of it"),
            (
                AZURE,
                "[[bridges.in]]\nfilter = \"#\"\n",
                "subscribes below devices/dev/messages/devicebound/",
            ),
        ] {
            let found = read(keys, tables).err().unwrap_or_default();
            assert!(found.contains(says), "{says}: {found}");
        }
        for r#in in ["devices/dev/messages/devicebound/#", "$iothub/methods/POST/#"] {
            let tables = format!("[[bridges.in]]\nfilter = {in:?}\n");
            assert_eq!(read(AZURE, &tables).err(), None);
        }
        assert!(read("profile = \"x\"\nservers = [\"mqtt://h\"]", all).is_err());
    }

    #[test]
    fn the_end_of_a_token_is_read() {
        let token = "SharedAccessSignature sr=h%2Fdevices%2Fdev&sig=a%3D&se=1796009365";
        assert_eq!(end_of_token(token), Some(1_796_009_365));
        for other in ["", "secret", "SharedAccessSignature sr=h&se=x", "se=1"] {
            assert_eq!(end_of_token(other), None, "{other}");
        }
    }
}

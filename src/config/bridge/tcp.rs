//! Options of TCP of a bridge: when a silent network ends the connection.

use serde::{Deserialize, Serialize};

use crate::config::number::between;

/// Options of TCP of the connections of a bridge.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeTcp {
    /// Seconds without traffic before TCP probes the connection (`TCP_KEEPIDLE`); 0: the Keep Alive of MQTT.
    #[serde(deserialize_with = "between::<_, _, 0, 32_767>")]
    pub keep_alive_idle_s: u16,
    /// Seconds between probes (`TCP_KEEPINTVL`); 0: as the system has it.
    #[serde(deserialize_with = "between::<_, _, 0, 32_767>")]
    pub keep_alive_interval_s: u16,
    /// Probes without an answer that end the connection (`TCP_KEEPCNT`); 0: as the system has it.
    #[serde(deserialize_with = "between::<_, _, 0, 127>")]
    pub keep_alive_probes: u8,
    /// Milliseconds after which data without an acknowledgement of TCP end the connection (`TCP_USER_TIMEOUT`, Linux);
    /// 0: the Keep Alive of MQTT.
    #[serde(deserialize_with = "between::<_, _, 0, 2_147_483_647>")]
    pub user_timeout_ms: u32,
}

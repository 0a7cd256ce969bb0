//! Files as programs, packages and people write them that run Mosquitto: the combinations of options of public files.

/// A file of a user, with what is expected of it.
pub struct Case {
    pub name: &'static str,
    /// `PORT`, `OTHER` and `THIRD` stand for free ports, `DIR` for a folder with `passwords`, `acl`, certificates, a list
    /// of revoked ones, and an empty folder `data`.
    pub text: &'static str,
    /// Files in the folder `conf.d`.
    pub included: &'static [(&'static str, &'static str)],
    /// The lines that are ignored with a notice.
    pub ignored: usize,
    /// Parts of the report of `broker mosquitto check`.
    pub says: &'static [&'static str],
    /// The user of the clients that connect; none: an anonymous one.
    pub user: Option<&'static str>,
}

const CASE: Case = Case { name: "", text: "", included: &[], ignored: 0, says: &[], user: None };

pub const CASES: &[Case] = &[
    Case { name: "two lines", text: "listener PORT 127.0.0.1\nallow_anonymous true\n", ..CASE },
    Case {
        name: "a sensor network in a container",
        text: "# for its gateways\nlistener PORT 127.0.0.1\nallow_anonymous true\nmax_queued_messages 1000\n",
        ..CASE
    },
    Case {
        name: "a distribution's package",
        text: "# further files are in the folder\n\npid_file DIR/mosquitto.pid\n\npersistence true\n\
               persistence_location DIR/data/\n\nlog_dest file DIR/mosquitto.log\n\ninclude_dir DIR/conf.d\n",
        included: &[("default.conf", "listener PORT 127.0.0.1\nallow_anonymous true\n")],
        ..CASE
    },
    Case {
        name: "a package whose passwords are in an included file",
        text: "per_listener_settings false\npersistence true\npersistence_location DIR/data/\n\
               log_dest syslog\nlog_dest stdout\nlog_dest topic\nlog_type error\nlog_type warning\n\
               log_type notice\nlog_type information\nconnection_messages true\nlog_timestamp true\n\
               include_dir DIR/conf.d\n",
        included: &[
            ("10-listener.conf", "listener PORT 127.0.0.1\n"),
            ("20-users.conf", "allow_anonymous false\npassword_file DIR/passwords\n"),
            ("ignored.txt", "this is not read\n"),
        ],
        ignored: 1,
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "the image, with its dashboard",
        text: "persistence true\npersistence_location DIR/data/\nlog_dest stdout\nlistener PORT 127.0.0.1\n\
               allow_anonymous true\nlistener OTHER 127.0.0.1\nprotocol http_api\nhttp_dir /usr/share/dashboard\n",
        ..CASE
    },
    Case {
        name: "an interface by its name",
        text: "listener PORT\nbind_interface lo\nallow_anonymous true\n",
        says: &["interface = \"lo\""],
        ..CASE
    },
    Case {
        name: "containers with passwords, websockets and times that people read",
        text: "user root\nsocket_domain ipv4\npersistence true\npersistence_location DIR/data/\n\
               autosave_interval 300\nlog_dest stdout\nlog_dest file DIR/m.log\nlog_type all\n\
               log_timestamp_format %Y-%m-%dT%H:%M:%S\nmessage_size_limit 1048576\nmax_connections -1\n\
               listener PORT 127.0.0.1\nprotocol mqtt\nlistener OTHER 127.0.0.1\nprotocol websockets\n\
               allow_anonymous false\npassword_file DIR/passwords\n",
        ignored: 2,
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "an appliance: rules, a Unix socket and websockets, each with settings of its own",
        text: "per_listener_settings true\nlistener 0 DIR/m.sock\nallow_anonymous true\nacl_file DIR/acl\n\
               listener PORT 127.0.0.1\nallow_anonymous true\nacl_file DIR/acl\nlistener OTHER 127.0.0.1\n\
               protocol websockets\nsocket_domain ipv4\nwebsockets_log_level 255\nallow_anonymous true\n\
               acl_file DIR/acl\nmax_queued_messages 5000\npersistence true\npersistence_location DIR/data/\n",
        ignored: 1,
        ..CASE
    },
    Case {
        name: "an appliance with a mount point for devices",
        text: "listener PORT 127.0.0.1\nmount_point devices/\nallow_anonymous true\nlistener OTHER 127.0.0.1\n",
        ..CASE
    },
    Case {
        name: "a chart's config map",
        text: "per_listener_settings false\nlistener PORT 127.0.0.1\nallow_anonymous true\npersistence true\n\
               persistence_location DIR/data/\nautosave_interval 1800\nautosave_on_changes false\n\
               connection_messages true\nlog_dest stderr\nlog_type error\nlog_type warning\nlog_type notice\n\
               log_type information\nlog_type subscribe\nlog_timestamp true\ninclude_dir DIR/conf.d\n",
        included: &[("extra.conf", "max_inflight_messages 40\nmax_queued_bytes 0\n")],
        ignored: 3,
        ..CASE
    },
    Case {
        name: "an edge device: users by a plugin",
        text: "listener PORT 127.0.0.1\nallow_anonymous false\nplugin /usr/lib/mosquitto_password_file.so\n\
               plugin_opt_password_file DIR/passwords\nlog_dest none\nqueue_qos0_messages true\n",
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "an edge device: certificates for others, this machine without",
        text: "per_listener_settings true\nlistener PORT 127.0.0.1\nallow_anonymous true\nrequire_certificate false\n\
               listener OTHER 127.0.0.1\nallow_anonymous false\nrequire_certificate true\ncafile DIR/ca.pem\n\
               certfile DIR/server.pem\nkeyfile DIR/server-key.pem\n",
        ignored: 1,
        ..CASE
    },
    Case {
        name: "an edge device: a folder of authorities",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\nlistener OTHER 127.0.0.1\nrequire_certificate true\n\
               capath DIR/authorities\ncertfile DIR/server.pem\nkeyfile DIR/server-key.pem\n\
               use_identity_as_username true\n",
        ..CASE
    },
    Case {
        name: "certificate names, and sessions that end",
        text: "listener OTHER 127.0.0.1\ncafile DIR/ca.pem\ncertfile DIR/server.pem\nkeyfile DIR/server-key.pem\n\
               tls_version tlsv1.2\nrequire_certificate true\nuse_identity_as_username true\nallow_anonymous false\n\
               acl_file DIR/acl\npersistence true\npersistence_location DIR/data/\n\
               persistent_client_expiration 14d\nmax_inflight_messages 100\nmax_queued_messages 8192\n\
               listener PORT 127.0.0.1\nallow_anonymous true\n",
        ..CASE
    },
    Case {
        name: "dynamic security",
        text: "listener PORT 127.0.0.1\nallow_anonymous false\nper_listener_settings false\n\
               plugin /usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so\n\
               plugin_opt_config_file DIR/dynamic.json\npersistence true\npersistence_location DIR/data/\n",
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "a router's generator",
        text: "log_dest syslog\nlog_type error\nconnection_messages false\npersistence true\n\
               persistence_location DIR/data\npersistence_file mosquitto.db\nautosave_interval 1800\n\
               autosave_on_changes false\npersistent_client_expiration 1m\nallow_duplicate_messages true\n\
               retry_interval 20\nsys_interval 10\nmax_inflight_messages 20\nmax_queued_messages 100\n\
               max_queued_bytes 0\nmax_inflight_bytes 0\nmemory_limit 0\nmax_packet_size 65535\nmax_keepalive 65535\n\
               retain_available true\nset_tcp_nodelay false\nqueue_qos0_messages false\n\
               auto_id_prefix router-\nport PORT\nbind_address 127.0.0.1\nallow_anonymous false\n\
               password_file DIR/passwords\nacl_file DIR/acl\n",
        ignored: 5,
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "a test broker with everything on",
        text: "listener PORT 127.0.0.1\nallow_anonymous true # for tests\nmax_topic_alias 100\nmax_qos 2\n\
               max_keepalive 0\nlog_type all\nlog_dest stdout\nlistener OTHER 127.0.0.1\nprotocol websockets\n\
               websockets_origin https://example.org\nlistener THIRD 127.0.0.1\ncertfile DIR/server.pem\n\
               keyfile DIR/server-key.pem\ncafile DIR/ca.pem\nciphers HIGH\ndhparamfile DIR/dh.pem\n",
        ignored: 3,
        ..CASE
    },
    Case {
        name: "for this machine alone",
        text: "bind_address 127.0.0.1\nport PORT\nallow_anonymous true\nretained_persistence false\n",
        ..CASE
    },
    Case {
        name: "behind a proxy",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\nlistener OTHER 127.0.0.1\nenable_proxy_protocol 2\n\
               use_username_as_clientid true\n",
        ..CASE
    },
    Case {
        name: "an edge device's bridge to a cloud",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\nconnection edge-to-cloud\naddress mqtt.example.invalid:8883\n\
         bridge_cafile DIR/ca.pem\nbridge_certfile DIR/server.pem\nbridge_keyfile DIR/server-key.pem\n\
         remote_clientid device-1\nlocal_clientid cloud\ntry_private false\nstart_type automatic\ncleansession true\n\
         notifications true\nnotifications_local_only true\nnotification_topic te/bridge/health\n\
         bridge_attempt_unsubscribe false\ntopic s/us out 2 c8y/ \"\"\ntopic s/ds in 2 c8y/ \"\"\n",
        ignored: 1,
        ..CASE
    },
    Case {
        name: "a gateway's bridge, with a comment behind a value",
        text: "listener PORT\nallow_anonymous true\nconnection showcase\naddress 127.0.0.9:9 # the other one\n\
               topic # both 0\nremote_username site\nremote_password secret\n",
        ..CASE
    },
    Case {
        name: "the add-on of a house, with its certificate and a file of the user's",
        text: "protocol mqtt\nuser root\nlog_dest stdout\nlog_type error\nlog_type warning\nlog_type notice\n\
               log_type information\npersistence true\npersistence_location DIR/data/\nmax_queued_messages 8192\n\
               auth_plugin /usr/share/mosquitto/go-auth.so\nauth_opt_backends files\nauth_opt_hasher pbkdf2\n\
               auth_opt_cache true\nauth_opt_auth_cache_seconds 300\nauth_opt_auth_jitter_seconds 30\n\
               auth_opt_acl_cache_seconds 300\nauth_opt_acl_jitter_seconds 30\nauth_opt_log_level error\n\
               auth_opt_files_password_path DIR/passwords\nauth_opt_files_acl_path DIR/acl\n\
               include_dir DIR/conf.d\nlistener PORT 127.0.0.1\nprotocol mqtt\nlistener OTHER 127.0.0.1\n\
               protocol websockets\nlistener THIRD 127.0.0.1\nprotocol mqtt\ncafile DIR/ca.pem\n\
               certfile DIR/server.pem\nkeyfile DIR/server-key.pem\nrequire_certificate false\n",
        included: &[("own.conf", "max_inflight_messages 64\nconnection_messages false\n")],
        says: &[
            "max_queued_messages 8192 -> limits.queue_messages_max = 8192",
            "own.conf:1: same: max_inflight_messages 64",
        ],
        user: Some("alice"),
        ignored: 4,
    },
    Case {
        name: "a container of a house: passwords, rules and a log file",
        text: "# Made by hand\npersistence true\npersistence_location DIR/data\nlog_dest file DIR/mosquitto.log\n\
               log_dest none\npassword_file DIR/passwords\nacl_file DIR/acl\nallow_anonymous false\nlistener PORT\n",
        says: &["access.acl_file ="],
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "containers with four doors, two of them encrypted",
        text: "protocol mqtt\nlog_dest file DIR/mosquitto.log\npersistence true\npersistence_location DIR/data/\n\
               password_file DIR/passwords\nlistener PORT\nprotocol mqtt\nlistener OTHER\nprotocol mqtt\n\
               cafile DIR/server.pem\ncertfile DIR/server.pem\nkeyfile DIR/server-key.pem\n\
               require_certificate false\nlistener THIRD\nprotocol websockets\ncafile DIR/server.pem\n\
               certfile DIR/server.pem\nkeyfile DIR/server-key.pem\nrequire_certificate false\n\
               listener 0 DIR/door.sock\n",
        says: &["protocol websockets"],
        user: Some("alice"),
        ignored: 2,
        ..CASE
    },
    Case {
        name: "a bridge to Amazon's cloud, with a certificate for each thing",
        text: "pid_file DIR/mosquitto.pid\nlistener PORT 127.0.0.1\nallow_anonymous true\npersistence true\n\
               persistence_location DIR/data/\nlog_dest file DIR/mosquitto.log\nconnection cloud\n\
               address example-ats.iot.eu-central-1.example.invalid:8883\ntopic to/cloud out 1\ntopic from/cloud in 1\n\
               topic values/# both 1\nbridge_protocol_version mqttv311\nbridge_insecure false\ncleansession true\n\
               clientid house-bridge\nstart_type automatic\nnotifications false\nlog_type all\n\
               bridge_cafile DIR/ca.pem\nbridge_certfile DIR/server.pem\nbridge_keyfile DIR/server-key.pem\n",
        says: &[
            "address example-ats.iot.eu-central-1.example.invalid:8883 -> servers = [\"mqtts://example-ats.iot.eu-central-1.example.invalid:8883\"]",
            "profile = \"none\"",
        ],
        ..CASE
    },
    Case {
        name: "a bridge to Microsoft's cloud, with a token",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\nconnection hub\n\
               address house.azure-devices.example.invalid:8883\n\
               remote_username house.azure-devices.example.invalid/gateway/?api-version=2021-04-12\n\
               remote_password SharedAccessSignature sr=house&sig=secret&se=4000000000\nremote_clientid gateway\n\
               bridge_capath DIR/authorities\nbridge_tls_version tlsv1.2\nbridge_protocol_version mqttv311\n\
               bridge_attempt_unsubscribe false\ntry_private false\ncleansession true\nnotifications false\n\
               topic devices/gateway/messages/events/# out 1\ntopic devices/gateway/messages/devicebound/# in 1\n",
        says: &["tls.versions = [\"1.2\", \"1.3\"]", "bridge_bit = false"],
        ..CASE
    },
    Case {
        name: "a bridge to a broker that somebody hosts, through the system's authorities",
        text: "listener PORT\nallow_anonymous true\nconnection hosted\naddress broker.example.invalid:8883\n\
               topic # out 1 \"\" house/\ntopic cmd/# in 2 \"\" house/\nremote_username house\n\
               remote_password secret\nbridge_tls_use_os_certs true\nbridge_alpn mqtt\n\
               bridge_outgoing_retain false\nkeepalive_interval 5\n",
        says: &["tls.ca = \"system\"", "retained = \"clear\"", "keep_alive_s = 5"],
        ..CASE
    },
    Case {
        name: "a gateway in a container: a bridge in a file of its own, with empty words",
        text: "include_dir DIR/conf.d\nallow_anonymous true\nlistener PORT 127.0.0.1\n",
        included: &[(
            "gateway.conf",
            "connection gateway\naddress messaging.example.invalid:1883\nremote_username use-token-auth\n\
               remote_password secret\ntry_private false\nstart_type automatic\nbridge_attempt_unsubscribe false\n\
               notifications false\nconnection_messages true\nlog_dest stdout\n\
               topic iotdm-1/type/+/id/# in 1 \"\" \"\"\ntopic iot-2/type/+/id/+/notify in 1 \"\" \"\"\n\
               topic iot-2/type/+/id/+/cmd/+/fmt/+ in \"\" \"\"\n\
               topic iot-2/type/+/id/+/evt/+/fmt/+ out \"\" \"\"\ntopic iotdevice-1/type/+/id/# out 1 \"\" \"\"\n",
        )],
        says: &[
            "gateway.conf:13: same: topic iot-2/type/+/id/+/cmd/+/fmt/+ in \"\" \"\" -> in = { filter = \"iot-2/type/+/id/+/cmd/+/fmt/+\", qos = 0 }",
        ],
        ..CASE
    },
    Case {
        name: "the node of a fleet: MQTT 5, a name for each way, and when to try again",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\nconnection node-7-bridge\n\
               address mqtt.example.invalid:8883\ntopic d/# in 1 \"\" a/node-7/\ntopic u/# out 1 \"\" a/node-7/\n\
               bridge_protocol_version mqttv50\nbridge_insecure false\ncleansession false\nremote_clientid node-7\n\
               start_type automatic\nnotifications true\nnotification_topic a/node-7/bridge_state\nlog_type all\n\
               remote_username node-7\nremote_password secret\nrestart_timeout 10 120\nkeepalive_interval 90\n\
               bridge_cafile DIR/ca.pem\nbridge_max_packet_size 65535\nbridge_max_topic_alias 0\n\
               bridge_receive_maximum 20\nbridge_session_expiry_interval 3600\n",
        says: &[
            "version = \"5\"",
            "reconnect.first_ms = 10000, reconnect.most_s = 120",
            "notification_topic = \"a/node-7/bridge_state\"",
            "session_expiry_s = 3600",
        ],
        ..CASE
    },
    Case {
        name: "two brokers that take turns, while there is something to send",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\nconnection pair\n\
               addresses one.example.invalid:1883 two.example.invalid\nround_robin true\nstart_type lazy\nidle_timeout 30\n\
               threshold 5\nrestart_timeout 3 60 20\ntopic reports/# out 2\nlocal_clientid pair.local\n\
               local_username alice\nlocal_password secret\nlocal_cleansession false\n",
        ignored: 1,
        says: &[
            "servers = [\"mqtt://one.example.invalid:1883\", \"mqtt://two.example.invalid:1883\"]",
            "lazy_messages = 5",
            "user = \"alice\"",
        ],
        ..CASE
    },
    Case {
        name: "the two ends of an encrypting program, by way of a broker for everybody",
        text: "pid_file DIR/mosquitto.pid\npersistence true\npersistence_location DIR/data/\n\
               log_dest file DIR/mosquitto.log\ninclude_dir DIR/conf.d\nlistener PORT\nallow_anonymous true\n\
               connection by-way\naddress broker.example.invalid\ncleansession true\nkeepalive_interval 5\n\
               topic # in 1 from-one/ from-one/\ntopic # out 1 from-other/ from-other/\n\
               bridge_protocol_version mqttv31\ntry_private false\nnotifications false\n\
               bridge_attempt_unsubscribe false\nbridge_tcp_keepalive 30 5 3\nbridge_tcp_user_timeout 5000\n\
               bridge_bind_address 127.0.0.1\n",
        says: &["bind = \"127.0.0.1\"", "version = \"3.1\""],
        ..CASE
    },
    Case {
        name: "workers that share the messages of a cloud",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\nconnection worker-1\naddress mqtt.example.invalid\n\
               topic $share/workers/jobs/# in 1\ntopic results/# out 1\n",
        says: &[
            "topic $share/workers/jobs/# in 1 -> share = \"workers\", in = { filter = \"jobs/#\", qos = 1 }",
        ],
        ..CASE
    },
    Case {
        name: "a router that its own machines reach, with a bridge and what else its pages offer",
        text: "log_dest syslog\nbind_address localhost\nport PORT\nacl_file DIR/acl\nallow_anonymous true\n\
               allow_duplicate_messages false\nclientid_prefixes c\nconnection_messages true\nlog_facility 5\n\
               log_timestamp false\nlog_type warning\nmax_inflight_bytes 100000\nmax_inflight_messages 20\n\
               max_queued_bytes 1000000\nmessage_size_limit 100000\nqueue_qos0_messages true\n\
               upgrade_outgoing_qos 0\nstore_clean_interval 10\nretain_expiry_interval 30d\n\
               listener OTHER 127.0.0.1\nmount_point house/\nuse_username_as_clientid false\n\
               capath DIR/authorities\ncertfile DIR/server.pem\nkeyfile DIR/server-key.pem\ncrlfile DIR/ca.crl\n\
               require_certificate true\nuse_subject_as_username true\nconnection uplink\naddress 127.0.0.9:9\n\
               clientid router\nremote_clientid router-2\nusername site\npassword secret\nlocal_clientid x\n\
               round_robin 0\ntopic # out 0\ntopic cmd/# in 1\ntry_private 1\nnotifications 1\n\
               notifications_local_only 1\nbridge_capath DIR/authorities\nbridge_insecure 0\n\
               bridge_ciphers ECDHE-RSA-AES128-GCM-SHA256\n\
               bridge_ciphers_tls1.3 TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256\n\
               bridge_reload_type immediate\n",
        ignored: 4,
        ..CASE
    },
    Case {
        name: "a chart with a page that says that it is well",
        text: "persistence true\npersistence_location DIR/data/\nlog_dest stdout\nlog_type error\n\
               log_type warning\nlog_type information\nlistener PORT\nallow_anonymous true\nlistener OTHER\n\
               protocol websockets\ncafile DIR/ca.pem\ncertfile DIR/server.pem\nkeyfile DIR/server-key.pem\n\
               require_certificate true\nuse_subject_as_username true\nhttp_dir /health\n\
               websockets_headers_size 4096\n",
        ignored: 2,
        says: &["tls.identity = \"subject\""],
        ..CASE
    },
    Case {
        name: "a config map of comments",
        text: "# Address to listen on; without it, on all\n#bind_address\n\n# Port of the default listener\n\
               port PORT\n\n# Who may connect without a name?\nallow_anonymous true\n\n\
               # password_file /mosquitto/config/passwd\nset_tcp_nodelay true\nlog_type all\nlog_dest stdout\n\
               log_timestamp true\nlog_timestamp_format %Y-%m-%dT%H:%M:%S\n",
        ignored: 1,
        ..CASE
    },
    Case {
        name: "a role's template, with a file for each matter",
        text: "pid_file DIR/mosquitto.pid\npersistence true\npersistence_location DIR/data/\n\
               persistence_file mosquitto.db\npersistent_client_expiration 1d\nautosave_interval 1000\n\
               log_dest file DIR/mosquitto.log\nconnection_messages true\ninclude_dir DIR/conf.d\n",
        included: &[
            ("10-listener.conf", "listener PORT 127.0.0.1\nmax_connections 500\n"),
            (
                "20-users.conf",
                "allow_anonymous false\npassword_file DIR/passwords\nacl_file DIR/acl\n",
            ),
            (
                "30-limits.conf",
                "max_packet_size 1000000\nmemory_limit 100000000\nmax_keepalive 600\n",
            ),
        ],
        ignored: 1,
        says: &[
            "limits.session_expiry_max_s = 86400",
            "limits.keep_alive_max_s = 600",
            "limits.memory_bytes_max = 100000000",
        ],
        user: Some("alice"),
    },
    Case {
        name: "a small plant: names of certificates, with rules for each",
        text: "per_listener_settings true\nlistener PORT 127.0.0.1\nallow_anonymous false\n\
               password_file DIR/passwords\nlistener OTHER\nallow_anonymous false\nacl_file DIR/acl\n\
               cafile DIR/ca.pem\ncertfile DIR/server.pem\nkeyfile DIR/server-key.pem\ntls_keyform pem\n\
               tls_version tlsv1.3\n\
               ciphers_tls1.3 TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256\n\
               disable_client_cert_date_checks false\nrequire_certificate true\nuse_identity_as_username true\n",
        says: &["tls.versions = [\"1.3\"]", "tls.identity = \"cn\""],
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "release 2.1 with what is new there",
        text: "listener PORT 127.0.0.1\nlistener_allow_anonymous true\nlistener_auto_id_prefix door-\n\
               accept_protocol_versions 4,5\nmax_topic_alias 20\nmax_topic_alias_broker 30\n\
               websockets_origin https://example.org\npacket_buffer_size 4096\nlistener OTHER 127.0.0.1\n\
               enable_proxy_protocol 2\nproxy_protocol_v2_require_tls false\nlistener_allow_anonymous false\n\
               global_max_clients 5000\nglobal_max_connections 1000\nenable_control_api false\n\
               plugin_load passwords /usr/lib/mosquitto_password_file.so\nplugin_opt_password_file DIR/passwords\n\
               plugin_use passwords\n",
        ignored: 1,
        says: &[
            "versions = [\"3.1.1\", \"5.0\"]",
            "limits.sessions_max = 5000",
            "limits.connections_max = 1000",
        ],
        ..CASE
    },
    Case {
        name: "release 2.1 with its new store, whose database is yet to come",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location DIR/data/\n\
               global_plugin /usr/lib/mosquitto_persist_sqlite.so\nplugin_opt_db_file DIR/data/mosquitto.sqlite3\n\
               plugin_opt_sync normal\n",
        ignored: 1,
        says: &["storage.import_mosquitto = "],
        ..CASE
    },
    Case {
        name: "an edge device whose agent writes two files",
        text: "pid_file DIR/mosquitto.pid\ninclude_dir DIR/conf.d\n",
        included: &[
            (
                "agent-mosquitto.conf",
                "per_listener_settings true\nconnection_messages true\nlog_type error\nlog_type warning\n\
               log_type notice\nlog_type information\nlog_type subscribe\nlog_type unsubscribe\n\
               message_size_limit 268435455\nlistener PORT 127.0.0.1\nallow_anonymous true\n\
               require_certificate false\n",
            ),
            (
                "cloud-bridge.conf",
                "connection edge_to_c8y\naddress 127.0.0.9:9\nbridge_capath DIR/authorities\n\
               bridge_certfile DIR/server.pem\nbridge_keyfile DIR/server-key.pem\nremote_clientid device-2\n\
               local_clientid Cumulocity\ntry_private false\nstart_type automatic\ncleansession true\n\
               notifications true\nnotifications_local_only true\n\
               notification_topic te/device/main/service/bridge/health\nbridge_attempt_unsubscribe false\n\
               topic s/dat in 0 c8y/ \"\"\ntopic s/us/# out 0 c8y/ \"\"\n\
               topic alarm/alarms/create out 0 c8y/ \"\"\n",
            ),
        ],
        ignored: 4,
        ..CASE
    },
    Case {
        name: "a test broker without limits",
        text: "listener PORT 127.0.0.1\nlistener OTHER 127.0.0.1\nprotocol websockets\nallow_anonymous true\n\
               max_inflight_messages 0\nmax_queued_messages 0\nmax_queued_bytes 0\nretain_available true\n\
               sys_interval 1\nretry_interval 20\nmaximum_qos 2\n",
        ignored: 1,
        says: &["limits.queue_messages_max = 100000000", "mqtt.sys_interval_s = 1"],
        ..CASE
    },
    Case {
        name: "clients that go by the names that a file prescribes",
        text: "port PORT\nbind_address 127.0.0.1\nallow_anonymous false\npassword_file DIR/passwords\n\
               auto_id_prefix net-\nallow_zero_length_clientid true\nuse_username_as_clientid true\n\
               auth_plugin_deny_special_chars true\ncheck_retain_source true\nmax_keepalive 0\n",
        ignored: 1,
        says: &["mqtt.assigned_identifier_prefix = \"net-\""],
        user: Some("alice"),
        ..CASE
    },
    Case {
        name: "a broker of old: rules for each listener by a plugin's name",
        text: "per_listener_settings false\nlistener PORT 127.0.0.1\nplugin /usr/lib/mosquitto_acl_file.so\n\
               plugin_opt_acl_file DIR/acl\nallow_anonymous true\npersistence false\nlog_dest stderr\n",
        says: &["access.acl_file ="],
        ..CASE
    },
    Case {
        name: "a laboratory: every kind of line in the log, its times in seconds",
        text: "listener PORT 127.0.0.1\nallow_anonymous true\nlog_dest topic\nlog_dest stdout\nlog_type debug\n\
               log_type websockets\nlog_type none\nlog_timestamp true\nconnection_messages true\nsys_interval 0\n",
        says: &["mqtt.sys_interval_s = 0"],
        ignored: 1,
        ..CASE
    },
];

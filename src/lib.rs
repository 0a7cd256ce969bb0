//! An MQTT broker as a library.

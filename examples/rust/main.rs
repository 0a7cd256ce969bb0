//! Subscribes, publishes a temperature, and prints what arrives: `cargo run -p temperature [HOST [PORT]]`.

use std::error::Error;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let host = arguments.next().unwrap_or_else(|| "127.0.0.1".into());
    let port = arguments.next().map_or(Ok(1883), |port| port.parse())?;

    let (client, mut connection) = Client::new(MqttOptions::new("thermometer", host, port), 10);
    client.subscribe("house/+/temperature", QoS::AtLeastOnce)?;
    for event in connection.iter() {
        match event? {
            Event::Incoming(Packet::SubAck(_)) => {
                client.publish("house/kitchen/temperature", QoS::AtLeastOnce, false, "21.5")?;
            }
            Event::Incoming(Packet::Publish(message)) => {
                let topic = String::from_utf8_lossy(&message.topic);
                println!("{topic} {}", String::from_utf8_lossy(&message.payload));
                client.disconnect()?;
                break;
            }
            _ => {}
        }
    }
    Ok(())
}

"""Subscribes, publishes a temperature, and prints what arrives: python temperature.py [HOST [PORT]].

pip install paho-mqtt
"""

import sys

import paho.mqtt.client as mqtt

host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
port = int(sys.argv[2]) if len(sys.argv) > 2 else 1883


def on_connect(client, userdata, flags, reason_code, properties):
    if reason_code.is_failure:
        sys.exit(f"the broker refused the connection: {reason_code}")
    client.subscribe("house/+/temperature", qos=1)


def on_subscribe(client, userdata, mid, reason_codes, properties):
    client.publish("house/kitchen/temperature", "21.5", qos=1)


def on_message(client, userdata, message):
    print(message.topic, message.payload.decode())
    client.disconnect()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
client.connect(host, port)
client.loop_forever()

#!/usr/bin/env python3
"""Publishes a hundred messages to a thousand clients of an independent implementation (paho-mqtt 2), and
checks that every message is delivered once and in order. Works with any broker on this machine.

Exit code: 0 every message was delivered once and in order; 1 some were not; 2 invalid command line.
"""

import argparse
import ipaddress
import selectors
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}
TOPIC = "fanout/test"


class Subscriber:
    """A client and its received messages."""

    def __init__(self, number, args):
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"fanout-{number}", protocol=VERSIONS[args.mqtt]
        )
        self.qos = args.qos
        self.is_subscribed = False
        self.received = []
        self.failure = None
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = self.on_subscribe
        self.client.on_message = lambda _client, _data, message: self.received.append(
            int(message.payload)
        )
        self.client.on_disconnect = self.on_disconnect

    def on_connect(self, client, _data, _flags, reason, _properties):
        if reason.is_failure:
            self.failure = f"CONNACK: {reason}"
        else:
            client.subscribe(TOPIC, self.qos)

    def on_subscribe(self, _client, _data, _mid, reasons, _properties):
        self.is_subscribed = reasons[0].value == self.qos
        if not self.is_subscribed:
            self.failure = f"SUBACK: {reasons[0]}"

    def on_disconnect(self, _client, _data, _flags, reason, _properties):
        self.failure = f"disconnected: {reason}"


class Loop:
    """Drives many clients on one thread."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.clients = []

    def add(self, client):
        self.selector.register(client.socket(), selectors.EVENT_READ, client)
        self.clients.append(client)

    def run(self, enough, timeout_s):
        """Runs until `enough` returns true; returns false after the timeout."""
        end = time.monotonic() + timeout_s
        while not enough():
            if time.monotonic() > end:
                return False
            for client in self.clients:
                if client.want_write():
                    client.loop_write()
            for key, _ in self.selector.select(0.05):
                code = key.data.loop_read(64)
                if code != mqtt.MQTT_ERR_SUCCESS:
                    self.selector.unregister(key.fileobj)
                    self.clients.remove(key.data)
        return True


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="within 127.0.0.0/8")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--qos", type=int, default=1, choices=(0, 1, 2))
    parser.add_argument("--mqtt", default="3.1.1", choices=VERSIONS)
    parser.add_argument("--one-by-one", action="store_true", help="connect each client after the previous one has subscribed")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="timeout of each step")
    args = parser.parse_args()
    if not ipaddress.ip_address(args.host).is_loopback:
        parser.error(f"{args.host} is outside 127.0.0.0/8; only this machine can be loaded")
    if not 1 <= args.subscribers <= 10_000 or not 1 <= args.messages <= 100_000:
        parser.error("1 to 10000 subscribers and 1 to 100000 messages are allowed")
    return args


def connect(args, loop):
    """Connects all subscribers, and waits until they have subscribed."""
    subscribers = [Subscriber(number, args) for number in range(args.subscribers)]
    for subscriber in subscribers:
        subscriber.client.connect(args.host, args.port, keepalive=600)
        loop.add(subscriber.client)
        if args.one_by_one:
            loop.run(lambda: subscriber.is_subscribed or subscriber.failure, args.timeout_s)
    ready = lambda: all(it.is_subscribed or it.failure for it in subscribers)
    if not loop.run(ready, args.timeout_s):
        missing = sum(not it.is_subscribed for it in subscribers)
        sys.exit(f"FAILED: {missing} of {args.subscribers} were not subscribed in time")
    return subscribers


def publish(args, loop):
    publisher = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id="fanout-publisher", protocol=VERSIONS[args.mqtt]
    )
    publisher.max_inflight_messages_set(args.messages)
    publisher.connect(args.host, args.port, keepalive=600)
    loop.add(publisher)
    if not loop.run(publisher.is_connected, args.timeout_s):
        sys.exit("FAILED: the publisher was not connected in time")
    for number in range(args.messages):
        publisher.publish(TOPIC, str(number), args.qos)
    return publisher


def verdict(args, subscribers):
    """Descriptions of all errors."""
    wrong = []
    expected = list(range(args.messages))
    lost = sum(len(set(expected) - set(it.received)) for it in subscribers)
    twice = sum(len(it.received) - len(set(it.received)) for it in subscribers)
    in_order = lambda received: all(a < b for a, b in zip(received, received[1:]))
    disordered = sum(not in_order(list(dict.fromkeys(it.received))) for it in subscribers)
    failures = [it.failure for it in subscribers if it.failure]
    if lost:
        wrong.append(f"{lost} lost")
    if twice:
        wrong.append(f"{twice} twice")
    if disordered:
        wrong.append(f"{disordered} subscribers out of order")
    if failures:
        wrong.append(f"{len(failures)} subscribers failed, the first with {failures[0]}")
    return wrong


def main():
    args = arguments()
    loop = Loop()
    begun = time.monotonic()
    subscribers = connect(args, loop)
    connected = time.monotonic()
    publisher = publish(args, loop)
    wanted = args.subscribers * args.messages
    came = lambda: sum(len(it.received) for it in subscribers)
    loop.run(lambda: came() >= wanted, args.timeout_s)
    delivered = time.monotonic()
    # Duplicates arrive late.
    loop.run(lambda: False, 0.5)
    wrong = verdict(args, subscribers)
    for subscriber in subscribers:
        subscriber.client.on_disconnect = None
        subscriber.client.disconnect()
    publisher.disconnect()
    print(
        f"{came()} of {wanted} deliveries to {args.subscribers} subscribers at QoS {args.qos}, "
        f"MQTT {args.mqtt}: connected in {connected - begun:.1f} s, "
        f"delivered in {delivered - connected:.1f} s: {', '.join(wrong) or 'each once and in order'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"FAILED: no connection to the broker: {error}")

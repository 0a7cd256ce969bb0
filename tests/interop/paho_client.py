"""The paho-mqtt 2 client of tests/interop: python paho_client.py SCENARIO URL. Exits non-zero on failure.

RINGMQ_CA names the file with the certificate of the trusted authority."""

import os
import queue
import signal
import subprocess
import sys
import time
import traceback
import urllib.parse

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE_S = 20


class Client:
    """A connected client with queues of received messages and responses."""

    def __init__(self, url, name, version=mqtt.MQTTv5, expiry_s=None, clean=True, will=None, user=None, refused=False):
        self.messages = queue.Queue()
        self.subscribed = queue.Queue()
        self.connected = queue.Queue()
        self.disconnected = queue.Queue()
        options = {} if version == mqtt.MQTTv5 else {"clean_session": clean}
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version,
            reconnect_on_failure=False, transport="websockets" if url.startswith("ws") else "tcp", **options,
        )
        self.paho.on_message = lambda client, data, message: self.messages.put(message)
        self.paho.on_subscribe = lambda client, data, mid, codes, properties: self.subscribed.put(codes)
        self.paho.on_connect = lambda client, data, flags, code, properties: self.connected.put((flags, code))
        self.paho.on_disconnect = lambda client, data, flags, code, properties: self.disconnected.put(code)
        if will:
            self.paho.will_set(*will)
        self.paho.max_inflight_messages_set(200)
        arguments = {}
        if version == mqtt.MQTTv5:
            arguments["clean_start"] = clean
            if expiry_s is not None:
                arguments["properties"] = Properties(PacketTypes.CONNECT)
                arguments["properties"].SessionExpiryInterval = expiry_s
        where = urllib.parse.urlsplit(url)
        if where.scheme in ("mqtts", "wss"):
            self.paho.tls_set(ca_certs=os.environ["RINGMQ_CA"])
        if where.path:
            self.paho.ws_set_options(path=where.path)
        if user:
            self.paho.username_pw_set(*user)
        self.paho.connect(where.hostname, where.port, keepalive=30, **arguments)
        self.paho.loop_start()
        self.flags, self.code = self.connected.get(timeout=PATIENCE_S)
        assert self.code.is_failure == refused, self.code

    def subscribe(self, *arguments, **options):
        self.paho.subscribe(*arguments, **options)
        codes = self.subscribed.get(timeout=PATIENCE_S)
        assert all(code.value < 0x80 for code in codes), codes

    def publish(self, topic, payload, qos=0, **options):
        info = self.paho.publish(topic, payload, qos, **options)
        info.wait_for_publish(PATIENCE_S)
        assert info.is_published(), f"no acknowledgement of {payload[:40]!r}"

    def message(self):
        return self.messages.get(timeout=PATIENCE_S)

    def payloads(self, count):
        return [self.message().payload for _ in range(count)]

    def silence(self):
        time.sleep(0.2)
        assert self.messages.empty(), self.messages.get().payload

    def leave(self):
        self.paho.disconnect()
        self.paho.loop_stop()


def every_qos(url):
    for version in (mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5):
        for qos in range(3):
            subscriber, publisher = Client(url, "s", version), Client(url, "p", version)
            subscriber.subscribe("a/#", qos=qos)
            for published in range(3):
                publisher.publish("a/b", f"{qos} {published}", published)
                message = subscriber.message()
                assert message.payload == f"{qos} {published}".encode(), message.payload
                assert message.qos == min(qos, published), message.qos
            subscriber.leave()
            publisher.leave()


def many_in_order(url):
    for qos, count in ((1, 10_000), (2, 2_000)):
        subscriber, publisher = Client(url, "s"), Client(url, "p")
        subscriber.subscribe("many", qos=qos)
        infos = [publisher.paho.publish("many", str(number), qos) for number in range(count)]
        got = subscriber.payloads(count)
        assert got == [str(number).encode() for number in range(count)], "lost or out of order"
        for info in infos:
            info.wait_for_publish(PATIENCE_S)
        subscriber.silence()
        subscriber.leave()
        publisher.leave()


def properties(url):
    subscriber, publisher = Client(url, "s"), Client(url, "p")
    subscriber.subscribe("ask", options=SubscribeOptions(qos=1))
    sent = Properties(PacketTypes.PUBLISH)
    sent.ResponseTopic = "answer/here"
    sent.CorrelationData = b"\x00\x01"
    sent.ContentType = "text/plain"
    sent.PayloadFormatIndicator = 1
    sent.MessageExpiryInterval = 100
    sent.UserProperty = [("b", "1"), ("a", "2"), ("b", "3")]
    publisher.publish("ask", "?", 1, properties=sent)
    got = subscriber.message().properties
    assert got.ResponseTopic == "answer/here" and got.CorrelationData == b"\x00\x01"
    assert got.ContentType == "text/plain" and got.PayloadFormatIndicator == 1
    assert 98 <= got.MessageExpiryInterval <= 100, got.MessageExpiryInterval
    assert got.UserProperty == [("b", "1"), ("a", "2"), ("b", "3")], got.UserProperty


def retained(url):
    publisher = Client(url, "p")
    publisher.publish("state", "on", 1, retain=True)
    subscriber = Client(url, "s")
    subscriber.subscribe("state", qos=1)
    message = subscriber.message()
    assert message.retain and message.payload == b"on"
    publisher.publish("state", "off", 1, retain=True)
    assert not subscriber.message().retain
    publisher.publish("state", "", 1, retain=True)
    assert subscriber.message().payload == b""
    late = Client(url, "late")
    late.subscribe("state", qos=1)
    late.silence()


def victim(url):
    """Subscribes with a persistent session and a Will, and waits to be killed."""
    client = Client(url, "victim", expiry_s=3600, clean=False, will=("wills", "victim died", 1))
    client.subscribe("for/victim", qos=1)
    print("ready", flush=True)
    time.sleep(60)


def killed(url):
    watcher = Client(url, "w")
    watcher.subscribe("wills", qos=1)
    process = subprocess.Popen([sys.executable, __file__, "victim", url], stdout=subprocess.PIPE)
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert watcher.message().payload == b"victim died"
    for number in range(100):
        watcher.publish("for/victim", str(number), 1)
    back = Client(url, "victim", expiry_s=3600, clean=False)
    assert back.flags.session_present
    assert back.payloads(100) == [str(number).encode() for number in range(100)]
    back.silence()


def shared(url):
    members = [Client(url, f"m{number}") for number in range(3)]
    for member in members:
        member.subscribe("$share/team/work", qos=1)
    publisher = Client(url, "p")
    for number in range(300):
        publisher.publish("work", str(number), 1)
    time.sleep(0.3)
    counts = [member.messages.qsize() for member in members]
    assert sum(counts) == 300 and min(counts) >= 90, counts


def large(url):
    subscriber, publisher = Client(url, "s"), Client(url, "p")
    subscriber.subscribe("large", qos=2)
    # Over WebSocket, paho 2.1 loses a packet after a short write.
    payload = os.urandom(200_000 if url.startswith("ws") else 5_000_000)
    for qos in range(3):
        publisher.publish("large", payload, qos)
        assert subscriber.message().payload == payload


def takeover(url):
    first = Client(url, "twin")
    second = Client(url, "twin")
    code = first.disconnected.get(timeout=PATIENCE_S)
    assert code.value == 0x8E, code
    second.subscribe("a")
    second.publish("a", "mine")
    assert second.message().payload == b"mine"


def rules(url):
    """User alice may use only topics below alice/."""
    for version, no in ((mqtt.MQTTv311, 0x80), (mqtt.MQTTv5, 0x87)):
        alice = Client(url, "a", version, user=("alice", "alicealice"))
        alice.subscribe("alice/#", qos=1)
        alice.publish("alice/1", "hers", 1)
        assert alice.message().payload == b"hers"
        alice.paho.subscribe("bob/#")
        codes = alice.subscribed.get(timeout=PATIENCE_S)
        assert [code.value for code in codes] == [no], codes
        alice.paho.on_publish = lambda client, data, mid, code, properties: alice.connected.put(code)
        alice.paho.publish("bob/1", "not hers", 1)
        code = alice.connected.get(timeout=PATIENCE_S)
        assert code.value == (0x87 if version == mqtt.MQTTv5 else 0), code
        alice.leave()


def wrong_password(url):
    for version in (mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5):
        eve = Client(url, "e", version, user=("alice", "guess"), refused=True)
        assert eve.code.value == 0x86, eve.code  # paho maps the return codes of 3.x to Reason Codes


if __name__ == "__main__":
    try:
        globals()[sys.argv[1]](sys.argv[2])
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # without waiting for its threads
    os._exit(0)

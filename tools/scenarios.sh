#!/usr/bin/env bash
# Starts the broker and runs every scenario, with all deliveries verified: the fan-out test with a
# third-party client, every scenario of ringmq-bench, and the published benchmarks, scaled. Prints PASS or
# FAIL for each; the exit code is 1 if any failed.
#
#   tools/scenarios.sh           half a second each, for a loaded machine
#   tools/scenarios.sh floors    the required throughput and latency on two cores shared with the
#                                generator; only meaningful on an idle machine
#   tools/scenarios.sh long      ten seconds each, and published benchmarks at a tenth of their size
#
# `tools/tls-storm` tests reconnection storms over TLS. RINGMQ_FLAGS adds flags to the broker's command
# line: RINGMQ_FLAGS='--cores 2' tools/scenarios.sh. ADDRESS=127.0.0.1:1883 uses a running broker, of any
# kind.
set -uo pipefail
cd "$(dirname "$0")/.."

case ${1:-short} in
    short) seconds=0.5 scale=0.01 ;;
    long) seconds=10 scale=0.1 ;;
    floors) seconds=5 scale=0.01 ;;
    *) echo "usage: tools/scenarios.sh [short|long|floors]" >&2; exit 2 ;;
esac

work=target/scenarios
mkdir -p "$work"
failed=0

# check NAME COMMAND...: runs the command and prints PASS with a summary, or FAIL with the whole output.
check() {
    local name=$1 log=$work/check.log begin=$SECONDS code
    shift
    timeout 300 "$@" >"$log" 2>&1
    code=$?
    if [[ $code -eq 0 ]]; then
        printf 'PASS  %-40s %s\n' "$name" "$(summary "$log")"
    else
        printf 'FAIL  %-40s exit code %d after %d s: %s\n' "$name" $code $((SECONDS - begin)) "$*"
        sed 's/^/      /' "$log"
        failed=1
    fi
}

# Rate and latency, or the last line.
summary() {
    local rate late
    rate=$(grep -oE '[0-9]+ a second' "$1" | tail -n 1)
    late=$(grep -oE 'p99 [0-9]+' "$1" | tail -n 1)
    if [[ -n $late ]]; then echo "$rate, $late µs"; else tail -n 1 "$1"; fi
}

# run_at ADDRESS NAME SCENARIO FLAG...
run_at() {
    check "$2" target/release/ringmq-bench run "${@:3}" --address "$1" \
        --warm-up-s 0.2 --duration-s "$seconds"
}

run() { run_at "$address" "$@"; }

suite() {
    check "suite $1" target/release/ringmq-bench suite "$1" --scale "$scale" --address "$address" \
        --warm-up-s 0.2 --duration-s "$seconds"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_broker() {
    local port
    port=$(free_port)
    address=127.0.0.1:$port tls_address=127.0.0.1:$(free_port) ws_address=127.0.0.1:$(free_port)
    target/release/ringmq-bench certificate "$work" || exit 1
    cat >"$work/broker.toml" <<EOF
listen = ["$address"]
[[listeners]]
bind = "$tls_address"
transport = "tls"
[listeners.tls]
certificate = "$work/server.pem"
key = "$work/server-key.pem"
[[listeners]]
bind = "$ws_address"
transport = "ws"
anonymous = true
EOF
    rm -rf "$work/data"
    # shellcheck disable=SC2086 # several flags
    target/release/broker --config "$work/broker.toml" --data "$work/data" ${RINGMQ_FLAGS:-} \
        >"$work/broker.log" 2>&1 &
    broker=$!
    trap 'kill "$broker" 2>/dev/null; wait "$broker" 2>/dev/null' EXIT
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
        sleep 0.1
    done
    echo "the broker does not listen on $address:"
    tail "$work/broker.log"
    exit 1
}

tests/interop/setup || exit 1 # paho-mqtt
cargo build --quiet --release -p ringmq --bin broker -p tools --bin ringmq-bench || exit 1
address=${ADDRESS:-}
[[ -n $address ]] || start_broker

fan_out() {
    check "$1" target/interop/venv/bin/python tools/fanout_test.py \
        --host "${address%:*}" --port "${address#*:}" "${@:2}"
}

finish() {
    if [[ $failed -eq 0 ]]; then echo "all passed in $SECONDS s"; else echo "SOME FAILED, $SECONDS s"; fi
    exit $failed
}

if [[ ${1:-} == floors ]]; then
    for qos in 0 1; do
        for rate in 820 1200; do
            run "fan-out 1 -> 500, QoS $qos, $((rate * 500)) deliveries/s" fan-out --qos $qos \
                --rate $rate --fail-on-loss --rate-min 400000 --p99-ms-max 15
        done
    done
    run "fan-out, QoS 2, each exactly once" fan-out --qos 2
    run "point-to-point, QoS 2, each exactly once" point-to-point --qos 2
    finish
fi

fan_out "paho fan-out, 1,000 x 100" --subscribers 1000 --messages 100
fan_out "paho fan-out, QoS 2, MQTT 5" --subscribers 100 --messages 100 --qos 2 --mqtt 5
for qos in 0 1 2; do
    for mqtt in 3.1.1 5.0; do
        for scenario in fan-out point-to-point fan-in shared pub retained reconnect-storm; do
            run "$scenario, QoS $qos, MQTT $mqtt" "$scenario" --qos "$qos" --mqtt "$mqtt"
        done
    done
done
run "sub" sub
run "conn" conn
run "connections" connections --subscribers 5000
run "fan-out by 5 topics, payloads of 4 KiB" fan-out --publishers 5 --topics 5 --payload-bytes 4096
run "fan-out, open loop, no loss" fan-out --rate 200 --fail-on-loss
run "fan-out, open loop, 2 processes" fan-out --rate 200 --fail-on-loss --processes 2
run "point-to-point, QoS 2, 2 processes" point-to-point --qos 2 --processes 2 --source-addresses 8
run "conn, open loop" conn --rate 500
run "sub, open loop" sub --rate 500
if [[ -n ${tls_address:-} ]]; then # started by this script
    run_at "$tls_address" "fan-out over TLS, QoS 1" fan-out --qos 1 --tls --ca "$work/ca.pem"
    run_at "$tls_address" "reconnect-storm over TLS" reconnect-storm --tls --ca "$work/ca.pem"
    run_at "$ws_address" "fan-out over WebSocket, QoS 1" fan-out --qos 1 --ws
fi
run "retained, open loop" retained --rate 50
for benchmark in conn-tcp-1M-5K fanout-5-1000-5-250K p2p-50K-50K-50K-50K sharesub-50K-500-50K-50K; do
    suite "$benchmark"
done
finish

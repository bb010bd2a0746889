#!/bin/sh
# Receives orders over MQTT in a session that the broker keeps. `join` makes the session and leaves.
set -eu
host=${MQTT_HOST:-localhost}
port=${MQTT_PORT:-1883}
case ${1:-} in
    # -c keeps the session, -E leaves once the subscription is acknowledged.
    join) exec mosquitto_sub -h "$host" -p "$port" -i billing -c -q 1 -t 'orders/#' -E ;;
    *) exec mosquitto_sub -h "$host" -p "$port" -i billing -c -q 1 -t 'orders/#' "$@" ;;
esac

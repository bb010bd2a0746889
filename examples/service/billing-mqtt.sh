#!/bin/sh
# Receives orders over MQTT in a session that the broker keeps. `join` makes the session, which begins with the oldest order
# that is kept, and leaves.
set -eu
host=${MQTT_HOST:-localhost}
port=${MQTT_PORT:-1883}
case ${1:-} in
    # -c keeps the session, -E leaves once the subscription is acknowledged.
    join) exec mosquitto_sub -h "$host" -p "$port" -i billing -c -q 1 -t '$replay/earliest/orders/#' -E ;;
    # The session has its subscription, and to subscribe again would be to begin again. mosquitto_sub wants one all the same.
    *) exec mosquitto_sub -h "$host" -p "$port" -i billing -c -q 1 -t billing/none "$@" ;;
esac

#!/bin/sh
# Sensors that somebody made up: publishes a temperature of each room every second, or as many rounds as are asked for.
set -eu
broker=${BROKER:-http://localhost:8080}
rounds=${1:-0}
round=0
while :; do
    round=$((round + 1))
    for room in kitchen bath hall; do
        celsius=$(awk -v seed="$round$$" -v room="$room" 'BEGIN { srand(seed + length(room)); printf "%.1f", 18 + 6 * rand() }')
        curl --silent --show-error --fail-with-body --output /dev/null -d "$celsius" \
            "$broker/v1/topics/sensors/$room/temperature?retain=true"
    done
    if [ "$round" = "$rounds" ]; then break; fi
    sleep 1
done

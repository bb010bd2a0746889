#!/bin/sh
# A tour with curl alone. BROKER is where the broker is.
set -eu
broker=${BROKER:-http://localhost:8080}

say() { printf '\n# %s\n' "$*"; }
ask() { curl --silent --show-error --fail-with-body "$@"; }

say "Where is the log now? What we have a cursor for, we can catch up with."
answer=$(ask "$broker/v1/messages?topic=demo/%23&wait=0s")
cursor=$(printf '%s' "$answer" | sed 's/.*"cursor":"\([^"]*\)".*/\1/')
echo "$cursor"

say "Publish: the body is the payload."
ask -d hello "$broker/v1/topics/demo/greeting"

say "Publish so that a repetition is harmless: the second request publishes nothing."
key=$(date +%s)-$$
for _ in first second; do
    ask -H "Idempotency-Key: \"order-$key\"" -d "one coffee" "$broker/v1/topics/demo/orders?qos=1"
    echo
done

say "Publish several at once, one of them with bytes that are no text."
ask -H 'Content-Type: application/json' "$broker/v1/publish" -d '[
    {"topic": "demo/a", "payload": "text", "qos": 1},
    {"topic": "demo/b", "payload_base64": "/wD/", "qos": 1}
]'

say "What came since the cursor? With wait=30s the request would wait for the first message."
ask "$broker/v1/messages?topic=demo/%23&since=$cursor"

say "The same as a stream; it would go on for ever, so it is cut after two seconds."
curl --silent --no-buffer --max-time 2 "$broker/v1/events?topic=demo/%23&since=$cursor" || test $? = 28

say "A Retained Message: set, read, cleared."
ask -d on "$broker/v1/topics/demo/state?retain=true"
echo
ask "$broker/v1/topics/demo/state"
echo
ask -X DELETE "$broker/v1/topics/demo/state"

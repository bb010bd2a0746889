#!/usr/bin/env bash
# Registers a webhook: register.sh URL FILTER. Prints its secret, which is shown this once.
set -euo pipefail
broker=${BROKER:-http://localhost:8080}
curl -fsS "$broker/v1/webhooks" -H 'content-type: application/json' \
    -d "{\"url\": \"$1\", \"topics\": [\"$2\"]}" | sed -E 's/.*"secret": ?"([^"]+)".*/\1/'

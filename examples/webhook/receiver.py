#!/usr/bin/env python3
"""Receives webhooks, and believes only what is signed.

    pip install standardwebhooks
    WEBHOOK_SECRET=whsec_... ./receiver.py [port]
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000

# At least once: what was answered and not heard comes again, with the same id. A service that has a database keeps
# these there, in the transaction that does the work.
seen = set()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection: the next message needs no new one

    def handle(self):
        try:
            super().handle()
        except ConnectionError:
            pass  # the broker is gone, and will be back

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            event = webhook.verify(body, dict(self.headers))
        except WebhookVerificationError as error:
            print(f"refused: {error}", file=sys.stderr, flush=True)
            return self.answer(401)
        if self.headers["webhook-id"] not in seen:
            seen.add(self.headers["webhook-id"])
            print(event["subject"], json.dumps(event["data"]), flush=True)
        # Only now: who answers first and works later loses what it was working on.
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
print(f"listening on port {server.server_port}", flush=True)
server.serve_forever()

"""Publishes events to browsers, through Caddy."""

import http.client
import json
import logging
import os
import time
import urllib.parse
import urllib.request
import uuid

URL = os.environ.get("PUBLISH_URL", "http://localhost:2019/broadcast/publish")
TOKEN = os.environ.get("PUBLISH_TOKEN")
log = logging.getLogger(__name__)


def publish(channel, event, data):
    """Returns whether the event was published. A failure is logged, not raised."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
    if TOKEN:
        headers["Authorization"] = f"Bearer {TOKEN}"
    query = urllib.parse.urlencode({"channel": channel, "event": event})
    request = urllib.request.Request(f"{URL}?{query}", json.dumps(data, default=str).encode(), headers)
    for last_try in False, True:
        try:
            urllib.request.urlopen(request, timeout=2).close()
            return True
        except (OSError, http.client.HTTPException) as error:
            if last_try or getattr(error, "code", 500) < 500:
                reason = error.read().decode() if hasattr(error, "read") else ""
                log.error("%s was not published on %s: %s %s", event, channel, error, reason)
                return False
        time.sleep(0.5)

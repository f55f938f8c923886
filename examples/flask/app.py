"""A Flask app that notifies every browser of a change, with one HTTP call to Caddy."""

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

from flask import Flask, render_template_string

app = Flask(__name__)
votes = {"tea": 0, "coffee": 0}
CADDY = os.environ.get("CADDY_ADMIN", "http://localhost:2019")


def emit(event, data, tries=5):
    """Replaces Flask-SocketIO's emit(event, data, broadcast=True).

    Every attempt has the same key, so that the message is published once. If all of them fail, the failure is logged
    instead of raised, because the request being handled does not depend on it.
    """
    publish = urllib.request.Request(
        f"{CADDY}/broadcast/publish?{urllib.parse.urlencode({'event': event})}",
        json.dumps(data).encode(),
        {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())},
    )
    for i in range(tries):
        try:
            urllib.request.urlopen(publish, timeout=2).close()
            return
        except urllib.error.HTTPError as error:
            failure = error
            if error.code not in (502, 503, 504):
                break
        except (OSError, http.client.HTTPException) as error:
            failure = error
        time.sleep(0.1 * 2**i)
    app.logger.error("%s was not published: %s", event, failure)


@app.post("/vote/<what>")
def vote(what):
    if what not in votes:
        return "no such option", 404
    votes[what] += 1
    emit("update", votes)
    return "", 204


@app.get("/")
def index():
    return render_template_string(PAGE, votes=votes)


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tea or coffee?</title>
<link rel="icon" href="data:,">
<style>
    :root { color-scheme: light dark }
    body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: auto; padding: 1rem }
    h1 { font-size: 1.1rem }
    button { font: inherit; padding: 1rem 2rem; margin-right: .5rem; border: 1px solid light-dark(#ddd, #333); border-radius: .5rem }
    output { display: block; font-size: 2rem; font-variant-numeric: tabular-nums }
</style>
<h1>Tea or coffee?</h1>
{% for what, n in votes.items() %}<button value="{{ what }}">{{ what }} <output>{{ n }}</output></button>{% endfor %}
<script type="module">
import { connect } from "/ws?client"
const hub = connect("/ws")
hub.on("update", votes => {
    for (const b of document.querySelectorAll("button")) b.querySelector("output").value = votes[b.value]
})
hub.ongap = () => location.reload()
for (const b of document.querySelectorAll("button")) b.onclick = () => fetch("/vote/" + b.value, { method: "POST" })
</script>
"""

if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")))

"""A Flask app that notifies every browser of a change, with one HTTP request to Caddy."""

import os

from flask import Flask, render_template_string

from broadcast import publish

app = Flask(__name__)
votes = {"tea": 0, "coffee": 0}


@app.post("/vote/<what>")
def vote(what):
    if what not in votes:
        return "no such option", 404
    votes[what] += 1
    publish("votes", "update", votes)
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

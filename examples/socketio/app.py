"""A Flask-SocketIO app as in its tutorial. The clients are Caddy's, and the app only emits."""

import os

from flask import Flask, render_template_string, request
from flask_socketio import SocketIO

app = Flask(__name__)
socketio = SocketIO(app, async_mode="threading", message_queue=os.environ.get("QUEUE", "redis://localhost:6380"))


def background_thread():
    """Sends events that nobody asked for, to all clients and to those in a room."""
    count = 0
    while True:
        count += 1
        socketio.emit("update", {"count": count})
        if count % 5 == 0:
            socketio.emit("update", {"count": count, "room": "five"}, room="five")
        socketio.sleep(float(os.environ.get("PAUSE", "1")))


@app.get("/")
def index():
    return render_template_string(PAGE, async_mode=socketio.async_mode)


@app.post("/say/<room>")
def say(room):
    """Emits from a request, as a view or a task of Celery does."""
    socketio.emit("my_response", {"data": request.form["data"]}, room=room)
    return "", 204


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Flask-SocketIO</title>
<link rel="icon" href="data:,">
<style>
    :root { color-scheme: light dark }
    body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: auto; padding: 1rem }
    h1 { font-size: 1.1rem }
    form { display: inline-flex; gap: .5rem; margin: 0 1rem .5rem 0 }
    input, button { font: inherit; padding: .2rem .5rem }
    #log { font-family: ui-monospace, monospace; height: 22rem; overflow: auto; border: 1px solid light-dark(#ddd, #333); padding: .5rem }
</style>
<h1>Async mode is <b>{{ async_mode }}</b>, the transport is <b id="transport">none</b></h1>
<form id="broadcast"><input name="data" placeholder="message"><button>To all</button></form>
<form id="join"><input name="room" value="five"><button>Join the room</button></form>
<form id="leave"><input name="room" value="five"><button>Leave the room</button></form>
<div id="log"></div>
<script src="/socket.io/socket.io.js"></script>
<script>
var socket = io();

socket.on('connect', function() {
    var engine = socket.io.engine, transport = document.getElementById('transport');
    transport.textContent = engine.transport.name;
    engine.on('upgrade', function(to) { transport.textContent = to.name; });
});
socket.on('disconnect', function(reason) {
    document.getElementById('transport').textContent = 'none: ' + reason;
});
socket.on('my_response', function(msg) { log('response', msg.data); });
socket.on('update', function(msg) { log('update', msg.count + (msg.room ? ' in the room ' + msg.room : '')); });
socket.on('chat', function(msg) { log('chat', msg.data); });

// A form emits an event, with its fields as the argument.
function emits(form, event) {
    document.getElementById(form).addEventListener('submit', function(e) {
        e.preventDefault();
        socket.emit(event, Object.fromEntries(new FormData(e.target)));
    });
}
emits('broadcast', 'chat');
emits('join', 'join');
emits('leave', 'leave');

function log(what, text) {
    var line = document.createElement('div');
    line.textContent = what + ': ' + text;
    document.getElementById('log').prepend(line);
}
</script>
"""

if __name__ == "__main__":
    socketio.start_background_task(background_thread)
    socketio.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "5000")), allow_unsafe_werkzeug=True)

"""An old server: a Flask-SocketIO app with a handler, which its own clients call."""

import os

from flask import Flask, request
from flask_socketio import SocketIO, emit

app = Flask(__name__)
socketio = SocketIO(app, async_mode="threading", message_queue=os.environ["QUEUE"])


@socketio.on("order")
def order(data):
    emit("ordered", data, to=request.sid)
    emit("orders", data, broadcast=True)
    return "thanks"


socketio.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), allow_unsafe_werkzeug=True)

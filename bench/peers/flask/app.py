from gevent import monkey

monkey.patch_all()

import sys

from flask import Flask, request
from flask_socketio import SocketIO, emit, join_room
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler

app = Flask(__name__)
io = SocketIO(app, async_mode="gevent", ping_interval=300)


@io.on("connect")
def connect():
    join_room(request.args["room"])


@io.on("say")
def say(m):
    emit("update", m, to=request.args["room"])


@app.post("/publish")
def publish():
    io.emit("update", request.get_data(as_text=True), to=request.args["room"])
    return "ok"


WSGIServer(("127.0.0.1", int(sys.argv[1])), app, backlog=4096, log=None, handler_class=WebSocketHandler).serve_forever()

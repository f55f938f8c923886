"""Evaluates each line of its input with what publishes through the queue, and prints the value, or the error.

    driver.py URL NAME=SID... <expressions
"""

import asyncio, builtins, datetime, json, sys

import flask, flask_socketio, kombu, redis, socketio as python_socketio

url = sys.argv[1]
names = dict(a.split("=", 1) for a in sys.argv[2:])
app = flask.Flask("app")


async def async_emit(event, data):  # its connection belongs to one event loop
    await python_socketio.AsyncRedisManager(url, write_only=True).emit(event, data)


names.update(
    asyncio=asyncio, async_emit=async_emit,
    app=app,
    manager=python_socketio.RedisManager(url, write_only=True),
    writer=flask_socketio.SocketIO(message_queue=url),  # as in a task of Celery
    socketio=flask_socketio.SocketIO(app, async_mode="threading", message_queue=url),
    kombu=python_socketio.KombuManager(url, write_only=True),
    redis=redis.Redis.from_url(url),
    datetime=datetime, flask=flask, flask_socketio=flask_socketio, request=flask.request, json=json,
)
for line in sys.stdin:
    try:
        value = builtins.eval(line, names)
    except Exception as e:
        value = f"{type(e).__name__}: {e}"
    print(json.dumps(value, default=str), flush=True)

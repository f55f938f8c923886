"""Records what python-socketio, Flask-SocketIO and kombu publish, as JSON lines on the standard output.

    PYTHONPATH=... /usr/bin/python3 record.py >python.jsonl

Made with Debian 12's python3-socketio 5.7.2, python3-flask-socketio 5.3.2, python3-kombu 5.2.4, python3-redis 4.3.4 and
Python 3.11, through Debian's redis-server 7.0.15. "raw" lines are messages that these versions cannot publish, pickled by
Python itself: the methods since 5.10, and the other protocols.
"""
import base64, collections, datetime, decimal, enum, json, os, pickle, socket, subprocess, time, uuid
import kombu, redis, socketio, flask, flask_socketio

with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
server = subprocess.Popen(["/usr/bin/redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
url = f"redis://127.0.0.1:{port}/0"
client = redis.Redis(port=port)
while True:
    try:
        client.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.01)
subscriber = client.pubsub()
subscriber.psubscribe("*")
while not subscriber.get_message(timeout=5):
    pass


def record(name, publish):
    publish()
    m = None
    while m is None:
        m = subscriber.get_message(timeout=5)
    line(name, m["channel"].decode(), m["data"])


def line(name, channel, payload):
    print(json.dumps({"name": name, "channel": channel, "payload": base64.b64encode(payload).decode()}))


try:
    m = socketio.RedisManager(url, write_only=True)
    emits = {
        "dict": lambda m: m.emit("update", {"price": 3, "name": "Zoë", "on": True, "none": None}, room="room:7"),
        "none": lambda m: m.emit("tick", None),
        "string": lambda m: m.emit("message", 'a "b"\n\x01€😀'),
        "list": lambda m: m.emit("list", [1, [2, []], {}]),
        "tuple": lambda m: m.emit("several", (1, "two", [3])),
        "tuple0": lambda m: m.emit("none", ()),
        "tuple4": lambda m: m.emit("four", (1, 2, 3, 4)),
        "numbers": lambda m: m.emit("n", [0, 255, 256, 65535, 65536, -1, -(2**31), 2**31, 2**53 + 1, -(2**63), 2**63 - 1, 1.5, -0.25, 1e300]),
        "bytes": lambda m: m.emit("file", {"name": "x", "data": b"\x00\xff", "more": [b""]}),
        "bytes only": lambda m: m.emit("file", b"abc"),
        "long": lambda m: m.emit("long", {"s": "x" * 300, "b": b"y" * 300, "l": list(range(3000))}),
        "shared": lambda m: m.emit("shared", (lambda row: [row, row])({"k": "v"})),
        "keys": lambda m: m.emit("keys", {5: "five", "x": "y"}),
        "namespace": lambda m: m.emit("update", "x", namespace="/chat", room="a"),
        "rooms": lambda m: m.emit("update", "x", room=["a", "b"]),
        "int room": lambda m: m.emit("update", "x", room=5),
        "skip": lambda m: m.emit("update", "x", room="a", skip_sid="sid1"),
        "skips": lambda m: m.emit("update", "x", skip_sid=["sid1", "sid2"]),
        "close_room": lambda m: m.close_room("a", namespace="/chat"),
        "disconnect": lambda m: m.disconnect("sid1", "/chat"),
    }
    for name, f in emits.items():
        record("socketio " + name, lambda: f(m))

    app = flask.Flask("app")
    s = flask_socketio.SocketIO(message_queue=url)
    record("flask emit", lambda: s.emit("update", {"price": 3}, to="room:7", namespace="/chat"))
    record("flask several", lambda: s.emit("update", ({"price": 3}, 4)))
    record("flask send", lambda: s.send("hello", to="a"))
    record("flask send json", lambda: s.send({"a": 1}, json=True))
    record("flask skip", lambda: s.emit("update", "x", skip_sid="sid1"))
    record("flask close_room", lambda: s.close_room("a"))

    k = socketio.KombuManager(url, write_only=True)
    record("kombu dict", lambda: k.emit("update", {"price": 3}, room="room:7"))
    record("kombu bytes", lambda: k.emit("file", (b"\x00\xff", 1)))

    host = "0123456789abcdef0123456789abcdef"
    base = {"method": "emit", "event": "update", "data": ({"price": 3, "big": 2**40}, b"\x00\xff"), "namespace": "/", "room": None,
            "skip_sid": None, "callback": None, "host_id": host}
    for p in 3, 4, 5:
        line(f"raw protocol {p}", "socketio", pickle.dumps(base, protocol=p))
    line("raw bytearray", "socketio", pickle.dumps({**base, "data": bytearray(b"ab")}, protocol=5))
    line("raw protocol 2", "socketio", pickle.dumps({**base, "data": [1, "x", ("y",)]}, protocol=2))
    line("raw enter_room", "socketio", pickle.dumps({"method": "enter_room", "sid": "sid1", "room": "a", "namespace": "/", "host_id": host}))
    line("raw leave_room", "socketio", pickle.dumps({"method": "leave_room", "sid": "sid1", "room": 5, "namespace": "/chat", "host_id": host}))
    line("raw callback", "socketio", pickle.dumps({"method": "callback", "host_id": host, "sid": "sid1", "namespace": "/", "id": 1, "args": (1,)}))
    line("raw wants ack", "socketio", pickle.dumps({**base, "data": 1, "room": "sid1", "callback": ("sid1", "/", 1)}))

    # What has to be refused.
    class Command:
        def __reduce__(self):
            return os.system, ("touch /tmp/pickle-was-run",)

    class Row:
        def __init__(self):
            self.a = 1

    cycle = []
    cycle.append(cycle)
    bomb = "x"
    for _ in range(40):
        bomb = [bomb] * 10
    refused = {
        "os.system": Command(), "object": Row(), "datetime": datetime.datetime(2025, 1, 2), "date": datetime.date(2025, 1, 2),
        "OrderedDict": collections.OrderedDict(a=1), "defaultdict": collections.defaultdict(list), "set": {1}, "frozenset": frozenset([1]),
        "Decimal": decimal.Decimal("1.5"), "UUID": uuid.UUID(int=1), "complex": 1j, "big": 2**70, "huge": 1 << 5000, "nan": float("nan"),
        "infinity": {"x": -float("inf")}, "surrogate": "\ud800", "cycle": cycle, "bomb": bomb, "bytes key": {b"k": 1}, "tuple key": {(1,): 1},
        "attachments": [bytes([i]) for i in range(11)], "placeholder": [b"x", {"_placeholder": True, "num": 5}],
    }
    for name, data in refused.items():
        line(f"refused {name}", "socketio", pickle.dumps({**base, "data": data}, protocol=4))
    line("refused bytes in protocol 2", "socketio", pickle.dumps(base, protocol=2))
    line("refused protocol 0", "socketio", pickle.dumps(base, protocol=0))
    line("refused empty room list", "socketio", pickle.dumps({**base, "room": []}))
    line("refused room of bytes", "socketio", pickle.dumps({**base, "room": b"a"}))
    line("refused disconnect without sid", "socketio", pickle.dumps({"method": "disconnect", "sid": None, "namespace": "/"}))
finally:
    server.terminate()
    server.wait()

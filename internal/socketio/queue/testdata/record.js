// Records what @socket.io/redis-emitter publishes, as JSON lines on the standard output.
//
//   npm install @socket.io/redis-emitter@5.1.0 ioredis redis && node record.js >emitter.jsonl
//
// Made with @socket.io/redis-emitter 5.1.0 (notepack.io 3.0.1), ioredis and node-redis, through Debian's redis-server 7.0.15.
const { spawn } = require("child_process");
const { createServer } = require("net");
const Redis = require("ioredis");
const { createClient } = require("redis");
const { Emitter } = require("@socket.io/redis-emitter");

async function freePort() {
  const s = createServer().listen(0, "127.0.0.1");
  await new Promise((done) => s.once("listening", done));
  const { port } = s.address();
  await new Promise((done) => s.close(done));
  return port;
}

async function main() {
  const port = await freePort();
  const server = spawn("/usr/bin/redis-server", ["--port", port, "--save", "", "--bind", "127.0.0.1"], { stdio: "ignore" });
  const subscriber = new Redis(port, { retryStrategy: () => 20 });
  subscriber.on("error", () => {});
  await subscriber.psubscribe("*");
  const client = new Redis(port);
  const node = await createClient({ url: `redis://127.0.0.1:${port}` }).connect();
  async function record(name, publish) {
    const message = new Promise((done) => subscriber.once("pmessageBuffer", (_, channel, payload) => done([channel, payload])));
    await publish();
    const [channel, payload] = await message;
    console.log(JSON.stringify({ name, channel: channel.toString(), payload: payload.toString("base64") }));
  }
  const io = new Emitter(client);
  const all = {
    "emit": () => io.emit("update", { price: 3, name: "Zoë", on: true, off: false, none: null }),
    "no argument": () => io.emit("tick"),
    "several": () => io.emit("several", 1, "two", [3, [], {}]),
    "one room": () => io.to("room:7").emit("update", "x"),
    "rooms": () => io.to(["a", "b"]).emit("update", "x"),
    "except": () => io.to("a").except(["b", "sid1"]).emit("update", "x"),
    "namespace": () => io.of("/chat").to("a").emit("update", "x"),
    "flags": () => io.volatile.compress(false).emit("update", "x"),
    "numbers": () => io.emit("n", [0, 127, 128, 255, 256, 65535, 65536, 2 ** 32, 2 ** 53, -1, -32, -33, -128, -129, -32769, -(2 ** 31) - 1, 1.5, NaN, Infinity]),
    "strings": () => io.emit("s", "", "x".repeat(40), "y".repeat(300), 'a "b"\n\x01€😀', "half \ud800"),
    "long": () => io.emit("long", "z".repeat(300), Array.from({ length: 20 }, (_, i) => i), Object.fromEntries(Array.from({ length: 20 }, (_, i) => ["k" + i, i]))),
    "binary": () => io.emit("file", Buffer.from([0, 255]), { more: new Uint8Array([1, 2, 3]) }),
    "binary 16": () => io.emit("file", Buffer.alloc(300, 7)),
    "dates": () => io.emit("d", new Date(0), new Date(1700000000123), new Date(-1), new Date(8.64e15), new Date(-62198755200000)),
    "undefined": () => io.emit("u", undefined, { a: undefined, b: [undefined] }),
    "join": () => io.in("a").socketsJoin(["x", "y"]),
    "leave": () => io.of("/chat").in(["a", "b"]).except("c").socketsLeave("x"),
    "disconnect": () => io.in("sid1").disconnectSockets(),
    "disconnect all": () => io.disconnectSockets(true),
    "server side": () => io.serverSideEmit("hello", 1),
  };
  for (const name in all) await record("emitter " + name, all[name]);
  const byNode = new Emitter(node);
  await record("emitter by node-redis", () => byNode.to("a").emit("update", { price: 3 }, Buffer.from("abc")));
  await node.close();
  client.disconnect();
  subscriber.disconnect();
  server.kill();
}
main();

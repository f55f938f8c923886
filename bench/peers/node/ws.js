const { createServer } = require("node:http")
const { WebSocketServer } = require("ws")

const rooms = new Map()
const send = (room, m) => { for (const c of rooms.get(room) ?? []) c.send(m) }
const roomOf = url => new URL(url, "http://h").searchParams.get("room")

const server = createServer((req, res) => {
	let body = ""
	req.on("data", d => body += d).on("end", () => { send(roomOf(req.url), body); res.end("ok") })
})
new WebSocketServer({ server }).on("connection", (c, req) => {
	const room = roomOf(req.url)
	if (!rooms.has(room)) rooms.set(room, new Set())
	rooms.get(room).add(c)
	c.on("message", m => send(room, m.toString()))
	c.on("close", () => rooms.get(room).delete(c))
})
server.keepAliveTimeout = 60_000
server.listen(+process.argv[2], "127.0.0.1", 4096)

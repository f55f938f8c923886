const { createServer } = require("node:http")
const { Server } = require("socket.io")

let io
const server = createServer((req, res) => {
	let body = ""
	req.on("data", d => body += d).on("end", () => {
		io.to(new URL(req.url, "http://h").searchParams.get("room")).emit("update", body)
		res.end("ok")
	})
})
io = new Server(server, { pingInterval: 300_000, transports: ["polling", "websocket"] })
io.on("connection", s => {
	const room = s.handshake.query.room
	s.join(room)
	s.on("say", m => io.to(room).emit("update", m))
})
server.keepAliveTimeout = 60_000
server.listen(+process.argv[2], "127.0.0.1", 4096)

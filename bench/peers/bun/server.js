// Bun's server is uWebSockets, with its topics and its TLS.
const [port, tlsPort, cert, key] = process.argv.slice(2)

const roomOf = url => new URL(url).searchParams.get("room")

const options = {
	hostname: "127.0.0.1",
	async fetch(request, server) {
		const room = roomOf(request.url)
		if (request.method === "POST") {
			const message = await request.text()
			for (const s of servers) s.publish(room, message)
			return new Response("ok")
		}
		if (server.upgrade(request, { data: { room } })) return
		return new Response("expected a WebSocket or a POST", { status: 400 })
	},
	websocket: {
		backpressureLimit: 1 << 30, // a slow client loses nothing, as with the other peers
		open: c => c.subscribe(c.data.room),
		message: (c, m) => { for (const s of servers) s.publish(c.data.room, m) },
	},
}
const servers = [
	Bun.serve({ ...options, port: +port }),
	Bun.serve({ ...options, port: +tlsPort, tls: { cert: Bun.file(cert), key: Bun.file(key) } }),
]

// What the scripts share: clients that note what they get, a line to the server that can be cut, and the admin API.
import http from "node:http"
import net from "node:net"
import { io as v3 } from "socket.io-client-3"
import { io as v4 } from "socket.io-client"

export const clients = { 4: v4, 3: v3 }
export const site = process.env.SITE, admin = process.env.ADMIN
export const transports = [["polling"], ["websocket"], ["polling", "websocket"]]

let made = 0
// A channel of its own keeps tests apart.
export const newChannel = () => "channel-" + ++made

// once waits for an event of anything that has some.
export const once = (emitter, event) => new Promise(done => emitter.once(event, done))

// ask emits an event and waits for its ack. Clients before 4.6 have no emitWithAck.
export const ask = (socket, ...event) => new Promise(done => socket.emit(...event, done))

// begin makes a client, which ends with the test. The server reads its channel from the query.
export function begin(t, { io = v4, address = site, namespace = "", channel = newChannel(), query = {}, ...options } = {}) {
	const socket = io("http://" + address + namespace, { forceNew: true, reconnectionDelay: 10, query: { channel, ...query }, ...options })
	t.after(() => socket.disconnect())
	socket.channel = channel
	const got = [], waiting = []
	socket.onAny((...event) => waiting.length > 0 ? waiting.shift()(event) : got.push(event))
	// next returns the next event: its name and arguments. Those of a client that can recover have an ID as the last one.
	socket.next = async () => got.length > 0 ? got.shift() : new Promise(done => waiting.push(done))
	return socket
}

// connect is begin, and waits until the client has connected, and has moved to a WebSocket if it can.
export async function connect(t, options) {
	const socket = begin(t, options)
	const failed = new Promise((_, fail) => socket.once("connect_error", fail))
	await Promise.race([once(socket, "connect"), failed])
	const engine = socket.io.engine
	if (options.transports?.length > 1 && engine.transport.name === "polling") await once(engine, "upgrade")
	return socket
}

// request sends a request to the admin API. Not by fetch, which says that it is a browser's, so the API refuses it.
export const request = (method, path, body) => new Promise((done, fail) => {
	const sent = http.request("http://" + admin + path, { method, headers: { "Content-Type": "application/x-ndjson" } }, answer => {
		answer.resume()
		answer.statusCode < 300 ? answer.on("end", done) : fail(new Error(answer.statusMessage))
	})
	sent.on("error", fail).end(body)
})

// publish publishes messages by the admin API.
export const publish = (channel, ...messages) =>
	request("POST", "/broadcast/publish", messages.map(m => JSON.stringify({ channel, ...m })).join("\n"))

// line starts a proxy to the server. cut ends its connections as soon as that disturbs the client: a WebSocket, or a GET that
// waits for its answer. The connections to the server stay if it is not to notice.
export async function line(t) {
	const pairs = new Set()
	const server = net.createServer(down => {
		const up = net.connect(site.split(":")[1], "127.0.0.1"), pair = { matters: false, end }
		let noticed = true
		pairs.add(pair)
		down.on("data", p => {
			pair.matters ||= p.subarray(0, 4).toString() === "GET "
			up.write(p)
		})
		up.on("data", p => {
			pair.matters &&= !p.subarray(0, 12).toString().startsWith("HTTP/1.1 200")
			down.write(p)
		})
		for (const socket of [down, up]) socket.on("error", () => {})
		down.on("close", () => pairs.delete(pair) && noticed && up.destroy())
		up.on("close", () => down.destroy())
		function end(unnoticed) {
			pair.matters = false
			noticed = !unnoticed
			down.destroy()
			t.after(() => up.destroy())
		}
	})
	await new Promise(done => server.listen(0, "127.0.0.1", done))
	t.after(() => server.close())
	// A client that is just moving to a WebSocket goes on by polling if that is cut. So it is cut until it has noticed.
	const cut = async (unnoticed, disconnected) => {
		let done = false
		disconnected.then(() => (done = true))
		while (!done) {
			if ([...pairs].some(pair => pair.matters)) pairs.forEach(pair => pair.end(unnoticed))
			await new Promise(setImmediate)
		}
	}
	return { address: "127.0.0.1:" + server.address().port, cut }
}

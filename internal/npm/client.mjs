// socket.io-client, old and new, by each transport.
import assert from "node:assert/strict"
import test from "node:test"
import { ask, begin, clients, connect, line, newChannel, once, publish, request, transports } from "./harness.mjs"

// A test that hangs fails, and says which one it is.
const timeout = 30_000

// bytes makes binary arguments comparable: which type they have depends on the client's version and transport.
const bytes = value => value instanceof ArrayBuffer || ArrayBuffer.isView(value) ? "bytes " + Buffer.from(value).toString("hex") : value

for (const [version, io] of Object.entries(clients)) {
	for (const by of transports) {
		// Without recovery, which would add an argument to each event.
		const plain = { io, transports: by, path: "/plain/" }
		const both = async t => {
			const channel = newChannel()
			return [await connect(t, { ...plain, channel }), await connect(t, { ...plain, channel, transports: ["websocket"] })]
		}
		const check = (name, run) => test(`version ${version}, ${by.join()}: ${name}`, { timeout }, run)

		check("connects", async t => {
			const s = await connect(t, plain)
			assert.equal(s.io.engine.transport.name, by.at(-1))
			assert.match(s.id, /^[\w-]{20}$/)
			assert.notEqual(s.id, s.io.engine.id)
			assert.deepEqual(await s.next(), ["greeting", { hello: "world" }])
		})

		check("events arrive as they were sent, both ways", async t => {
			const [a, b] = await both(t)
			await a.next(), await b.next() // the greetings
			const events = [
				["json", { a: [1, 2.5, null, { b: "ü€😀\u2028" }] }], ["text", "a string"], ["number", 7], ["nothing"], ["null", null],
				["several", 1, "two", { three: 3 }, [4]], ["message", "as by send"], ["large", "x".repeat(60_000)],
				["binary", Uint8Array.of(1, 2, 255)], ["nested", { a: Buffer.from("abc"), b: [Uint8Array.of(), 5] }, "z", Uint8Array.of(9).buffer],
			]
			for (const [from, to] of [[a, b], [b, a]]) {
				for (const event of events) {
					from.emit(...event)
					const want = JSON.stringify(event, (_, v) => v?.type === "Buffer" ? bytes(Buffer.from(v.data)) : bytes(v))
					for (const s of [from, to]) assert.equal(JSON.stringify(await s.next(), (_, v) => v?.type === "Buffer" ? bytes(Buffer.from(v.data)) : bytes(v)), want)
				}
			}
			await publish(a.channel, { event: "backend", data: { b: 1 } }, { data: "text" }, { event: "bin", data: "AQI=", encoding: "base64" })
			for (const s of [a, b]) {
				assert.deepEqual(await s.next(), ["backend", { b: 1 }])
				assert.deepEqual(await s.next(), ["message", "text"])
				assert.deepEqual((await s.next()).map(bytes), ["bin", "bytes 0102"])
			}
		})

		check("acks", async t => {
			const s = await connect(t, plain)
			const { id } = await ask(s, "e", 1), other = await ask(s, "e", Uint8Array.of(1))
			assert.match(id, /^\w+-\d+$/)
			assert.notEqual(other.id, id)
			assert.equal((await ask(s, "big", "x".repeat(70_000))).error.code, "too_big")
			for (const name of ["greeting", "e", "e"]) assert.equal((await s.next())[0], name)
		})

		check("rooms", async t => {
			const s = await connect(t, plain), room = "room:" + s.id
			await s.next()
			await publish(room, { data: "before" })
			assert.match((await ask(s, "join", { room })).id, /-\d+$/)
			await publish(room, { data: "within" })
			assert.deepEqual(await s.next(), ["message", "within"])
			assert.match((await ask(s, "leave", room)).id, /-\d+$/)
			await publish(room, { data: "after" })
			assert.equal((await ask(s, "join", ["secret"])).error.code, "forbidden")
			await ask(s, "last")
			assert.deepEqual(await s.next(), ["last"])
		})

		check("namespaces share a connection, and are apart", async t => {
			const main = await connect(t, plain), name = "/chat-" + main.id
			const chat = main.io.socket(name) // it connects by itself
			t.after(() => chat.disconnect())
			await once(chat, "connect")
			assert.notEqual(chat.id, main.id)
			const other = await connect(t, { ...plain, namespace: name })
			const heard = once(other, "e"), mine = once(chat, "own")
			other.emit("own", 1)
			assert.equal(await mine, 1)
			chat.emit("e", "hello")
			assert.equal(await heard, "hello")
			const none = main.io.socket("/none")
			t.after(() => none.disconnect())
			assert.equal((await once(none, "connect_error")).message, "Invalid namespace")
			chat.disconnect()
			await ask(main, "still here")
			assert.deepEqual([await main.next(), await main.next()].map(e => e[0]), ["greeting", "still here"])
		})

		check("ends, comes back when asked to, and stays away after a kick", async t => {
			const s = await connect(t, { ...plain, query: { user: newChannel() } }), first = s.id
			let why = once(s, "disconnect")
			s.disconnect()
			assert.equal(await why, "io client disconnect")
			s.connect()
			await once(s, "connect")
			assert.notEqual(s.id, first)
			why = once(s, "disconnect")
			await request("DELETE", "/broadcast/connections?user=" + s.io.opts.query.user)
			assert.equal(await why, "io server disconnect")
			assert.ok(!s.active) // it will not come back by itself
		})

		check("a cut connection is made again", async t => {
			const { address, cut } = await line(t)
			const s = await connect(t, { ...plain, address }), first = s.id
			for (const unnoticed of [false, true]) {
				const why = once(s, "disconnect"), back = once(s, "connect")
				await cut(unnoticed, why)
				assert.match(await why, /^transport (close|error)$/)
				await back
				assert.notEqual(s.id, first)
				assert.equal((await ask(s, "e")).error, undefined)
			}
		})
	}
}

test("quiet clients stay connected", { timeout }, async t => {
	const all = []
	for (const io of Object.values(clients)) for (const by of transports) all.push(begin(t, { io, transports: by, path: "/plain/" }))
	let left = 0
	await Promise.all(all.map(s => new Promise(done => {
		s.on("disconnect", why => why === "io client disconnect" || left++)
		let pings = 0
		s.io.engine.on("pong", () => ++pings === 3 && done()) // three, because a client or a server gives up after two
	})))
	assert.equal(left, 0)
})

for (const by of transports) {
	test(`${by.join()}: a cut connection is recovered`, { timeout }, async t => {
		const { address, cut } = await line(t)
		const s = await connect(t, { transports: by, address }), id = s.id, room = "room:" + id
		await ask(s, "join", room)
		await s.next()
		const send = n => publish(n % 2 ? s.channel : room, { event: "e", data: n })
		let n = 0
		for (const unnoticed of [false, true, false, true]) {
			await send(++n) // while it is connected
			assert.deepEqual((await s.next()).slice(0, 2), ["e", n])
			const why = once(s, "disconnect"), back = once(s, "connect")
			await cut(unnoticed, why)
			await why
			for (const to = n + 4; n < to;) await send(++n)
			await back
			assert.ok(s.recovered)
			assert.equal(s.id, id)
			await send(++n)
			for (let i = n - 4; i <= n; i++) assert.deepEqual((await s.next()).slice(0, 2), ["e", i])
		}
		// An ack comes after all that was sent before, so nothing came twice.
		await ask(s, "last")
		assert.equal((await s.next())[0], "last")
	})

	test(`${by.join()}: what is lost is not recovered, and the page knows`, { timeout }, async t => {
		const { address, cut } = await line(t)
		const s = await connect(t, { transports: by, address }), id = s.id
		await publish(s.channel, { event: "e", data: 0 })
		await s.next(), await s.next()
		const why = once(s, "disconnect"), back = once(s, "connect")
		await cut(true, why)
		await why
		await publish(s.channel, ...Array.from({ length: 150 }, (_, i) => ({ event: "e", data: i }))) // the history has 100
		await back
		assert.ok(!s.recovered)
		assert.notEqual(s.id, id)
		await publish(s.channel, { event: "new", data: 1 })
		assert.equal((await s.next())[0], "greeting")
		assert.equal((await s.next())[0], "new")
	})

	test(`${by.join()}: retries do not repeat what was acked, and go on after a refusal`, { timeout }, async t => {
		const s = await connect(t, { transports: by, path: "/plain/", retries: 3, ackTimeout: 30_000 })
		const answers = ["1", "x".repeat(70_000), "3"].map(data => new Promise(done => s.emit("e", data, (error, answer) => done(error ?? answer))))
		const [first, refused, last] = await Promise.all(answers)
		assert.match(first.id, /-\d+$/)
		assert.equal(refused.error.code, "too_big")
		assert.match(last.id, /-\d+$/)
		assert.equal((await s.timeout(30_000).emitWithAck("e", "4")).error, undefined)
		assert.equal((await s.next())[0], "greeting")
		for (const data of ["1", "3", "4"]) assert.deepEqual(await s.next(), ["e", data])
	})
}

for (const by of transports) {
	test(`${by.join()}: one whose access has ended stays away, and recovers with new access`, { timeout }, async t => {
		const until = ms => (Date.now() + ms) / 1000
		const s = begin(t, { transports: by, path: "/expiring/", query: { until: until(2000) } })
		const { channel } = s, opened = []
		s.io.on("reconnect_attempt", () => opened.push("by itself"))
		await once(s, "connect")
		await publish(channel, { event: "e", data: "in time" })
		assert.equal((await s.next())[1], "in time")
		const id = s.id
		assert.equal(await once(s, "disconnect"), "io server disconnect")
		await publish(channel, { event: "e", data: "missed" })
		s.io.opts.query.until = until(3_600_000)
		s.connect()
		await once(s, "connect")
		assert.ok(s.recovered)
		assert.equal(s.id, id)
		await publish(channel, { event: "e", data: "after" })
		for (const data of ["missed", "after"]) assert.equal((await s.next())[1], data)
		assert.deepEqual(opened, [])
	})
}

test("one that was kicked stays away", { timeout }, async t => {
	const s = await connect(t, { path: "/plain/", transports: ["websocket"], query: { user: "kicked" } })
	const why = once(s, "disconnect")
	await request("DELETE", "/broadcast/connections?user=kicked&code=4403")
	assert.equal(await why, "io server disconnect")
	assert.equal(s.active, false) // it makes no attempt by itself
})

test("clients that move to a WebSocket while events come at full speed get each once, in order", { timeout }, async t => {
	// With pings that come seldom: one process with all these clients may be slow to answer.
	const channel = newChannel(), options = { channel, path: "/calm/" }
	const publisher = await connect(t, { ...options, transports: ["websocket"] })
	let sent = 0, upgraded = 0, ended = 0
	const all = []
	for (let i = 0; i < 12; i++) {
		const s = begin(t, { ...options, io: clients[i % 2 + 3] })
		s.io.engine.once("upgrade", () => upgraded++)
		let last = 0
		s.on("n", n => {
			if (last > 0) assert.equal(n, last + 1)
			last = n
		})
		s.on("disconnect", () => ended++)
		all.push({ s, reached: () => last })
	}
	// The ack keeps the publisher from running far ahead of what the clients can take.
	while (upgraded < all.length) {
		for (let i = 0; i < 50; i++) publisher.emit("n", ++sent)
		await ask(publisher, "n", ++sent)
	}
	await Promise.all(all.map(async ({ s, reached }) => {
		while (reached() < sent) await once(s, "n")
	}))
	assert.equal(ended, 0)
})

test("a page of another origin is refused", { timeout }, async t => {
	const s = begin(t, { transports: ["polling"], path: "/plain/", extraHeaders: { Origin: "https://evil.example" } })
	const error = await once(s, "connect_error")
	assert.equal(error.description, 403)
	s.disconnect()
})

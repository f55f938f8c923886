// What publishes through Redis in Node, new and old, to redis listen.
import assert from "node:assert/strict"
import test from "node:test"
import { Emitter } from "@socket.io/redis-emitter"
import { Redis as IORedis5 } from "ioredis-5"
import { createClient as redis4 } from "redis-4"
import { createClient as redis5 } from "redis-5"
import { ask, connect } from "./harness.mjs"

const timeout = 30_000, url = process.env.REDIS, port = url.match(/:(\d+)$/)[1], password = "secret"

// Each returns a client that is ready, and how it is ended.
const programs = {
	"ioredis 5": async () => withIORedis(IORedis5),
	"redis 4": async () => withRedis(redis4),
	"redis 5": async () => withRedis(redis5),
}
// The newest need a newer Node than Debian 12 has.
if (parseInt(process.versions.node) >= 20) {
	const { Redis } = await import("ioredis-6"), { createClient } = await import("redis-6")
	programs["ioredis 6"] = async () => withIORedis(Redis)
	programs["redis 6"] = async () => withRedis(createClient)
	programs["redis 6, RESP3"] = async () => withRedis(createClient, { RESP: 3 })
	programs["redis 6, RESP2"] = async () => withRedis(createClient, { RESP: 2 })
}
const withIORedis = async Redis => {
	const client = new Redis(port, "127.0.0.1", { password, maxRetriesPerRequest: 0 })
	return { client, login: wrong => new Redis(port, "127.0.0.1", { password: wrong, retryStrategy: null, lazyConnect: true, enableOfflineQueue: false }).connect(), end: () => client.quit() }
}
const withRedis = async (create, options = {}) => {
	const socket = { host: "127.0.0.1", port: +port, reconnectStrategy: false }
	const client = await create({ socket, password, ...options }).on("error", () => {}).connect()
	return { client, login: wrong => create({ socket, password: wrong, ...options }).on("error", () => {}).connect(), end: () => client.quit() }
}

for (const [name, start] of Object.entries(programs)) {
	test(name, { timeout }, async t => {
		const { client, login, end } = await start()
		const s = await connect(t, { channel: "default", path: "/plain/" })
		const nsp = "/chat-" + s.id, chat = s.io.socket(nsp)
		t.after(() => chat.disconnect())
		const inChat = new Promise(done => chat.once("update", (...args) => done(args)))
		await new Promise(done => chat.once("connect", done))
		await s.next() // the greeting
		await ask(s, "join", "room:a"), await ask(s, "join", "room:b")

		assert.equal(await client.ping(), "PONG")
		assert.equal(await client.publish("plain:none", "x"), 0)
		await ask(s, "join", "room:plain")
		assert.equal(await client.publish("room:plain", "text"), 1)
		assert.deepEqual(await s.next(), ["message", "text"])

		const io = new Emitter(client)
		io.emit("update", { a: [1, 2.5, null, "ü😀"] }, new Date(0), undefined)
		io.to("room:a").to("room:b").emit("once", 1)
		io.to(s.id).emit("private", Buffer.from([1, 2]), "z")
		io.except(s.id).emit("not for it")
		io.except("room:a").emit("nor this")
		io.volatile.emit("lossy")
		io.of(nsp).emit("update", "chat")
		assert.deepEqual(await s.next(), ["update", { a: [1, 2.5, null, "ü😀"] }, "1970-01-01T00:00:00.000Z", null])
		assert.deepEqual(await s.next(), ["once", 1])
		const [event, binary, z] = await s.next()
		assert.deepEqual([event, Buffer.from(binary), z], ["private", Buffer.from([1, 2]), "z"])
		assert.deepEqual(await inChat, ["chat"])

		io.in(s.id).socketsJoin("room:new")
		io.to("room:new").emit("joined")
		io.in(s.id).socketsLeave(["room:new", "room:a"])
		io.to("room:new").to("room:a").emit("left")
		io.emit("end")
		for (const name of ["lossy", "joined", "end"]) {
			const [got] = await s.next()
			assert.equal(got, name)
		}

		// Many at once, as in a pipeline: all arrive, in order.
		for (let i = 0; i < 500; i++) io.emit("n", i)
		for (let i = 0; i < 500; i++) assert.deepEqual(await s.next(), ["n", i])

		const why = new Promise(done => s.once("disconnect", done))
		io.in(s.id).disconnectSockets(true)
		assert.equal(await why, "io server disconnect")
		await assert.rejects(login("wrong"), /WRONGPASS|NOAUTH|closed/)
		await end()
	})
}

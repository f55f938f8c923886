// The client in Node: with the WebSocket of the package ws, and with Node's own.
import assert from "node:assert/strict"
import process from "node:process"
import { get } from "svelte/store"
import { WebSocket } from "ws"
import { connect } from "caddy-broadcast"
import { hubStore } from "caddy-broadcast/svelte"

const site = `ws://${process.env.SITE}`

// until returns a promise of a value that is not undefined, and a function that gives it.
const until = () => {
	let give
	return [new Promise(resolve => (give = resolve)), value => value !== undefined && give(value)]
}

async function uses(options) {
	const hub = connect(`${site}/ws?user=node`, options)
	const [opened, open] = until()
	hub.onstate = state => open(state == "open" || undefined)
	await opened
	const [members, present] = until()
	hub.presence("default", members => present(members?.map(member => member.user)))
	assert.deepEqual(await members, ["node"])
	const [prices, frame] = until()
	const rows = []
	hub.frame(
		messages => {
			rows.push(...messages.map(message => message.data.row))
			if (rows.length == 3) frame(rows)
		},
		{ event: "price" },
	)
	const ids = await Promise.all([1, 2, 3].map(row => hub.publish({ row }, { event: "price" })))
	assert.equal(new Set(ids).size, 3)
	assert.deepEqual(await prices, [1, 2, 3])
	hub.close()
}

async function isRefused(options) {
	const hub = connect(`${site}/closed`, options)
	const [refused, error] = until()
	hub.onerror = error
	const { status, code } = await refused
	assert.deepEqual([status, code, hub.state], [403, "forbidden", "refused"])
}

// Stores that share a connection, and handlers of one of them. Svelte's need no component.
async function shares(options) {
	globalThis.document = {} // or it would be a server's
	const expired = `${site}/expiring?until=${Math.ceil(Date.now() / 1000) + 1}`
	const [gap, ongap] = until()
	const [renewed, renew] = until()
	const onexpire = () => {
		renew(true)
		return `${site}/expiring?until=never`
	}
	const first = hubStore(expired, options)
	const second = hubStore(expired, { ongap, onexpire })
	const stops = [first, second].map(store => store.subscribe(() => {}))
	const { hub } = get(first)
	assert.equal(get(second).hub, hub)
	stops[0]() // the other one still uses the connection
	await renewed
	const [again, reopened] = until()
	stops.push(second.subscribe(({ state, hub }) => reopened(state == "open" ? hub : undefined)))
	assert.equal(await again, hub)
	hub.ongap({ channels: ["default"] }) // as if the server had sent it
	assert.deepEqual(await gap, { channels: ["default"] })
	const [closed, close] = until()
	const { onstate } = hub
	hub.onstate = state => {
		onstate(state)
		if (state == "closed") close(true)
	}
	stops.forEach(stop => stop())
	await closed
	delete globalThis.document
}

assert.throws(() => connect("/ws"), /"\/ws".*no page.*whole address/)
if (globalThis.WebSocket) {
	await uses()
	await isRefused()
} else {
	assert.throws(() => connect(`${site}/ws`), /no WebSocket here.*Node 22.*ws/)
}
await uses({ WebSocket })
await isRefused({ WebSocket })
await shares({ WebSocket })

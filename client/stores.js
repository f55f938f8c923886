// What react.js, vue.js and svelte.js have in common: stores, which are values that change. get returns the value, subscribe
// has a function called after each change, and returns the function that ends it. A store works only while it has a subscriber.
import { connect } from "./index.js"

export const DISCONNECTED = { hub: undefined, state: "connecting", error: undefined }
export const NO_MESSAGES = []
export const NOBODY = { members: [], count: 0 }

const idle = () => {}

// connections has the hubs that components use at the moment, by address. All components with the same address share one.
const connections = new Map()

function open(url, user) {
	const users = new Set()
	const hub = connect(url, user.options.current)
	const connection = { hub, users, value: { hub, state: hub.state, error: undefined } }
	const change = changes => {
		connection.value = { ...connection.value, ...changes }
		users.forEach(user => user.notify())
	}
	const tell = (handler, argument) => users.forEach(({ options }) => options.current?.[handler]?.(argument))
	hub.onstate = state => {
		change(state == "open" ? { state, error: undefined } : { state })
		tell("onstate", state)
	}
	hub.onerror = error => {
		change({ error })
		tell("onerror", error)
	}
	hub.ongap = gap => tell("ongap", gap)
	// The client treats access that ends differently where nobody renews it, so without a handler this must be undefined.
	const onexpire = () => [...users].map(({ options }) => options.current?.onexpire).find(Boolean)
	Object.defineProperty(hub, "onexpire", { get: onexpire })
	return connection
}

// use adds a user to the connection of an address, which it opens if there is none.
function use(url, user) {
	const key = `${url}`
	const connection = connections.get(key) ?? open(url, user)
	const { hub, users } = connection
	connections.set(key, connection)
	users.add(user)
	const close = () => {
		if (users.size || connections.get(key) != connection) return
		connections.delete(key)
		hub.close()
	}
	const release = () => {
		users.delete(user)
		setTimeout(close) // later, because frameworks often unmount a component only to mount it, or the next one, at once
	}
	return { connection, release }
}

// hubStore is connected to an address while it has a subscriber. options.current has options of connect, which count when
// the connection is opened, and the handlers onstate, onerror, ongap and onexpire.
export function hubStore(url, options) {
	let value = DISCONNECTED
	return {
		get: () => value,
		subscribe(notify) {
			if (!url) return idle // not known yet
			const { connection, release } = use(url, {
				options,
				notify() {
					value = connection.value
					notify()
				},
			})
			value = connection.value
			return release
		},
	}
}

// messageStore has the latest messages, or with a key the latest of each key. It changes at most once per frame.
export function messageStore(hub, { event, channel, key = message => message.id, limit = 1000 } = {}) {
	const kept = new Map() // by key, in the order in which the keys first came
	let value = NO_MESSAGES
	return {
		get: () => value,
		subscribe(notify) {
			// place gives a new key its place when its message arrives. The messages of a frame are in the order of the latest.
			const place = message => {
				const k = key(message)
				if (!kept.has(k) && kept.set(k, message).size > limit) kept.delete(kept.keys().next().value)
				return k
			}
			const receive = messages => {
				for (const message of messages) {
					const k = key(message)
					if (kept.has(k)) kept.set(k, message)
				}
				value = [...kept.values()]
				notify()
			}
			return hub?.frame(receive, { event, channel, key: place, limit }) ?? idle
		},
	}
}

// presenceStore has the members of a channel, and their number.
export function presenceStore(hub, channel) {
	let value = NOBODY
	return {
		get: () => value,
		subscribe(notify) {
			const receive = (members, { count }) => {
				value = { members, count }
				notify()
			}
			return hub?.presence(channel, receive) ?? idle
		},
	}
}

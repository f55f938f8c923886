// Stores for Svelte. They connect in browsers only, so that servers can render components. svelte.d.ts documents them.
import { readable } from "svelte/store"
import * as stores from "./stores.js"

function start(store, set) {
	const update = () => set(store.get())
	const stop = store.subscribe(update)
	update()
	return stop
}

export function hubStore(url, options) {
	const store = stores.hubStore(url, { current: options })
	return readable(stores.DISCONNECTED, set => (globalThis.document ? start(store, set) : undefined))
}

// follow returns a Svelte store of what create returns for the hub that a connection has.
function follow(connection, initial, create) {
	const hubs = connection?.subscribe ? connection : readable({ hub: connection })
	return readable(initial, set => {
		let current, stop
		const unsubscribe = hubs.subscribe(({ hub }) => {
			if (hub == current) return
			current = hub
			stop?.()
			stop = start(create(hub), set)
		})
		return () => {
			unsubscribe()
			stop?.()
		}
	})
}

export const messageStore = (connection, options) =>
	follow(connection, stores.NO_MESSAGES, hub => stores.messageStore(hub, options))
export const presenceStore = (connection, channel) => follow(connection, stores.NOBODY, hub => stores.presenceStore(hub, channel))

// The client of broadcast.js with who is present on its channels, for routes with the option presence. It is a module of its own
// (?client=presence, minified to presence.min.js), so that pages that do not need it do not load it. presence.d.ts documents it.
import { connect as connectHub } from "./broadcast.js"

export function connect(url, options) {
	const hub = connectHub(url, options)
	const watchers = new Set()
	const rooms = new Map() // by channel: the count, and the members by user, or undefined if they are only counted

	hub.onentry = ({ hello, unsubscribed, presence }) => {
		if (hello) rooms.clear() // the lists follow
		if (unsubscribed) rooms.delete(unsubscribed.channel)
		if (presence) receive(presence)
	}

	// receive takes a list of members, or what has changed, or, if there are too many to be listed, only their number.
	const receive = change => {
		const { channel, count, members, joined, left } = change
		let users = members && new Map()
		if (joined) {
			users = rooms.get(channel)?.users
			if (!users) return // it was on its way when the client left
		}
		rooms.set(channel, { count, users })
		for (const member of members ?? joined ?? []) users.set(member.user, member)
		for (const member of left ?? []) users.delete(member.user)
		// A copy, because a watcher may add another one, which gets the whole list.
		for (const watcher of [...watchers]) if (watcher.channel == channel) call(watcher, change)
	}

	// call is async so that an exception in a watcher goes to the console, not to the next watcher.
	const call = async ({ channel, fn }, change) => {
		const { count, users } = rooms.get(channel)
		const members = users && [...users.values()]
		fn(members, change ?? { channel, count, members })
	}

	hub.presence = (channel, fn) => {
		const watcher = { channel, fn }
		watchers.add(watcher)
		// Later, so that fn never runs before the caller has the function that removes it.
		queueMicrotask(() => watchers.has(watcher) && rooms.has(channel) && call(watcher))
		return () => watchers.delete(watcher)
	}
	return hub
}

// The browser's half of caddy-broadcast: one connection that comes back and resumes, with messages by event, by
// channel, or once an animation frame. No dependencies; what each part does is said in broadcast.d.ts.

export function connect(url, { lastId = "" } = {}) {
	const listeners = new Set()
	const waiting = new Map() // requests without an answer, by ref, in their order
	const stop = new AbortController()
	const now = Date.now
	const { addEventListener, EventSource, location, requestAnimationFrame: nextFrame = setTimeout } = globalThis
	const address = new URL((url + "").replace(/^ws/, "http"), location?.href)
	const joined = new Set()

	let link // the WebSocket or EventSource, if there is one
	let streams // whether it is an EventSource
	let opened // when its hello came, else 0
	let heard // when it said anything
	let heartbeat // in seconds
	let failures = 0 // links in a row that got no hello
	let tries = 0
	let posts = Promise.resolve()
	let timer

	const become = state => {
		hub.state = state
		hub.onstate?.(state)
	}

	const to = () => {
		const u = new URL(address)
		const query = u.searchParams
		query.set("protocol", "broadcast.v1")
		query.set("last_id", hub.lastId)
		for (const channel of joined) query.append("join", channel)
		return u
	}

	const drop = () => {
		clearTimeout(timer)
		link = link?.close()
	}

	const open = () => {
		drop()
		opened = 0
		heard = now()
		heartbeat = 5
		streams = failures % 3 > 1 && EventSource // WebSockets seem to be blocked
		const it = (link = streams
			? new EventSource(to(), { withCredentials: true })
			: new WebSocket(to(), "broadcast.v1"))
		it.onmessage = e => it == link && receive(JSON.parse(e.data))
		it.onerror = it.onclose = () => it == link && again()
		become("connecting")
	}

	// again comes back: at once, then after times that grow, and that no two clients share.
	const again = () => {
		drop()
		if (!opened) failures++
		else if (now() - opened > 1e4) tries = 0
		waiting.forEach(act => act())
		timer = setTimeout(open, tries++ && Math.random() * Math.min(3e4, 250 * 2 ** tries))
		become("waiting")
	}

	// watch gives up a link that is silent, as after a sleep. An event says that one may come back now.
	const watch = event => {
		if (link) now() - heard > heartbeat * 2e3 && again()
		else if (event) open()
	}

	const receive = frame => {
		heard = now()
		for (const m of frame) {
			if (m.id) {
				hub.lastId = m.id
				for (const [event, fn, channel] of listeners)
					if ((event == "*" || event == (m.event ?? "message")) && (channel ?? m.channel) == m.channel)
						try {
							fn(m.data, m)
						} catch (e) {
							Promise.reject(e) // the console's, not the other listeners'
						}
			} else if (m.hello) {
				;({ id: hub.lastId, heartbeat } = m.hello)
				opened = now()
				if (!streams) failures = -6 // they are not
				waiting.forEach(act => act(null, m.hello.channels))
				become("open")
			} else if (m.gap) hub.ongap?.(m.gap)
			else {
				const answer = m.ack ?? m.error
				if (answer.channel) hub.lastId = answer.id // a join's is a position
				const act = waiting.get(answer.ref)
				if (act) act(answer)
				else if (m.error) hub.onerror?.(answer)
			}
		}
	}

	// A request is a function: called with its answer it ends, as by a hello that says all that it asks, or when its time
	// is over; else it goes out, if there is a link.
	const ask = (request, channel) =>
		new Promise((resolve, reject) => {
			const ref = Math.random()
			const body = JSON.stringify({ ...request, ref })
			const until = now() + 1e5 // after 2 minutes the server forgets the key, and would publish again
			const act = (answer, channels) => {
				if (channels && !request.publish) answer = { code: request.join && !channels.includes(channel) && "forbidden" }
				answer ??= now() > until && { code: "timeout" }
				if (answer) {
					waiting.delete(ref)
					if (answer.code) {
						joined.delete(channel)
						reject(Object.assign(Error(), answer))
					} else resolve(answer.id)
				} else if (link)
					if (!streams) link.send(body)
					else if (request.publish)
						posts = posts
							.then(() => fetch(to(), { method: "POST", body, credentials: "include" }))
							.then(r => r.json())
							.then(receive, () => link && again())
					else open() // with the channels that it is to have
			}
			waiting.set(ref, act)
			if (waiting.size > 1e3 || hub.state == "closed") act({ code: hub.state })
			else if (opened) act()
		})

	const hub = {
		lastId,
		on(event, fn, channel) {
			const listener = [event, fn, channel]
			listeners.add(listener)
			return () => listeners.delete(listener)
		},
		frame(fn, { event = "*", channel, key = m => m.id, limit = 1e4 } = {}) {
			const queue = new Map()
			let dropped = 0
			let due
			const flush = () => {
				const messages = [...queue.values()]
				due = queue.clear()
				if (messages[0]) fn(messages, dropped)
				dropped = 0
			}
			const off = hub.on(event, (_, m) => {
				const k = key(m)
				queue.delete(k)
				queue.set(k, m)
				if (queue.size > limit) dropped += queue.delete(queue.keys().next().value)
				due ||= nextFrame(flush, 16)
			}, channel)
			return () => off(queue.clear())
		},
		publish: (data, { event, channel, key = Math.random() + "" } = {}) => ask({ publish: { channel, event, data, key } }),
		join: channel => ask({ join: { channel } }, channel, joined.add(channel)),
		leave: channel => ask({ leave: { channel } }, joined.delete(channel)),
		close() {
			stop.abort()
			clearInterval(watching)
			drop()
			become("closed")
			waiting.forEach(act => act({ code: hub.state }))
		},
	}
	const watching = setInterval(watch, 5e3)
	for (const e of ["online", "visibilitychange"]) addEventListener?.(e, watch, stop)
	open()
	return hub
}

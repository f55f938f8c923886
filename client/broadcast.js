// The browser's half of caddy-broadcast: one connection that comes back and resumes, with messages by event, by
// channel, or once an animation frame. No dependencies; what each part does is said in broadcast.d.ts.

export function connect(url, { lastId = "" } = {}) {
	const listeners = new Set()
	const waiting = new Map() // requests without an answer, by ref, in their order
	const { addEventListener, removeEventListener, EventSource, location, navigator, requestAnimationFrame: nextFrame = setTimeout } = globalThis
	const address = new URL((url + "").replace(/^ws/, "http"), location)
	const joined = new Set()

	let link // the WebSocket or EventSource, while there is one
	let streams // whether it is, or was, an EventSource
	let asked // the requests, by ref, that its hello answers: those that it was opened with
	let tries = 0
	let opened // whether it got its hello
	let silent // when the link is too silent, if nothing comes
	let heartbeat // in seconds
	let timer // of the next look at the link, or the next try: none while the client is closed or refused
	let posts // the last of the requests that are posted one after the other
	let answered = 0 // the route's last answer over HTTP, as long as links get no hello

	// failure describes an HTTP status or a close code. 401, 403, 404 and 4400 to 4499 keep the client out.
	const failure = (status, message, code = /^44|40[134]/.test(status) ? "forbidden" : "error") =>
		({ code, status, message: message || code })

	const to = () => {
		const u = new URL(address)
		u.searchParams.set("protocol", "broadcast.v1")
		u.searchParams.set("last_id", hub.lastId)
		for (const channel of joined) u.searchParams.append("join", channel)
		return u
	}

	// request sends a request over HTTP: a POST with a body, or a GET, which only asks whether the route lets the client
	// in. It throws a failure if that is the answer. The first line of the body says why, unless it is HTML.
	const request = async body => {
		const r = await fetch(to(), { credentials: "include", body, method: body && "POST" })
		if (r.ok) return r
		throw failure(r.status, (await r.text()).replace(/[<\n].*/s, ""))
	}

	const drop = () => {
		clearTimeout(timer)
		link = timer = opened = link?.close() // undefined
	}

	const open = () => {
		drop()
		events(addEventListener)
		silent = Date.now() + 1e4
		asked = new Map(waiting)
		streams = !streams && answered.ok && EventSource // the route lets the client in, but no WebSocket got through
		link = streams
			? new streams(to(), { withCredentials: true })
			: new WebSocket(to(), "broadcast.v1")
		const it = link
		it.onmessage = e => it == link && receive(JSON.parse(e.data))
		it.onerror = it.onclose = e => it == link && again(e)
		watch()
		become("connecting")
	}

	// again tries once more: immediately, then after random delays that grow. A browser does not tell why a WebSocket
	// failed, so the client asks over HTTP. The answer counts when the next link fails too, because the link that failed
	// before it may have had another reason, such as a server that was just starting.
	const again = e => {
		if (opened) answered = 0
		else request().catch(error => error).then(r => (answered = r))
		drop()
		const error = /^44|1009/.test(e?.code) ? failure(e.code, e.reason) : answered
		const refused = error.code == "forbidden"
		// After 1009 one of the requests was too long. The server has read nothing behind it, and answered what was before it.
		waiting.forEach(act => act((refused || error.status == 1009) && error))
		if (!refused) timer = setTimeout(watch, tries++ && Math.random() * 250 * 2 ** Math.min(7, tries))
		become(refused ? "refused" : navigator?.onLine == false ? "offline" : "waiting")
		if (error.code) hub.onerror?.(error)
	}

	const become = state => {
		hub.state = state
		hub.onstate?.(state)
	}

	// watch looks after the link: every 5 seconds, and on each event of the browser. It gives up a link that is silent, as
	// after a sleep, or when the browser is offline. Without a link it tries the next.
	const watch = event => {
		if (!link) timer && open()
		else if ((event && navigator?.onLine == false) || Date.now() > silent) again()
		else if (!event) {
			if (opened) tries = 0
			timer = setTimeout(watch, 5e3)
		}
	}

	// events adds or removes watch as a listener. Adding it twice does nothing.
	const events = act => ["offline", "online", "visibilitychange"].forEach(e => act?.(e, watch))

	const receive = frame => {
		for (const m of frame) {
			if (m.id) {
				hub.lastId = m.id
				listeners.forEach(async listener => listener(m)) // async: an exception goes to the console, not to the next listener
			} else if (m.hello) {
				hub.lastId = m.hello.id
				heartbeat = m.hello.heartbeat
				opened = true
				waiting.forEach((act, ref) => act(null, asked.has(ref) && m.hello.channels))
				if (opened) become("open")
			} else if (m.gap) hub.ongap?.(m.gap)
			else {
				const answer = m.ack ?? m.error
				if (answer.channel) hub.lastId = answer.id // a join's is a position
				const act = waiting.get(answer.ref) ?? (answer.code && hub.onerror)
				act?.(answer)
			}
		}
		silent = Date.now() + heartbeat * 2e3
	}

	// ask makes a request, which waits as a function. Called with its answer, or with the channels of a hello that answers
	// it, it settles the promise; else it sends the request if there is a link, or ends it when its time is over.
	const ask = (wanted, channel) =>
		new Promise((resolve, reject) => {
			const ref = (wanted.ref = Math.random())
			const body = JSON.stringify(wanted)
			const until = Date.now() + 1e5 // after 2 minutes the server forgets the key, and would publish again

			// post repeats the request until it is answered. The following ones wait for it, so that they stay in order.
			const post = async others => {
				await others
				while (waiting.has(ref))
					try {
						receive(await (await request(body)).json())
					} catch (error) {
						act(error.status < 500 && error) || (await new Promise(r => setTimeout(r, 1e3)))
					}
			}

			const act = (answer, channels) => {
				if (channels && !wanted.publish) answer = { code: wanted.join && !channels.includes(channel) && "forbidden" }
				answer ||= Date.now() > until && { code: "timeout" }
				if (answer) {
					if (answer.code) {
						joined.delete(channel)
						reject(Object.assign(Error(answer.message ?? answer.code), answer))
					}
					resolve(answer.id)
					return waiting.delete(ref)
				}
				if (opened)
					if (!streams) link.send(body)
					else if (!wanted.publish) open() // with the channels that it is to have
					else posts = post(posts)
			}
			waiting.set(ref, act)
			act((!timer || waiting.size > 1e3) && { code: hub.state })
		})

	const hub = {
		lastId,
		on(event, fn, channel) {
			const listener = m =>
				["*", m.event ?? "message"].includes(event) && (channel ?? m.channel) == m.channel && fn(m.data, m)
			listeners.add(listener)
			return () => listeners.delete(listener)
		},
		frame(fn, { event = "*", channel, key = m => m.id, limit = 1e4 } = {}) {
			const queue = new Map()
			let due
			let dropped = 0
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
		publish: (data, options) => ask({ publish: { key: Math.random() + "", ...options, data } }),
		join: channel => ask({ join: { channel } }, channel, joined.add(channel)),
		leave: channel => ask({ leave: { channel } }, joined.delete(channel)),
		reconnect: () => open((answered = 0)),
		close() {
			events(removeEventListener)
			drop()
			become("closed")
			waiting.forEach(act => act({ code: hub.state }))
		},
	}
	open()
	return hub
}

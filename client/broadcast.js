// The browser's half of caddy-broadcast: one connection that reconnects and resumes on its own, with messages by event,
// by channel, or once per animation frame. It has no dependencies. broadcast.d.ts documents what each part does.
//
// Every page loads this file, so it is written to be read here and minified to broadcast.min.js (go generate ./client).
// A test limits the minified size.

// Times are in milliseconds.
const WATCH_INTERVAL = 5000 // between two looks at the link
const HELLO_TIMEOUT = 10_000 // from opening a link to its hello
const SILENT_HEARTBEATS = 2 // a link without a frame for this many heartbeats is given up
const RETRY_DELAY = 250 // doubled with each failure in a row, times a random number from 0 to 1
const MAX_DOUBLINGS = 7 // so the delay is at most 32 seconds
const POST_DELAY = 1000 // before a POST that failed is repeated
const EXPIRY_MARGIN = 30 // seconds before access ends, and up to as many more, so that not all pages ask at once
const FRAME_DELAY = 16 // in place of an animation frame where there are none, as in Node

// The server forgets an idempotency key after two minutes. A publish repeated after that would be published twice, so a
// request ends well before.
const REQUEST_TIMEOUT = 100_000
const MAX_WAITING = 1000 // requests

export function connect(url, { lastId = "", WebSocket: Socket = WebSocket } = {}) {
	// All of these may be missing outside a page: in a worker, or in Node.
	const {
		addEventListener,
		removeEventListener,
		EventSource,
		location,
		navigator,
		requestAnimationFrame: nextFrame = setTimeout,
	} = globalThis
	const toAddress = url => new URL((url + "").replace(/^ws/, "http"), location)
	let address = toAddress(url)

	const listeners = new Set()
	const joined = new Set() // the channels that the client has joined
	const waiting = new Map() // requests without an answer, by ref, in the order in which they were made

	let link // the WebSocket or EventSource, while there is one
	let Stream // EventSource if the link is one, or the last one was; otherwise falsy
	let granted // the channels in the link's hello. The link is open once it has them
	let heartbeat // in seconds, from the last hello
	let expiresAt // when the page is asked for new access, or NaN
	let renewed // whether it was asked because of a 401, and there was no hello since
	let silentAt // when the link counts as silent, if no frame arrives until then
	let timer // for the next look at the link, or the next attempt; undefined while the client is closed or refused
	let failures = 0 // in a row
	let probed = {} // the outcome of the last probe: a Response or an error. It is empty after a link that got its hello
	let lastPost // POSTs are sent one after another; this is the promise of the last one

	const setState = state => {
		hub.state = state
		hub.onstate?.(state)
	}

	// toFailure describes an HTTP status or a close code. A client that gets one that is forbidden stays away, because it
	// would get it again.
	const toFailure = (status, message) => {
		const code = /^44|40[134]/.test(status) ? "forbidden" : "error"
		return { code, status, message: message || code }
	}

	const linkAddress = () => {
		const u = new URL(address)
		u.searchParams.set("protocol", "broadcast.v1")
		u.searchParams.set("last_id", hub.lastId)
		joined.forEach(channel => u.searchParams.append("join", channel))
		return u
	}

	// requestHTTP sends an HTTP request: a POST if there is a body, else a GET, which only asks whether the route lets the
	// client in. It throws a failure unless the status is 2xx. The first line of the response says why, unless it is HTML.
	const requestHTTP = async body => {
		const response = await fetch(linkAddress(), { credentials: "include", body, method: body && "POST" })
		if (response.ok) return response
		throw toFailure(response.status, (await response.text()).replace(/[<\n].*/s, ""))
	}

	// closeLink forgets the link before it closes it, because Node's WebSocket calls onerror from within close.
	const closeLink = () => {
		timer = granted = clearTimeout(timer)
		link?.close((link = undefined))
	}

	const openLink = () => {
		closeLink()
		eachBrowserEvent(addEventListener)
		silentAt = Date.now() + HELLO_TIMEOUT
		// If the route lets the client in but the last WebSocket failed, something on the way blocks WebSockets.
		Stream = !Stream && probed.ok && EventSource
		const newLink = (link = Stream
			? new Stream(linkAddress(), { withCredentials: true })
			: new Socket(linkAddress(), "broadcast.v1"))
		// A link that was given up may still have events in the browser's queue. They are ignored.
		newLink.onmessage = event => {
			if (newLink == link) receive(JSON.parse(event.data))
		}
		newLink.onerror = newLink.onclose = event => {
			if (newLink == link) retry(event)
		}
		watch()
		setState("connecting")
	}

	// retry gives up the link and schedules the next attempt: immediately the first time, then after random delays that
	// grow.
	//
	// Browsers do not tell pages why a WebSocket failed, so a probe asks over HTTP. Its outcome counts when the next link
	// fails too, because the one that failed before it may have had another reason, such as a server that was just starting.
	const retry = event => {
		const before = probed
		if (granted) probed = {}
		else {
			// An answer that is late counts no more if reconnect was called since.
			requestHTTP().catch(error => error).then(outcome => before == probed && (probed = outcome))
		}
		const error = /^44|1009/.test(event?.code) ? toFailure(event.code, event.reason) : probed
		closeLink()
		const isExpired = !renewed && /401$/.test(error.status) && hub.onexpire
		const isForbidden = error.code == "forbidden" && !isExpired
		// After 1009, one of the requests was too long. The server has answered those before it and read none after it.
		// Otherwise send, as there is no link now, only ends requests after their deadline.
		waiting.forEach(request => (isForbidden || error.status == 1009 ? request.end(error) : request.send()))
		if (isForbidden) setState("refused")
		else {
			const delay = failures++ && Math.random() * RETRY_DELAY * 2 ** Math.min(MAX_DOUBLINGS, failures)
			timer = setTimeout(watch, isExpired ? REQUEST_TIMEOUT : delay)
			setState(navigator?.onLine == false ? "offline" : "waiting")
		}
		if (isExpired) {
			renewed = true
			eachBrowserEvent(removeEventListener) // or an attempt with the old access would be the last one
			renew()
		} else if (error.code) hub.onerror?.(error)
	}

	// renew has the page get new access, and connects with it. Until then a link stays open. If the page fails, the server decides.
	const renew = async () => {
		expiresAt = NaN
		try {
			address = toAddress((await hub.onexpire()) || address)
		} catch (error) {
			hub.onerror?.(toFailure(0, error.message))
			if (link) return
		}
		if (timer) openLink() // or the client was closed, or refused, as by a kick
	}

	// watch runs every few seconds, and on each event of the browser. It gives up a link that is silent, as after the
	// computer slept, or when the browser goes offline. Without a link it makes the next attempt.
	const watch = event => {
		if (!link) {
			if (timer) openLink()
		} else if ((event && navigator?.onLine == false) || Date.now() > silentAt) {
			retry()
		} else {
			if (Date.now() > expiresAt && hub.onexpire) renew()
			if (event) return
			// A link counts as good when it has lasted until here. One that breaks right after its hello is a failure.
			if (granted) failures = 0
			timer = setTimeout(watch, WATCH_INTERVAL)
		}
	}

	// eachBrowserEvent adds or removes watch as a listener. Adding it twice does nothing.
	const eachBrowserEvent = addOrRemove => {
		addOrRemove?.("offline", watch)
		addOrRemove?.("online", watch)
		addOrRemove?.("visibilitychange", watch)
	}

	const receive = frame => {
		frame.forEach(entry => {
			if (entry.id) {
				hub.lastId = entry.id
				// The function is async so that an exception in a listener goes to the console, not to the next listener.
				listeners.forEach(async listener => listener(entry))
			} else if (entry.hello) receiveHello(entry.hello)
			else if (entry.gap) hub.ongap?.(entry.gap)
			else if (entry.close) retry(entry.close)
			else if (entry.subscribed) {
				// By the backend. The next link asks for the channel again, from here on.
				joined.add(entry.subscribed.channel)
				hub.lastId = entry.subscribed.id
			} else if (entry.unsubscribed) joined.delete(entry.unsubscribed.channel)
			else receiveAnswer(entry.ack ?? entry.error ?? {}) // of a newer server, it may be something else
			hub.onentry?.(entry)
		})
		silentAt = Date.now() + 1000 * SILENT_HEARTBEATS * heartbeat
	}

	const receiveHello = hello => {
		granted = hello.channels
		heartbeat = hello.heartbeat
		renewed = false
		expiresAt = Date.now() + 1000 * Math.max(hello.expires / 2, hello.expires - EXPIRY_MARGIN * (1 + Math.random()))
		hub.lastId = hello.id
		waiting.forEach(request => request.send())
		if (granted) setState("open") // not if a join needed another link
	}

	const receiveAnswer = answer => {
		if (answer.channel) hub.lastId = answer.id // the answer to a join: its ID is a position
		const request = waiting.get(answer.ref)
		if (request) request.end(answer)
		else if (answer.code) hub.onerror?.(answer)
	}

	// ask makes a request, and returns a promise of the answer's ID. A join or leave also passes its channel. The request
	// waits until it ends.
	const ask = (content, channel) =>
		new Promise((resolve, reject) => {
			const ref = Math.random()
			const body = JSON.stringify({ ...content, ref })
			const deadline = Date.now() + REQUEST_TIMEOUT
			const firstLink = link // the address of each later link has the channels of a join, and not those of a leave

			// end ends the request, with the server's answer or with a failure, which has a code.
			const end = answer => {
				waiting.delete(ref)
				if (answer.code) {
					joined.delete(channel)
					reject(Object.assign(Error(answer.message ?? answer.code), answer))
				} else {
					if (content.leave) hub.onentry?.({ unsubscribed: content.leave }) // as if the backend had done it
					resolve(answer.id)
				}
			}

			// send sends the request if the link is open, and ends it after its deadline. A join or leave needs no sending if
			// the link's address already carried it out: then the channels that the link was granted are the answer.
			const send = () => {
				if (granted && link != firstLink && !content.publish)
					end({ code: content.join && !granted.includes(channel) && "forbidden" })
				else if (Date.now() > deadline) end({ code: "timeout" })
				else if (granted) {
					if (!Stream) link.send(body)
					else if (content.publish) lastPost = post(lastPost)
					else openLink() // a stream subscribes to the channels in its address
				}
			}

			// post repeats the request until it ends. The next one waits for it, so that they stay in order.
			const post = async previous => {
				await previous
				while (waiting.has(ref)) {
					try {
						receive(await (await requestHTTP(body)).json())
					} catch (error) {
						if (error.status < 500) end(error)
						else if (Date.now() > deadline) end({ code: "timeout" })
						else await new Promise(done => setTimeout(done, POST_DELAY))
					}
				}
			}

			waiting.set(ref, { send, end })
			if (!timer || waiting.size > MAX_WAITING) end({ code: hub.state })
			else send()
		})

	const hub = {
		lastId,
		on(event, fn, channel) {
			const listener = message => {
				if (event != "*" && event != (message.event ?? "message")) return
				if (channel && channel != message.channel) return
				fn(message.data, message)
			}
			listeners.add(listener)
			return () => listeners.delete(listener)
		},
		frame(fn, { event = "*", channel, key = message => message.id, limit = 10_000 } = {}) {
			const queue = new Map() // the latest message of each key, in order
			let dropped = 0
			let scheduled // the ID of the frame in which flush will run, or 0

			const flush = () => {
				const messages = [...queue.values()]
				queue.clear()
				scheduled = 0
				if (messages[0]) fn(messages, dropped)
				dropped = 0
			}
			const off = hub.on(
				event,
				(_, message) => {
					const k = key(message)
					queue.delete(k) // so that it moves to the end
					if (queue.set(k, message).size > limit) {
						queue.delete(queue.keys().next().value) // the oldest
						dropped++
					}
					scheduled ||= nextFrame(flush, FRAME_DELAY)
				},
				channel,
			)
			return () => {
				queue.clear()
				off()
			}
		},
		publish: (data, options) => ask({ publish: { key: Math.random() + "", ...options, data } }),
		join: channel => {
			joined.add(channel)
			return ask({ join: { channel } }, channel)
		},
		leave: channel => {
			joined.delete(channel)
			return ask({ leave: { channel } }, channel)
		},
		reconnect() {
			probed = {} // the user may have logged in since
			openLink()
		},
		close() {
			eachBrowserEvent(removeEventListener)
			closeLink()
			setState("closed")
			waiting.forEach(request => request.end({ code: hub.state }))
		},
	}
	openLink()
	return hub
}

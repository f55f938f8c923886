// The messages: live, or the history of a channel in their place.
import { connect } from "./broadcast.js"
import { api, report } from "./api.js"
import { line, moveIn } from "./message.js"
import { $, make, number, set } from "./page.js"

const most = 500 // that are shown
let live = []
let past = null // the history, while it is shown in place of live messages
let waiting = null // while paused
let skipped = 0

const passes = l => l.channel.startsWith($("tail-channel").value) && l.text.includes($("tail-text").value.toLowerCase())

const add = messages => {
	const lines = messages.slice(-most).map(line)
	if (waiting) {
		skipped += lines.length
		waiting = [...waiting, ...lines].slice(-most)
		set($("pause"), `Resume (${number(skipped)})`)
		return
	}
	const box = $("tail")
	const follow = box.scrollHeight - box.scrollTop - box.clientHeight < 40
	live.push(...lines)
	for (const l of lines) {
		l.e.hidden = !passes(l)
		box.append(l.e)
	}
	for (const l of live.splice(0, live.length - most)) l.e.remove()
	if (follow) box.scrollTop = box.scrollHeight
}

const filter = () => {
	for (const l of past ?? live) l.e.hidden = !passes(l)
	$("tail").scrollTop = $("tail").scrollHeight
}
$("tail-text").oninput = filter
$("tail-channel").oninput = () => {
	$("history").disabled = !$("tail-channel").value
	filter()
}

const pause = () => {
	if (waiting) return
	waiting = []
	skipped = 0
	set($("pause"), "Resume")
}
$("pause").onclick = () => {
	if (!waiting) return pause()
	live = [...live, ...waiting].slice(-most)
	waiting = past = null
	$("tail").replaceChildren(...live.map(l => l.e))
	set($("h-tail"), "Live")
	set($("pause"), "Pause")
	filter()
}

// showHistory shows the newest kept messages of a channel, until Resume. A page of the API is limited in bytes too, and goes on.
const showHistory = async limit => {
	const channel = $("tail-channel").value
	const messages = []
	try {
		for (let more = true; more && messages.length < limit; ) {
			const from = messages.length ? { after: messages.at(-1).id } : { last: "" }
			const got = await api(`/channels/${encodeURIComponent(channel)}/messages?` + new URLSearchParams({ ...from, limit: limit - messages.length }))
			messages.push(...got.answer)
			more = got.more
		}
	} catch (e) {
		messages.push({ note: e.message })
	}
	pause()
	past = messages.map(line)
	const older = make("button", { class: "more" }, "Older messages")
	older.hidden = messages.length < limit || limit == 1000
	older.onclick = () => showHistory(limit + 100)
	$("tail").replaceChildren(older, ...past.map(l => l.e))
	set($("h-tail"), "History")
	filter()
}
$("history").onclick = () => showHistory(100)

// A message that somebody reads must not scroll away, so live messages wait while there is one that is moved to or unfolded.
moveIn($("tail"), pause)

// The admin endpoint has no WebSockets, only an event stream of the same protocol, and the client tries WebSockets first.
// So it is given an EventSource under that name. It still reconnects, notices silence, and delivers once per frame.
globalThis.WebSocket = class extends EventSource {
	constructor(url) {
		super(url)
	}
}
const hub = connect(new URL("../stream", location))
hub.frame((messages, dropped) => {
	add(dropped ? [{ note: `${number(dropped)} more messages are not shown` }, ...messages] : messages)
}, { limit: most })
hub.ongap = gap => add([{ note: `Messages of ${gap.channels.join(", ")} are missing here` }])
let opened
hub.onstate = state => {
	if (state == "open") {
		if (opened) add([{ note: "The connection was interrupted. Messages published meanwhile are missing." }])
		opened = true
		report({ refusal: "" })
	}
	report({ live: state })
}
hub.onerror = error => report({ refusal: error.message })
// The client waits longer after each failure, up to half a minute, and after some for good.
addEventListener("back", () => hub.state != "open" && hub.reconnect())

let received = 0
hub.on("*", () => received++)

// seen returns how many messages this page has received.
export const seen = () => received

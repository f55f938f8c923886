// The inspector shows what the admin API reports. Texts from clients are only ever set as text, never as HTML.
import { connect } from "./broadcast.js"

const $ = id => document.getElementById(id)
const make = (tag, attributes = {}, ...children) => {
	const e = tag == "svg" || tag == "path" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag)
	for (const name in attributes) e.setAttribute(name, attributes[name])
	e.append(...children)
	return e
}
const set = (e, text) => e.textContent != text && (e.textContent = text)
const number = n => n.toLocaleString("en", { maximumFractionDigits: n < 10 ? 1 : 0 })
const scaled = (n, units, by) => {
	let i = 0
	for (; n >= by && i < units.length - 1; i++) n /= by
	return number(n) + units[i]
}
const count = n => n < 1e5 ? number(n) : scaled(n / 1e3, ["k", "M", "G"], 1e3)
const bytes = n => scaled(n, [" B", " KiB", " MiB", " GiB"], 1024)
const age = s => s < 60 ? `${s | 0} s` : s < 3600 ? `${s / 60 | 0} min` : s < 86400 ? `${s / 3600 | 0} h ${s / 60 % 60 | 0} min` : `${s / 86400 | 0} d ${s / 3600 % 24 | 0} h`

let admin = new URL("../../", location).href // the address of the API for programs outside this page
const api = async (path, options) => {
	const r = await fetch("../../broadcast" + path, { cache: "no-store", ...options })
	const answer = await r.json()
	const at = r.headers.get("Broadcast-Admin") // set by `caddy broadcast ui`, whose own address is gone when the command ends
	if (at && at != admin) {
		admin = at
		write()
	}
	if (!r.ok) throw Error(answer.error)
	return { answer, more: r.headers.has("Link"), missing: r.headers.get("Broadcast-Missing") ?? "" }
}

// every calls f repeatedly, with pauses of at least ms and at least times as long as f took, to spare a busy hub. A
// hidden page asks for nothing. It returns a function that calls f now.
const every = (ms, times, f) => {
	let timer
	const now = async () => {
		if (document.hidden) return
		const began = performance.now()
		await f()
		clearTimeout(timer)
		timer = setTimeout(now, Math.max(ms, times * (performance.now() - began)))
	}
	document.addEventListener("visibilitychange", now)
	now()
	return now
}

// Totals

const samples = 120
const plots = [
	["Connections", count, t => t.connections],
	["Messages/s", count, (t, rate) => rate("messages")],
	["Deliveries/s", count, (t, rate) => rate("deliveries")],
	["Backlog", bytes, t => t.backlog],
].map(([name, format, value]) => {
	const now = make("dd", {}, "–")
	const peak = make("dd", { class: "peak" })
	const area = make("path", { class: "area" })
	const curve = make("path", { class: "curve" })
	const svg = make("svg", { viewBox: `0 0 ${samples - 1} 30`, preserveAspectRatio: "none", "aria-hidden": true }, area, curve)
	$("totals").append(make("div", {}, make("dt", {}, name), now, peak, make("dd", { class: "plot" }, svg)))
	const values = []
	return {
		clear: () => values.length = 0,
		draw(t, rate) {
			values.push(value(t, rate))
			if (values.length > samples) values.shift()
			const top = Math.max(...values)
			const at = (v, i) => `${samples - values.length + i} ${(29 - 27 * v / (top || 1)).toFixed(1)}`
			const line = values.map(at).join("L")
			curve.setAttribute("d", "M" + line)
			area.setAttribute("d", `M${samples - values.length} 30L${line}L${samples - 1} 30Z`)
			set(now, format(values.at(-1)))
			set(peak, "peak " + format(top))
		},
	}
})

let reached = ""
let missing = "" // nodes that have not answered, escaped as in a query
let before
every(1e3, 0, async () => {
	try {
		const { answer: t } = await api("")
		reached = ""
		if (before?.uptime > t.uptime) {
			before = null // the hub was restarted
			for (const p of plots) p.clear()
		}
		const rate = name => before ? (t[name] - before[name]) / (t.uptime - before.uptime || 1) : 0
		for (const p of plots) p.draw(t, rate)
		before = t
		const b = t.broker
		const shared = b ? ` · node ${b.node}, broker ${b.up ? "up" : "down " + (b.problem ?? "")}` : ""
		const nodes = t.nodes ?? []
		set($("nodes"), nodes.length > 1 ? nodes.map(n => `${n.name || n.id} ${n.version}: ${n.away ? "away" : count(n.connections)}${n.away || n.epoch == nodes[0].epoch ? "" : " (in another log)"}`).join(" · ") : "")
		set($("facts"), `up ${age(t.uptime)} · ${count(t.messages)} messages · ${bytes(t.delivered_bytes)} delivered · ${count(t.history)} in history${shared}`)
	} catch (e) {
		reached = e.message
	}
	status()
})

// Lists

// list keeps a table in step with one of the API. An item keeps its row's element, and so focus and selection.
const list = (name, query, key, row) => {
	const table = $(name)
	const body = table.tBodies[0]
	const more = table.parentNode.querySelector(".more")
	const rows = new Map()
	let limit = 100
	let asked = 0
	const load = every(2e3, 9, async () => {
		const mine = ++asked
		const got = await api(`/${name}?` + new URLSearchParams({ ...query(), limit })).catch(() => {})
		if (!got || mine != asked) return // the totals show the error; or the filter was changed meanwhile
		const keys = new Set(got.answer.map(key))
		for (const [k, r] of rows) {
			if (keys.has(k)) continue
			r.tr.remove()
			r.option?.remove()
			rows.delete(k)
		}
		got.answer.forEach((item, i) => {
			const k = key(item)
			if (!rows.has(k)) rows.set(k, row(item))
			const { tr, cells, show } = rows.get(k)
			show(item).forEach((text, i) => {
				set(cells[i], text)
				cells[i].title = text
			})
			if (body.children[i] != tr) body.insertBefore(tr, body.children[i] ?? null)
		})
		more.hidden = !got.more
		if (missing != got.missing) {
			missing = got.missing
			status()
		}
	})
	more.onclick = () => {
		limit += 100
		load()
	}
	return load
}

const cellsOf = (n, numbers) => Array.from({ length: n }, (_, i) => make(i ? "td" : "th", i ? numbers.includes(i) ? { class: "n" } : {} : { scope: "row" }))

const loadChannels = list("channels", () => ({ prefix: $("prefix").value }), c => c.channel, c => {
	const cells = cellsOf(3, [1, 2])
	const pick = make("button")
	const tr = make("tr", {}, ...cells)
	cells[0].append(pick)
	cells[0] = pick
	pick.onclick = () => {
		const on = $("of-channel").value != c.channel
		for (const id of ["of-channel", "tail-channel"]) {
			$(id).value = on ? c.channel : ""
			$(id).dispatchEvent(new Event("input"))
		}
		if (on) $("channel").value = c.channel
		write()
	}
	const option = make("option", { value: c.channel })
	$("names").append(option)
	return {
		tr, cells, option,
		show: c => {
			pick.setAttribute("aria-pressed", $("of-channel").value == c.channel)
			return [c.channel, number(c.subscribers), number(c.history)]
		},
	}
})
$("prefix").oninput = loadChannels

const seconds = (from, to) => (new Date(to) - new Date(from)) / 1e3
const since = c => age(seconds(c.since, Date.now())) + (c.expires ? `, expires in ${age(Math.max(0, seconds(Date.now(), c.expires)))}` : "")

const loadConnections = list("connections", () => ({ channel: $("of-channel").value, user: $("of-user").value }), c => c.id, c => {
	const more = c.node ? 1 : 0
	const cells = cellsOf(8 + more, [5 + more, 6 + more, 7 + more])
	$("node").hidden = !more
	const close = make("button", { class: "danger", "aria-label": "Close " + c.id }, "Close")
	close.onclick = () => ask(c)
	return {
		tr: make("tr", {}, ...cells, make("td", { class: "n" }, close)),
		cells,
		show: c => [c.id, ...(more ? [c.node] : []), c.user ?? "", c.remote, c.transport, c.channels.join(", "), since(c), bytes(c.sent), bytes(c.backlog)],
	}
})
$("of-user").oninput = loadConnections

// The presence of the channel whose connections are listed. Of a channel that does not exist the API has only a 404, which the
// browser would log, so the list is asked first: a name comes before those that begin with it.
const loadPresent = every(2e3, 9, async () => {
	const channel = $("of-channel").value
	let p
	if (channel) {
		const at = async path => (await api("/channels" + path)).answer
		const found = await at("?" + new URLSearchParams({ prefix: channel, limit: 1 })).catch(() => [])
		if (found[0]?.channel == channel) p = (await at("/" + encodeURIComponent(channel)).catch(() => {}))?.presence
		if (channel != $("of-channel").value) return
	}
	const members = (p?.members ?? []).map(m => m.user + (m.data === undefined ? "" : " " + JSON.stringify(m.data))).join(", ")
	set($("present"), p ? `${number(p.count)} present${members && ": "}${members.length > 600 ? members.slice(0, 600) + "…" : members}` : "")
})
$("of-channel").oninput = () => {
	loadPresent()
	loadConnections()
	loadChannels()
}

let closing // the connection that the dialog asks about
const ask = c => {
	closing = c
	set($("question"), `Close ${c.id}?`)
	set($("whose"), `${c.user ? `User ${c.user}` : "No user"}, from ${c.remote}, over ${c.transport}, on ${c.channels.join(", ")}`)
	$("confirm").showModal()
}
$("keep").onclick = () => $("confirm").close()
$("close").onclick = async () => {
	const failed = await api("/connections/" + closing.id, { method: "DELETE" }).then(r => r.answer.missing?.length && "No answer yet from " + r.answer.missing, e => e.message)
	if (failed) return set($("whose"), failed)
	$("confirm").close()
	const button = document.activeElement
	await loadConnections()
	if (!button.isConnected) ($("connections").querySelector("button") ?? $("of-user")).focus()
}

// Messages

const longest = 2000
let live = []
let past = null // the history, while it is shown in place of live messages
let waiting = null // while paused
let skipped = 0

const line = m => {
	const at = m.time ? new Date(m.time) : new Date()
	if (m.note) return { e: make("p", { class: "note" }, m.note), channel: "", text: m.note }
	let text = typeof m.data == "string" ? m.data : JSON.stringify(m.data)
	if (m.encoding) text = "base64 " + text
	if (text.length > longest) text = `${text.slice(0, longest)}… (${number(text.length)} characters)`
	const e = make("p", { title: `${m.id}, ${at.toLocaleString()}` }, ...[at.toTimeString().slice(0, 8), m.channel, m.event ?? "", text].map(s => make("span", {}, s)))
	return { e, channel: m.channel, text: `${m.event ?? ""} ${text}`.toLowerCase() }
}

const passes = l => l.channel.startsWith($("tail-channel").value) && l.text.includes($("tail-text").value.toLowerCase())

const add = messages => {
	const lines = messages.slice(-500).map(line)
	if (waiting) {
		skipped += lines.length
		waiting = [...waiting, ...lines].slice(-500)
		set($("pause"), `Resume (${number(skipped)})`)
		return
	}
	const box = $("tail")
	const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40
	live.push(...lines)
	for (const l of lines) {
		l.e.hidden = !passes(l)
		box.append(l.e)
	}
	for (const l of live.splice(0, live.length - 500)) l.e.remove()
	if (atEnd) box.scrollTop = box.scrollHeight
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

$("pause").onclick = () => {
	if (waiting) {
		live = [...live, ...waiting].slice(-500)
		waiting = past = null
		$("tail").replaceChildren(...live.map(l => l.e))
		set($("h-tail"), "Live")
		filter()
	} else waiting = []
	skipped = 0
	set($("pause"), waiting ? "Resume" : "Pause")
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
	if (!waiting) $("pause").onclick()
	past = messages.map(line)
	const older = make("button", { class: "more" }, "Older messages")
	older.hidden = messages.length < limit || limit == 1000
	older.onclick = () => showHistory(limit + 100)
	$("tail").replaceChildren(older, ...past.map(l => l.e))
	set($("h-tail"), "History")
	filter()
}
$("history").onclick = () => showHistory(100)

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
}, { limit: 500 })
hub.ongap = gap => add([{ note: `Messages of ${gap.channels.join(", ")} are missing here` }])
let opened
hub.onstate = state => {
	if (state == "open") {
		if (opened) add([{ note: "The connection was interrupted. Messages published meanwhile are missing." }])
		opened = true
	}
	status()
}
const status = () => {
	const open = hub.state == "open" && !reached
	set($("state"), reached || (open ? missing ? `live without ${missing}` : "live" : hub.state == "waiting" ? "reconnecting" : "connecting"))
	$("state").className = open ? "open" : ""
}

// Publishing

const kind = () => document.querySelector("[name=kind]:checked").value
const types = { text: "text/plain", json: "application/json" }
const say = (text, bad) => {
	set($("published"), text)
	$("published").title = text
	$("published").className = bad ? "bad" : ""
}

const request = () => {
	const query = new URLSearchParams({ channel: $("channel").value })
	if ($("event").value) query.set("event", $("event").value)
	return { path: "/publish?" + query, type: types[kind()], body: $("data").value.toWellFormed() }
}

// A JSON string is also a literal in JavaScript and in Python. Without <, it is also safe inside a script in HTML.
const quote = v => JSON.stringify(v).replaceAll("<", "\\u003c")
const shell = s => `'${s.replaceAll("'", `'\\''`)}'`

const languages = {
	curl: ({ url, type, body }) => `curl -H ${shell("Content-Type: " + type)} --data-raw ${shell(body)} ${shell(url)}`,
	js({ type, body }) {
		let data = quote(body)
		if (type == types.json) {
			const value = quote(JSON.parse(body))
			data = value.includes('"__proto__":') ? `JSON.parse(${data})` : value
		}
		const options = Object.entries({ channel: $("channel").value, event: $("event").value }).filter(([k, v]) => v && (k != "channel" || v != "default"))
		const more = options.length ? `, { ${options.map(([k, v]) => `${k}: ${quote(v)}`).join(", ")} }` : ""
		return `import { connect } from "/ws?client"\nconnect("/ws").publish(${data}${more})`
	},
	python: ({ url, type, body }) => `import urllib.request as u\nu.urlopen(u.Request(${quote(url)}, ${quote(body)}.encode(), {"Content-Type": ${quote(type)}}))`,
}

// write shows the form's request in each language.
const write = () => {
	const r = request()
	const url = new URL("broadcast" + r.path, admin).href
	let wrong = ""
	if (r.type == types.json)
		try {
			JSON.parse(r.body)
		} catch (e) {
			wrong = "This is not valid JSON: " + e.message
		}
	$("data").setCustomValidity(wrong)
	for (const name in languages) set($(name), wrong || languages[name]({ ...r, url }))
}
$("publish").oninput = write
write()

$("publish").onsubmit = async e => {
	e.preventDefault()
	const { path, type, body } = request()
	try {
		const { answer } = await api(path, { method: "POST", headers: { "Content-Type": type }, body })
		say(`${answer.id}, to ${number(answer.subscribers)} ${answer.subscribers == 1 ? "client" : "clients"}`)
	} catch (e) {
		say(e.message, true)
	}
	loadChannels()
}
$("data").onkeydown = e => {
	if (e.key == "Enter" && (e.ctrlKey || e.metaKey)) $("publish").requestSubmit()
}

const shown = () => $(document.querySelector("[name=language]:checked").value)
$("code").onchange = () => {
	for (const name in languages) $(name).hidden = $(name) != shown()
}
$("copy").onclick = async () => {
	try {
		await navigator.clipboard.writeText(shown().textContent)
		set($("copy"), "Copied")
	} catch { // no permission, or the page is neither on localhost nor served over TLS
		getSelection().selectAllChildren(shown())
		set($("copy"), "Selected")
	}
	setTimeout(() => set($("copy"), "Copy"), 2e3)
}

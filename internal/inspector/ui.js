// What comes from clients, names and messages, is set as text alone.
import { connect } from "./broadcast.js"

const $ = id => document.getElementById(id)
const api = "/broadcast"
const pageSize = 100
const tailSize = 500

const make = (tag, text, className) => {
	const e = document.createElement(tag)
	e.textContent = text ?? ""
	if (className) e.className = className
	return e
}
const number = n => (n < 1e4 ? Math.round(n * 10) / 10 : Math.round(n)).toLocaleString("en")
const bytes = n => n < 1024 ? n + " B" : n < 1 << 20 ? (n / 1024).toFixed(1) + " KiB" : (n / (1 << 20)).toFixed(1) + " MiB"
const span = s => s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : s < 129600 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " d"

async function ask(path, options) {
	const r = await fetch(api + path, options)
	const text = await r.text()
	if (!r.ok) {
		let message = r.statusText
		try { message = JSON.parse(text).error ?? message } catch { }
		throw Object.assign(Error(message), { status: r.status })
	}
	return { value: JSON.parse(text), more: r.headers.has("Link") }
}

// Totals, and their last two minutes.
const series = {}
let before
function total(name, value, shown) {
	const points = series[name] ??= []
	points.push(value)
	if (points.length > 120) points.shift()
	const top = Math.max(...points, 1e-9)
	const line = points.map((v, i) => `${120 - points.length + i + 1},${(30 - 27 * v / top).toFixed(1)}`).join(" ")
	const figure = document.querySelector(`[data-total=${name}]`)
	figure.querySelector("output").value = shown
	figure.querySelector("polyline").setAttribute("points", line)
	figure.querySelector("polygon").setAttribute("points", `${121 - points.length},32 ${line} 120,32`)
}

async function totals() {
	const { value: v } = await ask("")
	const at = performance.now()
	$("about").textContent = `up ${span(v.uptime)} · ${number(v.channels)} channels · ${number(v.messages)} messages · history ${bytes(v.history_bytes)}`
	total("connections", v.connections, number(v.connections))
	total("backlog", v.backlog, bytes(v.backlog))
	if (before && v.messages >= before.messages) {
		for (const name of ["messages", "deliveries"]) {
			const rate = (v[name] - before[name]) / (at - before.at) * 1000
			total(name, rate, number(rate))
		}
	}
	before = { ...v, at }
}

// table shows a list, and keeps the rows that stay, with the focus that may be in them.
function table(body, list, key, cells, none) {
	const rows = new Map([...body.rows].map(row => [row.dataset.key, row]))
	if (!list.length) {
		const td = make("td", none, "empty")
		td.colSpan = 9
		const row = document.createElement("tr")
		row.append(td)
		return body.replaceChildren(row)
	}
	rows.get(undefined)?.remove()
	let at = body.firstElementChild?.dataset.key === undefined ? null : body.firstElementChild
	for (const v of list) {
		let row = rows.get(v[key])
		if (!row) {
			row = document.createElement("tr")
			row.dataset.key = v[key]
			cells(v).forEach(([text, className]) => row.append(text instanceof Node ? text : make("td", text, className)))
		} else cells(v).forEach(([text], i) => text instanceof Node || row.cells[i].textContent === text || (row.cells[i].textContent = text))
		rows.delete(v[key])
		if (row === at) at = at.nextElementSibling
		else body.insertBefore(row, at)
	}
	for (const row of rows.values()) row.remove()
}

const limits = { channels: pageSize, connections: pageSize }
const moreOf = name => {
	$("more-" + name).onclick = () => { limits[name] += pageSize; refresh() }
	return more => $("more-" + name).hidden = !more
}
const moreChannels = moreOf("channels"), moreConnections = moreOf("connections")

async function channels() {
	const query = new URLSearchParams({ prefix: $("prefix").value, limit: Math.min(1000, limits.channels) })
	const { value, more } = await ask("/channels?" + query)
	table($("channels"), value, "channel", c => [
		[c.channel], [number(c.subscribers), "number"], [number(c.history), "number"], [c.last_id ?? ""],
	], "No channel has subscribers or history.")
	moreChannels(more)
}

async function connections() {
	const query = new URLSearchParams({ limit: Math.min(1000, limits.connections) })
	if ($("of-channel").value) query.set("channel", $("of-channel").value)
	if ($("of-user").value) query.set("user", $("of-user").value)
	const { value, more } = await ask("/connections?" + query)
	table($("connections"), value, "id", c => [
		[c.id], [c.user ?? ""], [c.remote], [c.transport], [(c.channels ?? []).join(" ")],
		[span((Date.now() - Date.parse(c.since)) / 1000), "number"], [bytes(c.sent), "number"], [bytes(c.backlog), "number"], [closeCell(c)],
	], "Nobody is connected.")
	moreConnections(more)
}

// A connection is closed by the second press.
function closeCell({ id }) {
	const td = make("td")
	const button = td.appendChild(make("button", "Close"))
	button.setAttribute("aria-label", "Close connection " + id)
	const relax = () => {
		button.className = ""
		button.textContent = "Close"
		button.setAttribute("aria-label", "Close connection " + id)
	}
	button.onblur = relax
	button.onclick = async () => {
		if (!button.className) {
			button.className = "sure"
			button.textContent = "Sure?"
			button.setAttribute("aria-label", `Close connection ${id}: press again to be sure`)
			return
		}
		relax()
		await attempt(() => ask("/connections/" + id, { method: "DELETE" }))
		refresh()
	}
	return td
}

// attempt shows what went wrong.
async function attempt(f) {
	try {
		await f()
		$("error").textContent = ""
	} catch (e) {
		$("error").textContent = e.status ? e.message : "Caddy's admin endpoint does not answer"
	}
}

let refreshing = false
async function refresh() {
	if (refreshing || document.hidden) return
	refreshing = true
	await attempt(async () => { await totals(); await channels(); await connections() })
	refreshing = false
}
setInterval(refresh, 1000)
for (const id of ["prefix", "of-channel", "of-user"]) $(id).oninput = refresh
document.addEventListener("visibilitychange", refresh)
refresh()

// The live tail. The admin endpoint has no WebSockets: the client is not to try them.
globalThis.WebSocket = class {
	constructor() { setTimeout(() => this.onerror?.()) }
	close() { }
}
const hub = connect(api + "/stream")
const kept = [] // the last messages, whether they are shown or not
let paused = false
hub.onstate = state => $("tail-state").textContent = paused ? "paused" : state == "open" ? "" : state
hub.frame((messages, dropped) => {
	if (dropped) kept.push({ note: `${number(dropped)} messages were not shown` })
	const at = new Date().toLocaleTimeString("en-GB")
	for (const m of messages) kept.push({ ...m, at })
	const fresh = kept.slice(-(messages.length + (dropped ? 1 : 0)))
	kept.splice(0, Math.max(0, kept.length - tailSize))
	if (!paused) show(fresh)
}, { limit: tailSize })

const wanted = m => m.note || m.channel.startsWith($("tail-channel").value) && text(m).includes($("tail-text").value)
const text = m => typeof m.data == "string" ? m.data : JSON.stringify(m.data)

function show(list) {
	const log = $("tail")
	const end = log.scrollHeight - log.scrollTop - log.clientHeight < 40
	log.querySelector(".empty")?.remove()
	log.append(...list.filter(wanted).map(m => {
		if (m.note) return make("p", m.note, "empty")
		const p = make("p")
		p.append(make("time", m.at), make("b", m.channel))
		if (m.event) p.append(make("i", m.event))
		p.append(make("span", text(m)))
		return p
	}))
	while (log.childElementCount > tailSize) log.firstChild.remove()
	if (end) log.scrollTop = log.scrollHeight
}

function again() {
	if (paused) return
	$("tail").replaceChildren()
	show(kept)
	$("tail").scrollTop = $("tail").scrollHeight
}
$("tail-channel").oninput = $("tail-text").oninput = again
$("pause").onclick = () => {
	paused = !paused
	$("pause").setAttribute("aria-pressed", paused)
	$("pause").textContent = paused ? "Go on" : "Pause"
	hub.onstate(hub.state)
	again()
}

// Publishing, here and elsewhere.
const form = $("publish")
const admin = await (await fetch("admin")).json()
function request() {
	const { channel, event, data, kind } = Object.fromEntries(new FormData(form))
	const query = new URLSearchParams({ channel })
	if (event) query.set("event", event)
	return { channel, event, data, kind, path: "/publish?" + query, type: kind == "json" ? "application/json" : "text/plain" }
}

function lines() {
	const q = request()
	const url = admin.url + api + q.path
	const shell = s => "'" + s.replaceAll("'", "'\\''") + "'"
	const socket = admin.socket ? `--unix-socket ${shell(admin.socket)} ` : ""
	$("curl").textContent = `curl ${socket}-H ${shell("Content-Type: " + q.type)} --data-raw ${shell(q.data)} ${shell(url)}`
	let value = JSON.stringify(q.data)
	if (q.kind == "json") try { value = JSON.stringify(JSON.parse(q.data)) } catch { value = "…" }
	const options = { channel: q.channel }
	if (q.event) options.event = q.event
	$("js").textContent = `import { connect } from "/ws?client"\nawait connect("/ws").publish(${value}, ${JSON.stringify(options)})`
	$("python").textContent = admin.socket ? "# the admin endpoint is a unix socket, which Python's urllib does not know" : "from urllib.request import Request, urlopen\n" +
		`urlopen(Request(${JSON.stringify(url)}, ${JSON.stringify(q.data)}.encode(), ${JSON.stringify({ "Content-Type": q.type })}))`
}
form.oninput = lines
lines()

form.onsubmit = async e => {
	e.preventDefault()
	const q = request()
	try {
		const { value } = await ask(q.path, { method: "POST", headers: { "Content-Type": q.type }, body: q.data })
		$("published").value = `${value.id} to ${number(value.subscribers)}`
	} catch (error) {
		$("published").value = error.message
	}
}

for (const button of document.querySelectorAll("[data-copy]")) {
	button.onclick = async () => {
		await navigator.clipboard.writeText($(button.dataset.copy).textContent)
		button.textContent = "Copied"
		setTimeout(() => button.textContent = "Copy", 1500)
	}
}

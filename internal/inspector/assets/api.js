// The admin API, and whether it answers.
import { $, clock, set } from "./page.js"

// The address of the API for programs outside this page. `caddy broadcast ui` tells it, since its own is gone when it ends.
export let admin = new URL("../../", location).href
let byCommand = false

const unescape = query => decodeURIComponent(query.replaceAll("+", " "))

export const api = async (path, options) => {
	// A process that is stopped, or a computer that is off, answers nothing at all.
	const r = await fetch("../../broadcast" + path, { cache: "no-store", signal: AbortSignal.timeout(15e3), ...options }).catch(e => {
		throw Error(byCommand && e.name != "TimeoutError" ? "The command `caddy broadcast ui` has ended" : "Caddy does not answer")
	})
	const at = r.headers.get("Broadcast-Admin")
	if (at && at != admin) {
		byCommand = true
		admin = at
		dispatchEvent(new Event("admin"))
	}
	const answer = await r.json().catch(() => {}) // an error may come from something between the page and Caddy
	if (!r.ok || !answer) throw Error(answer?.error ?? `Caddy's response cannot be read (status ${r.status})`)
	return { answer, more: r.headers.has("Link"), missing: unescape(r.headers.get("Broadcast-Missing") ?? "") }
}

// every calls f repeatedly, with pauses of at least ms and at least times as long as f took, to spare a busy hub. A
// hidden page asks for nothing. It returns a function that calls f now.
export const every = (ms, times, f) => {
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

// What the header shows.
const state = {
	failure: "", // why the API does not answer
	answered: new Date(), // when it did
	live: "connecting", // the state of the live messages
	refusal: "", // why there are none
	missing: "", // nodes that have not answered
}

// report changes a part of the state. When Caddy is back, it says so in an event.
export const report = change => {
	const back = state.failure && change.failure == ""
	if (change.failure == "") state.answered = new Date()
	Object.assign(state, change)
	const { failure, live, refusal, missing } = state
	const good = !failure && live == "open"
	set($("state"), failure ? "disconnected" : good ? (missing ? `live without ${missing}` : "live") : live == "connecting" ? live : "reconnecting")
	$("state").className = good ? "open" : ""
	set($("problem"), failure
		? `${failure}. This page shows what was known at ${clock(state.answered)}, and tries again every second.`
		: live != "open" && refusal ? `There are no live messages: ${refusal}. This page tries again.` : "")
	if (back) dispatchEvent(new Event("back"))
}

export const isGone = () => state.failure != ""

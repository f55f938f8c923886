// One message: a line that unfolds to all of it.
import { clock, make, number } from "./page.js"

const longestLine = 2000 // characters
const longest = 50_000 // and of an unfolded one, of which there may be a thousand

const cut = (text, n) => (text.length > n ? `${text.slice(0, n)}… (${number(text.length)} characters)` : text)

// indented returns a text as JSON with a line for each member, if it is JSON. Numbers that JavaScript would round stay as they are.
const indented = text => {
	if (!/^\s*[[{]/.test(text) || /\d{16}/.test(text)) return text
	try {
		return JSON.stringify(JSON.parse(text), null, 2)
	} catch {
		return text
	}
}

const unfolded = (m, at, text) => {
	const size = m.encoding ? `${number(atob(m.data).length)} bytes` : `${number(text.length)} characters`
	const facts = [m.id, at.toLocaleString(), m.channel, m.event, size].filter(Boolean).join(" · ")
	return make("div", { class: "unfolded" }, make("p", {}, facts), make("pre", {}, cut(text.length > longest ? text : indented(text), longest)))
}

// line returns the element of a message or of a note, and what it is found by.
export const line = m => {
	if (m.note) return { e: make("p", { class: "note" }, m.note), channel: "", text: m.note.toLowerCase() }
	const at = m.time ? new Date(m.time) : new Date()
	const whole = typeof m.data == "string" ? m.data : JSON.stringify(m.data)
	const text = cut(m.encoding ? "base64 " + whole : whole, longestLine)
	const parts = { time: clock(at), channel: m.channel, event: m.event ?? "", text }
	const summary = make("summary", { tabindex: -1 }, ...Object.keys(parts).map(name => make("span", { class: name }, parts[name])))
	const e = make("details", {}, summary)
	// Most messages are never unfolded.
	e.addEventListener("toggle", () => e.lastChild == summary && e.append(unfolded(m, at, whole)))
	return { e, channel: m.channel, text: `${parts.event} ${text}`.toLowerCase() }
}

// moveIn has the arrow keys move through the messages in a box. The tabulator stops at the box only, as there are many. onread is
// called when a message is moved to or unfolded.
export const moveIn = (box, onread) => {
	box.addEventListener("toggle", e => e.target.open && onread(), true)
	box.addEventListener("keydown", e => {
		if (e.ctrlKey || e.metaKey || e.altKey) return
		const all = [...box.querySelectorAll("details:not([hidden]) > summary")]
		const i = all.indexOf(document.activeElement)
		if (i < 0 && document.activeElement != box) return
		const to = {
			ArrowUp: i < 0 ? all.at(-1) : all[i - 1],
			ArrowDown: i < 0 ? all[0] : all[i + 1],
			Home: all[0],
			End: all.at(-1),
			Escape: i < 0 ? null : box,
		}[e.key]
		if (e.key == "ArrowRight" || e.key == "ArrowLeft") {
			if (i >= 0) all[i].parentNode.open = e.key == "ArrowRight"
		} else if (!to) return
		e.preventDefault()
		to?.focus()
		if (to && to != box) onread()
	})
}

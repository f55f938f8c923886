// The form that publishes, and the same request in other languages.
import { admin, api } from "./api.js"
import { loadChannels } from "./lists.js"
import { $, number, set } from "./page.js"

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
addEventListener("admin", write)
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

// The lists of channels and connections, who is present, and the question before a connection is closed.
import { api, every, isGone, report } from "./api.js"
import { node } from "./nodes.js"
import { $, age, bytes, count, make, number, seconds, set } from "./page.js"
import { cells, table } from "./table.js"

let missing = ""

// list keeps a table in step with one of the API.
const list = (name, query, key, row) => {
	const show = table(name, key, row)
	const more = $(name).parentNode.querySelector(".more")
	let limit = 100
	let asked = 0
	const load = every(2e3, 9, async () => {
		if (isGone()) return
		const mine = ++asked
		const got = await api(`/${name}?` + new URLSearchParams({ ...query(), node, limit })).catch(() => {})
		if (!got || mine != asked) return // the totals show the error; or the filter was changed meanwhile
		show(got.answer)
		more.hidden = !got.more
		if (missing != got.missing) report({ missing: (missing = got.missing) })
	})
	more.onclick = () => {
		limit += 100
		load()
	}
	addEventListener("back", load)
	addEventListener("node", load)
	return load
}

export const loadChannels = list("channels", () => ({ prefix: $("prefix").value }), c => c.channel, c => {
	const { tr, list } = cells($("channels"), ["Clients", "History"])
	const pick = make("button", { class: "pick" })
	list[0].append(pick)
	list[0] = pick
	pick.onclick = () => {
		const on = $("of-channel").value != c.channel
		for (const id of ["of-channel", "tail-channel"]) {
			$(id).value = on ? c.channel : ""
			$(id).dispatchEvent(new Event("input"))
		}
		if (on) $("channel").value = c.channel
		$("channel").dispatchEvent(new Event("input", { bubbles: true }))
	}
	const option = make("option", { value: c.channel })
	$("names").append(option)
	return {
		tr, list, option,
		show: c => {
			pick.setAttribute("aria-pressed", $("of-channel").value == c.channel)
			return [c.channel, count(c.subscribers), count(c.history)]
		},
	}
})
$("prefix").oninput = loadChannels

const since = c => age(seconds(c.since, Date.now())) + (c.expires ? `, expires in ${age(Math.max(0, seconds(Date.now(), c.expires)))}` : "")

const connections = () => ({ clients: "", channel: $("of-channel").value, user: $("of-user").value })
const loadConnections = list("connections", connections, c => c.id, c => {
	$("node").hidden = !c.node
	const close = make("button", { class: "danger", "aria-label": "Close " + c.id }, "Close")
	close.onclick = () => ask(c)
	const { tr, list } = cells($("connections"), ["Since", "Sent", "Backlog"], make("td", { role: "cell", class: "n" }, close))
	list[1].hidden = !c.node
	return {
		tr, list,
		show: c => [c.id, c.node ?? "", c.user ?? "", c.remote, c.transport, c.channels.join(", "), since(c), bytes(c.sent), bytes(c.backlog)],
	}
})
$("of-user").oninput = loadConnections

// The presence of the channel whose connections are listed. Of a channel that does not exist the API has only a 404, which the
// browser would log, so the list is asked first: a name comes before those that begin with it.
const loadPresent = every(2e3, 9, async () => {
	if (isGone()) return
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

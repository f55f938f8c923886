// The nodes that share a message broker, and which of them the lists are about.
import { $, age, count, make, seconds, set } from "./page.js"
import { cells, table } from "./table.js"

export let node = "" // the ID of one node, or empty for all

const select = id => {
	node = node == id ? "" : id
	dispatchEvent(new Event("node"))
}

const show = table("nodes", n => n.id, n => {
	const { tr, list } = cells($("nodes"), ["Connections"])
	const pick = make("button", { class: "pick" })
	pick.onclick = () => select(n.id)
	list[0].append(pick)
	list[0] = pick
	return {
		tr, list,
		show: n => {
			pick.setAttribute("aria-pressed", node == n.id)
			return [n.name || n.id, n.id, n.away ? "?" : count(n.connections), n.state, n.away ? "?" : age(seconds(n.started, Date.now())), n.version]
		},
	}
})

// showNodes shows the nodes that the totals have, of which the first one is this one.
export const showNodes = ({ broker, clients, nodes = [] }) => {
	$("cluster").hidden = !broker
	if (node && !nodes.some(n => n.id == node)) select("")
	if (!broker) return
	const heard = broker.heard ? `last heard ${age(broker.lag_seconds)} ago` : "never heard"
	set($("broker"), broker.up ? `broker ${broker.server ?? ""} is up` : `broker is down, ${heard}: ${broker.problem ?? ""}`)
	$("broker").className = broker.up ? "" : "bad"
	const all = nodes.map((n, i) => ({
		...n,
		connections: i ? n.connections : clients,
		state: n.away ? "away: silent, but it may still have clients" : n.epoch != nodes[0].epoch ? "on another log" : i ? "up" : "up, and the one that was asked",
	}))
	show(all.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true })))
}

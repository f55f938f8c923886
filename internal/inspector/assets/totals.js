// The totals: numbers, plots of the last two minutes, and the nodes that share a message broker.
import { api, every, report } from "./api.js"
import { seen } from "./messages.js"
import { showNodes } from "./nodes.js"
import { $, age, bytes, count, make, set } from "./page.js"

const samples = 120
const plots = [
	["Connections", count, t => t.clients],
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
		clear: () => (values.length = 0),
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

let before
every(1e3, 0, async () => {
	let t
	try {
		t = (await api("")).answer
	} catch (e) {
		return report({ failure: e.message })
	}
	t.deliveries -= seen() // those to this page. They are counted here, a moment later, so a rate may be less than 0
	if (before?.uptime > t.uptime) {
		before = null // the hub was restarted
		for (const p of plots) p.clear()
	}
	const rate = name => (before ? Math.max(0, t[name] - before[name]) / (t.uptime - before.uptime || 1) : 0)
	for (const p of plots) p.draw(t, rate)
	before = t
	set($("facts"), `up ${age(t.uptime)} · ${count(t.messages)} messages · ${bytes(t.delivered_bytes)} delivered · ${count(t.history)} in history`)
	showNodes(t)
	report({ failure: "" })
})

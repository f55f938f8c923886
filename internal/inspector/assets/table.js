// Tables of what the admin API lists.
import { $, make, set } from "./page.js"

// On a phone a row is a block, in which each cell has its column's name before it. The roles say that it is still a table.
const roles = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TH: "columnheader" }

// cells returns the cells of a row, and its element.
export const cells = (table, numbers, ...more) => {
	const columns = [...table.tHead.rows[0].cells].slice(0, -more.length || undefined)
	const list = columns.map((column, i) => make(i ? "td" : "th", {
		...(i ? { role: "cell" } : { role: "rowheader", scope: "row" }),
		...(numbers.includes(column.textContent) && { class: "n" }),
		"data-column": column.textContent,
	}))
	return { list, tr: make("tr", { role: "row" }, ...list, ...more) }
}

// table returns a function that shows items in a table. An item keeps its row's element, and so focus and selection. row makes one
// for a new item: its element tr, the elements whose texts show returns, and what else to remove with it.
export const table = (id, key, row) => {
	for (const e of [$(id), ...$(id).querySelectorAll("*")]) if (roles[e.tagName]) e.setAttribute("role", roles[e.tagName])
	const body = $(id).tBodies[0]
	const rows = new Map()
	return items => {
		const keys = new Set(items.map(key))
		for (const [k, r] of rows) {
			if (keys.has(k)) continue
			r.tr.remove()
			r.option?.remove()
			rows.delete(k)
		}
		items.forEach((item, i) => {
			const k = key(item)
			if (!rows.has(k)) rows.set(k, row(item))
			const { tr, list, show } = rows.get(k)
			show(item).forEach((text, i) => {
				set(list[i], text)
				list[i].title = text
			})
			if (body.children[i] != tr) body.insertBefore(tr, body.children[i] ?? null)
		})
	}
}

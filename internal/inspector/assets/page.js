// What all parts of the page use: elements, texts and numbers. Texts from clients are only ever set as text, never as HTML.

export const $ = id => document.getElementById(id)

export const make = (tag, attributes = {}, ...children) => {
	const e = tag == "svg" || tag == "path" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag)
	for (const name in attributes) e.setAttribute(name, attributes[name])
	e.append(...children)
	return e
}

export const set = (e, text) => e.textContent != text && (e.textContent = text)

export const number = n => n.toLocaleString("en", { maximumFractionDigits: n < 10 ? 1 : 0 })
const scaled = (n, units, by) => {
	let i = 0
	for (; n >= by && i < units.length - 1; i++) n /= by
	return number(n) + units[i]
}
export const count = n => (n < 1e5 ? number(n) : scaled(n / 1e3, ["k", "M", "G"], 1e3))
export const bytes = n => scaled(n, [" B", " KiB", " MiB", " GiB"], 1024)
export const age = s => s < 60 ? `${s | 0} s` : s < 3600 ? `${s / 60 | 0} min` : s < 86400 ? `${s / 3600 | 0} h ${s / 60 % 60 | 0} min` : `${s / 86400 | 0} d ${s / 3600 % 24 | 0} h`
export const seconds = (from, to) => (new Date(to) - new Date(from)) / 1e3
export const clock = date => date.toTimeString().slice(0, 8)

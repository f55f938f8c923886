// What the npm package exports: the whole client, with presence. It explains what goes wrong where there is no browser.
import { connect as connectHub } from "./presence.js"

export function connect(url, options) {
	if (!globalThis.location && !URL.canParse(url)) {
		throw new TypeError(
			`connect("${url}"): there is no page here that the address could be relative to. Use a whole address, such as ` +
				`"wss://example.com/ws", or, when a server renders pages, connect only in the browser`,
		)
	}
	if (!globalThis.WebSocket && !options?.WebSocket) {
		throw new TypeError(
			"connect: there is no WebSocket here. Use Node 22 or later, or pass one: " +
				'import { WebSocket } from "ws", then connect(url, { WebSocket })',
		)
	}
	return connectHub(url, options)
}

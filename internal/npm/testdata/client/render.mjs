// Servers render components that use the hooks, the composables and the stores. None connects.
import assert from "node:assert/strict"
import { writeFileSync } from "node:fs"
import { createElement } from "react"
import { renderToString } from "react-dom/server"
import { compile } from "svelte/compiler"
import { render } from "svelte/server"
import { createSSRApp, h } from "vue"
import { renderToString as renderVue } from "vue/server-renderer"
import * as react from "caddy-broadcast/react"
import * as vue from "caddy-broadcast/vue"

globalThis.WebSocket = class {
	constructor() {
		assert.fail("it connects")
	}
}

function React() {
	const { hub, state } = react.useHub("/ws")
	return createElement("p", null, [state, react.useMessages(hub).length, react.usePresence(hub, "x").count].join(" "))
}
assert.equal(renderToString(createElement(React)), "<p>connecting 0 0</p>")

const Vue = {
	setup() {
		const { hub, state } = vue.useHub("/ws")
		const messages = vue.useMessages(hub)
		const { count } = vue.usePresence(hub, "x")
		return () => h("p", [state.value, messages.value.length, count.value].join(" "))
	},
}
assert.equal(await renderVue(createSSRApp(Vue)), "<p>connecting 0 0</p>")

const Svelte = `<script>
	import { hubStore, messageStore, presenceStore } from "caddy-broadcast/svelte"
	const connection = hubStore("/ws"), messages = messageStore(connection), present = presenceStore(connection, "x")
</script>
<p>{[$connection.state, $messages.length, $present.count].join(" ")}</p>`
writeFileSync("Rendered.mjs", compile(Svelte, { generate: "server" }).js.code)
const { body } = render((await import("./Rendered.mjs")).default)
assert.match(body, /<p>connecting 0 0<\/p>/)

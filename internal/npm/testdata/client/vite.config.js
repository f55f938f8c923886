import react from "@vitejs/plugin-react"
import { compile } from "svelte/compiler"

const svelte = {
	name: "svelte",
	transform: (code, id) => (id.endsWith(".svelte") ? { code: compile(code, { filename: id }).js.code, moduleType: "js" } : undefined),
}

// A warning fails the build, except that it was slow, and that of "use client", which the plugin for React hides from users.
function onLog(level, log) {
	if (level == "warn" && !["PLUGIN_TIMINGS", "MODULE_LEVEL_DIRECTIVE"].includes(log.code)) throw Error(`${log.code}: ${log.message}`)
}

export default {
	plugins: [react(), svelte],
	build: { rolldownOptions: { input: ["react.html", "vue.html", "svelte.html", "worker.html"], onLog } },
}

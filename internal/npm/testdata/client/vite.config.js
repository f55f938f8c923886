import react from "@vitejs/plugin-react"
import { compile } from "svelte/compiler"

const svelte = {
	name: "svelte",
	transform: (code, id) => (id.endsWith(".svelte") ? { code: compile(code, { filename: id }).js.code, moduleType: "js" } : undefined),
}

export default {
	plugins: [react(), svelte],
	build: { rolldownOptions: { input: ["react.html", "vue.html", "svelte.html", "worker.html"] } },
}

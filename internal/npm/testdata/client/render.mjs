// A server renders the components of the package's README, which use the hooks, the composables and the stores. None connects.
import assert from "node:assert/strict"
import { readFileSync, writeFileSync } from "node:fs"
import { transformSync } from "esbuild"
import { createElement } from "react"
import { renderToString } from "react-dom/server"
import { compile } from "svelte/compiler"
import { render } from "svelte/server"
import { createSSRApp } from "vue"
import { compileScript, parse } from "vue/compiler-sfc"
import { renderToString as renderVue } from "vue/server-renderer"

globalThis.WebSocket = class {
	constructor() {
		assert.fail("it connects")
	}
}

const readme = readFileSync("node_modules/caddy-broadcast/README.md", "utf8")
const example = language => readme.split("```" + language + "\n")[1].split("\n```")[0]

async function load(name, code) {
	writeFileSync(name, code)
	return import(`./${name}`)
}

const strip = (code, loader) => transformSync(code, { loader, jsx: "automatic", tsconfigRaw: {} }).code

const tsx = example("tsx") + "\nexport { Prices }\n"
writeFileSync("readme.tsx", tsx) // for tsc
const { Prices } = await load("react.mjs", strip(tsx, "tsx"))
assert.match(renderToString(createElement(Prices)), /<p>connecting<!-- -->, <!-- -->0<!-- --> here: <\/p>/)

const { descriptor } = parse(example("vue"))
const { content } = compileScript(descriptor, { id: "readme", inlineTemplate: true, templateOptions: { ssr: true } })
const { default: Vue } = await load("vue.mjs", strip(content, "ts"))
assert.match(await renderVue(createSSRApp(Vue)), /<p>connecting, 0 here: <\/p>/)

const { default: Svelte } = await load("svelte.mjs", compile(example("svelte"), { generate: "server" }).js.code)
assert.match(render(Svelte).body, /<p>\s*connecting, 0 here:\s*<\/p>/)

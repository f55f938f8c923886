// An app that shows orders, and publishes each new one to all pages through Caddy. It needs no packages.
import { randomUUID } from "node:crypto"
import { readFile } from "node:fs/promises"
import { createServer } from "node:http"
import { text } from "node:stream/consumers"
import { setTimeout as sleep } from "node:timers/promises"

const { PORT = "3000", PUBLISH_URL, PUBLISH_TOKEN } = process.env
const page = await readFile(new URL("index.html", import.meta.url))
const orders = [] // the latest 50; your app has a database

// publish publishes an event. Every attempt has the same key, so that it is published once. If all of them fail, that is logged,
// because the request being handled does not depend on it.
async function publish(event, data, tries = 6) {
	const request = {
		method: "POST",
		headers: {
			Authorization: `Bearer ${PUBLISH_TOKEN}`,
			"Content-Type": "application/json",
			"Idempotency-Key": randomUUID(),
		},
		body: JSON.stringify(data),
	}
	const url = `${PUBLISH_URL}?${new URLSearchParams({ event })}`
	let failure
	for (let i = 0; i < tries; i++) {
		if (i) await sleep(100 * 2 ** i)
		try {
			const response = await fetch(url, { ...request, signal: AbortSignal.timeout(2000) })
			if (response.ok) return
			failure = `${response.status} ${await response.text()}`
			if (response.status < 500) break // it would fail again
		} catch (error) {
			failure = error.cause ?? error
		}
	}
	console.error(`${event} was not published:`, failure)
}

async function serve(request, response) {
	switch (`${request.method} ${request.url}`) {
		case "GET /":
			return response.setHeader("Content-Type", "text/html; charset=utf-8").end(page)
		case "GET /orders":
			return response.setHeader("Content-Type", "application/json").end(JSON.stringify(orders))
		case "POST /orders": {
			const order = { id: randomUUID(), item: (await text(request)).slice(0, 100) }
			orders.push(order)
			orders.splice(0, orders.length - 50)
			publish("order", order)
			response.statusCode = 204
			return response.end()
		}
		case "GET /health":
			return response.end()
		default:
			response.statusCode = 404
			return response.end()
	}
}

createServer((request, response) => {
	serve(request, response).catch(error => {
		console.error(error)
		response.writeHead(500).end()
	})
}).listen(Number(PORT))

// Publishes 1000 prices a second: npm run feed [prices per second]
const rate = Number(process.argv[2] ?? 1000)
const admin = process.env.CADDY_ADMIN ?? "http://localhost:2019"
const prices = Array.from({ length: 300 }, () => 10 + 990 * Math.random())

const begin = Date.now()
let sent = 0
while (true) {
	const lines = []
	for (const due = ((Date.now() - begin) * rate) / 1000; sent < due; sent++) {
		const row = Math.floor(Math.random() * prices.length)
		prices[row] *= 1 + (Math.random() - 0.5) / 50
		lines.push(JSON.stringify({ event: "price", data: { row, price: Number(prices[row].toFixed(2)) } }))
	}
	if (lines.length) {
		const response = await fetch(`${admin}/broadcast/publish`, {
			method: "POST",
			headers: { "Content-Type": "application/x-ndjson", Origin: admin }, // Caddy treats Node's fetch as a browser
			body: lines.join("\n"),
		})
		if (!response.ok) throw Error(`${response.status} ${await response.text()}`)
	}
	await new Promise(resolve => setTimeout(resolve, 10))
}

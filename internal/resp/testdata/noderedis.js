// What node-redis sends: how it connects, PUBLISH, pipelines, and a subscriber.
const [url, name, version] = process.argv.slice(2)
const { createClient } = require(name)

async function main() {
	const r = createClient({ url, RESP: Number(version), name: 'caddy', socket: { reconnectStrategy: false } })
	r.on('error', () => {})
	try {
		await r.connect()
	} catch (e) {
		return console.log(e.message)
	}
	console.log(await r.ping(), await r.publish('room', 'text'), await r.publish('room', Buffer.from('\x00\xff\r\n', 'latin1')))
	console.log(await Promise.all([r.publish('room', 'a'), r.publish('room', 'b')]))
	console.log(await r.multi().publish('room', 'c').publish('room', 'd').exec())
	const s = await r.duplicate({ name: undefined }).connect()
	const message = new Promise(resolve => s.subscribe('room', (m, channel) => resolve([channel, m].join())).then(() => console.log('subscribed')))
	while (Number(await r.publish('room', 'e')) == 0);
	console.log(await message)
	await s.unsubscribe()
	await r.get('x').catch(e => console.log(e.message))
	await s.close()
	await r.close()
}
main()

// What ioredis sends: how it connects, PUBLISH, pipelines, and a subscriber.
const [url, name] = process.argv.slice(2)
const Redis = require(name)
const once = (emitter, event) => new Promise(resolve => emitter.once(event, (...args) => resolve(args)))

async function main() {
	const r = new Redis(url, { retryStrategy: null, connectionName: 'caddy' })
	const errors = []
	r.on('error', e => errors.push(e.message))
	try {
		console.log(await r.ping(), await r.publish('room', 'text'), await r.publish('room', Buffer.from('\x00\xff\r\n', 'latin1')))
	} catch (e) {
		console.log(errors[0] ?? e.message)
		return r.disconnect()
	}
	console.log(JSON.stringify(await r.pipeline().publish('room', 'a').publish('room', 'b').exec()))
	console.log(JSON.stringify(await r.multi().publish('room', 'c').publish('room', 'd').exec()))
	const s = r.duplicate({ connectionName: undefined })
	console.log(await s.subscribe('room'))
	const message = once(s, 'message')
	console.log(await r.publish('room', 'e'), (await message).join())
	console.log(await s.unsubscribe())
	await r.get('x').catch(e => console.log(e.message))
	await s.quit()
	await r.quit()
}
main()

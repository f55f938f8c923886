// A service worker: it has no window, no document and no animation frames.
import { connect } from "caddy-broadcast"

const worker = self as any
const tell = async (what: unknown) => {
	for (const page of await worker.clients.matchAll({ includeUncontrolled: true })) page.postMessage(what)
}

worker.onactivate = (event: any) => event.waitUntil(worker.clients.claim())

const hub = connect<{ price: number; message: string }>("/ws?user=worker")
hub.onstate = state => tell(state)
hub.frame(messages => tell(messages.map(message => message.data)))
worker.onmessage = async ({ data }: MessageEvent) => {
	if (data == "state") tell(hub.state)
	else tell("published " + (await hub.publish(data)))
}

// The page of the service worker, which esbuild bundles.
declare global {
	var heard: unknown[]
	var worker: ServiceWorker
}

globalThis.heard = []
navigator.serviceWorker.onmessage = event => heard.push(event.data)
navigator.serviceWorker.register("worker.js")
navigator.serviceWorker.ready.then(registration => {
	globalThis.worker = registration.active!
	worker.postMessage("state")
})

export {}

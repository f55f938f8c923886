import { StrictMode, useState } from "react"
import { createRoot } from "react-dom/client"
import { useHub, useMessages, usePresence } from "caddy-broadcast/react"
import { first, type Events } from "./view.js"

// It calls useHub too, with the address of Prices.
function Status({ url }: { url: string }) {
	const { state, error } = useHub(url)
	return <p id="state">{[state, error?.status].join(" ")}</p>
}

function Prices({ url, channel }: { url: string; channel: string }) {
	const { hub } = useHub<Events>(url)
	const prices = useMessages(hub, { event: "price", channel, key: message => message.data.row })
	const { members, count } = usePresence(hub, channel)
	seen.renders++
	return (
		<>
			<p id="prices">{prices.map(({ data }) => `${data.row}=${data.price}`).join(" ")}</p>
			<p id="present">{[count, ...(members ?? []).map(member => member.user)].join(" ")}</p>
		</>
	)
}

function App() {
	const [view, setView] = useState(first)
	globalThis.show = changes => setView(view => ({ ...view, ...changes }))
	if (!view.url) return <p id="state">unmounted</p>
	return (
		<>
			<Status url={view.url} />
			<Prices url={view.url} channel={view.channel} />
		</>
	)
}

createRoot(document.getElementById("app")!).render(
	<StrictMode>
		<App />
	</StrictMode>,
)

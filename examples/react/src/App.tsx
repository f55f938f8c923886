import { memo, useState, type FormEvent } from "react"
import { useHub, useMessages, usePresence, type State } from "caddy-broadcast/react"
import { Figures, useCount } from "./Figures"

// What is published on this site: each event, and its data.
export interface Events {
	price: { row: number; price: number }
	note: { text: string }
}

const states: Record<State, string> = {
	connecting: "connecting",
	open: "connected",
	waiting: "reconnecting",
	offline: "no network",
	refused: "not allowed",
	closed: "closed",
}

export function App() {
	const { hub, state, error } = useHub<Events>("/ws", { ongap: () => location.reload() })
	const { count } = usePresence(hub, "default")
	return (
		<>
			<header>
				<h1>Prices</h1>
				<p id="state">{error ? `${states[state]}: ${error.message}` : states[state]}</p>
				<p id="present">{count} watching</p>
				<Figures hub={hub} />
			</header>
			<Notes />
			<Prices />
		</>
	)
}

// Each component may call useHub: with the same address, they share one connection.
function Prices() {
	const { hub } = useHub<Events>("/ws")
	const prices = useMessages(hub, { event: "price", key: message => message.data.row })
	useCount()
	return (
		<ul className="rows" aria-label="Prices">
			{prices.toSorted((a, b) => a.data.row - b.data.row).map(({ data }) => (
				<Price key={data.row} row={data.row} price={data.price} />
			))}
		</ul>
	)
}

// A row whose price has not changed is not rendered again.
const Price = memo(({ row, price }: Events["price"]) => (
	<li>
		<span>{row}</span>
		<b>{price.toFixed(2)}</b>
	</li>
))

function Notes() {
	const { hub } = useHub<Events>("/ws")
	const notes = useMessages(hub, { event: "note", limit: 3 })
	const [text, setText] = useState("")
	const [failure, setFailure] = useState("")
	const submit = async (event: FormEvent) => {
		event.preventDefault()
		try {
			await hub?.publish({ text }, { event: "note" })
			setText("")
			setFailure("")
		} catch (error) {
			setFailure((error as Error).message)
		}
	}
	return (
		<>
			<form onSubmit={submit}>
				<input value={text} onChange={event => setText(event.target.value)} placeholder="A note for everyone" required />
				<button>Send</button>
			</form>
			<ul id="notes" aria-live="polite">
				{failure && <li>Not sent: {failure}</li>}
				{notes.map(({ id, data }) => (
					<li key={id}>{data.text}</li>
				))}
			</ul>
		</>
	)
}

// What tsc --strict makes of the types of the client. Each @ts-expect-error is a mistake that it must find.
import { connect, type Failure, type Hub, type Message, type MessageOf } from "caddy-broadcast"
import { WebSocket } from "ws"

interface Price {
	row: number
	price: number
}

interface Events {
	price: Price
	sold: { row: number }
	message: string
}

export function typed() {
	const hub: Hub<Events> = connect<Events>("/ws", { lastId: "7-1" })

	const off: () => void = hub.on("price", (data, message) => {
		const sum: number = data.row + data.price + message.data.price
		message.event satisfies "price"
		// @ts-expect-error: a price has no such field
		data.prize
		// @ts-expect-error: it is a number
		data.price.trim()
		return [sum, message.id.length]
	})
	off()
	hub.on("message", (data, message) => [data.trim(), message.event satisfies undefined])
	hub.on("sold", data => data.row, "shop")
	hub.on("*", (data, message) => {
		// @ts-expect-error: it may be a text
		data.row
		if (message.event == "price") return message.data.price
		if (message.event == "sold") return message.data.row
		return message.data.trim()
	})
	// @ts-expect-error: there is no such event
	hub.on("prize", () => {})

	hub.frame(
		messages => {
			for (const message of messages) message.data.price.toFixed(2)
		},
		{ event: "price", key: message => message.data.row },
	)
	hub.frame((messages, dropped) => {
		for (const message of messages) if (message.event == "price") message.data.price.toFixed(dropped)
		// @ts-expect-error: nothing says that it is a price
		messages[0]?.data.price
	})
	// @ts-expect-error: a price has no such field
	hub.frame(() => {}, { event: "price", key: message => message.data.column })
	// @ts-expect-error: there is no such event
	hub.frame(() => {}, { event: "prize" })

	const id: Promise<string> = hub.publish({ row: 7, price: 103.2 }, { event: "price", channel: "shop" })
	hub.publish("hello")
	hub.publish("hello", { keep: false })
	// @ts-expect-error: there is no such event
	hub.publish({ row: 7, price: 103.2 }, { event: "prize" })
	// @ts-expect-error: the price is missing
	hub.publish({ row: 7 }, { event: "price" })
	// @ts-expect-error: it is not a number
	hub.publish({ row: 7, price: "103.2" }, { event: "price" })
	// @ts-expect-error: a price without its event would be a message
	hub.publish({ row: 7, price: 103.2 })
	// @ts-expect-error: there is no such option
	hub.publish("hello", { chanel: "shop" })

	hub.presence("shop", (members, change) => [members?.[0]?.user, change.count])
	hub.onerror = (error: Failure) => console.warn(error.status, error.message)
	hub.onexpire = async () => "/ws?token=1"
	// @ts-expect-error: the client sets it
	hub.state = "open"
	return id
}

// Without a message event, a message must have an event.
export function withoutMessages() {
	const hub = connect<{ price: Price }>("/ws")
	hub.publish({ row: 1, price: 2 }, { event: "price" })
	// @ts-expect-error: it has none
	hub.publish("hello")
	// @ts-expect-error: an object is not an event
	hub.publish({ row: 1, price: 2 })
	return (message: MessageOf<{ price: Price }>) => message.data.price
}

// Events need not be named. Then they are not checked, as in JavaScript.
export function untyped(event: string) {
	const hub = connect(new URL("wss://example.com/ws"))
	hub.on("price", (data, message: Message) => [data.row, message.event?.length])
	hub.on(event, data => data.anything)
	hub.frame(messages => messages.map(message => message.data.row), { event, key: message => message.data.row })
	hub.publish({ row: 1 })
	hub.publish({ row: 1 }, { event, conflate: "row:1" })
	hub.publish("x", { event: "message", key: "k" })
	const any: Hub = hub
	// @ts-expect-error: a channel has a name
	hub.join()
	return any
}

// A page passes its hub on, also to what needs only some of it.
export const passed = (hub: Hub<Events>): Pick<Hub<Events>, "on"> => hub

export const inNode = () => connect<Events>("wss://example.com/ws", { WebSocket })

// @ts-expect-error: that is no class to connect with
export const wrong = () => connect("wss://example.com/ws", { WebSocket: fetch })

// The same for the hooks, the composables and the stores.
import type { Hub, MessageOf } from "caddy-broadcast"
import * as react from "caddy-broadcast/react"
import * as svelte from "caddy-broadcast/svelte"
import * as vue from "caddy-broadcast/vue"
import { get } from "svelte/store"
import { ref } from "vue"

type Events = { price: { row: number; price: number }; message: string }

export function inReact(own: Hub<Events>) {
	const { hub, state, error } = react.useHub<Events>("/ws", { onexpire: () => "/ws?token=1", ongap: gap => gap.channels })
	react.useHub(undefined)
	const prices = react.useMessages(hub, { event: "price", key: message => message.data.row, limit: 300 })
	const rows: number[] = prices.map(message => message.data.row)
	const all: readonly MessageOf<Events>[] = react.useMessages(hub)
	const shop = react.useMessages(own, { channel: "shop" })
	const untyped = react.useMessages(react.useHub("/ws").hub, { event: "price", key: message => message.data.row })
	// @ts-expect-error: there is no such event
	react.useMessages(hub, { event: "prize" })
	// @ts-expect-error: a price has no such field
	react.useMessages(hub, { event: "price", key: message => message.data.column })
	// @ts-expect-error: it is undefined in the first render
	hub.publish("hello")
	// @ts-expect-error: others use it too, so handlers are passed to useHub
	if (hub) hub.onstate = () => {}
	hub?.publish({ row: 1, price: 2 }, { event: "price" })
	// @ts-expect-error: a price is not a text
	hub?.publish("hello", { event: "price" })
	const { members, count } = react.usePresence(hub, "shop")
	return [state satisfies string, error?.status, rows, all, shop, untyped[0]?.data.anything, members?.[0]?.user, count + 1]
}

export function inVue() {
	const { hub, state } = vue.useHub<Events>(() => "/ws")
	const prices = vue.useMessages(hub, { event: "price", key: message => message.data.row })
	const rows: number[] = prices.value.map(message => message.data.row)
	vue.useMessages(hub, () => ({ channel: "shop" }))
	// @ts-expect-error: there is no such event
	vue.useMessages(hub, { event: "prize" })
	const { members, count } = vue.usePresence(hub, ref("shop"))
	return [state.value satisfies string, rows, members.value?.[0]?.user, count.value + 1]
}

export function inSvelte(own: Hub<Events>) {
	const connection = svelte.hubStore<Events>("/ws")
	const prices = svelte.messageStore(connection, { event: "price", key: message => message.data.row })
	const rows: number[] = get(prices).map(message => message.data.row)
	svelte.messageStore(own, { event: "message" })
	// @ts-expect-error: there is no such event
	svelte.messageStore(connection, { event: "prize" })
	const { members, count } = get(svelte.presenceStore(connection, "shop"))
	return [get(connection).state satisfies string, rows, members?.[0]?.user, count + 1]
}

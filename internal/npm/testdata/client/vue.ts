import { createApp, defineComponent, h, reactive } from "vue"
import { useHub, useMessages, usePresence } from "caddy-broadcast/vue"
import { first, type Events } from "./view.js"

const view = reactive({ ...first })
globalThis.show = changes => Object.assign(view, changes)

// It calls useHub too, with the address of Prices.
const Status = defineComponent(() => {
	const { state, error } = useHub(() => view.url)
	return () => h("p", { id: "state" }, [state.value, error.value?.status].join(" "))
})

const Prices = defineComponent(() => {
	const { hub } = useHub<Events>(() => view.url)
	const prices = useMessages(hub, () => ({ event: "price" as const, channel: view.channel, key: message => message.data.row }))
	const { members, count } = usePresence(hub, () => view.channel)
	return () => {
		seen.renders++
		return [
			h("p", { id: "prices" }, prices.value.map(({ data }) => `${data.row}=${data.price}`).join(" ")),
			h("p", { id: "present" }, [count.value, ...(members.value ?? []).map(member => member.user)].join(" ")),
		]
	}
})

createApp(() => (view.url ? [h(Status), h(Prices)] : h("p", { id: "state" }, "unmounted"))).mount("#app")

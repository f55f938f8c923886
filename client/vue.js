// Composables for Vue. They connect when a component is mounted, so that servers can render it. vue.d.ts documents them.
import { computed, shallowRef, toValue, watchPostEffect } from "vue"
import { DISCONNECTED, hubStore, messageStore, NO_MESSAGES, NOBODY, presenceStore } from "./stores.js"

// useStore returns a ref with the value of a store, which is created anew when a ref that create uses changes.
function useStore(initial, create) {
	const value = shallowRef(initial)
	watchPostEffect(onCleanup => {
		const store = create()
		const update = () => (value.value = store.get())
		onCleanup(store.subscribe(update))
		update()
	})
	return value
}

export function useHub(url, options) {
	const value = useStore(DISCONNECTED, () => hubStore(toValue(url), { current: options }))
	return {
		hub: computed(() => value.value.hub),
		state: computed(() => value.value.state),
		error: computed(() => value.value.error),
	}
}

export const useMessages = (hub, options) => useStore(NO_MESSAGES, () => messageStore(toValue(hub), toValue(options)))

export function usePresence(hub, channel) {
	const value = useStore(NOBODY, () => presenceStore(toValue(hub), toValue(channel)))
	return { members: computed(() => value.value.members), count: computed(() => value.value.count) }
}

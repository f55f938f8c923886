"use client"
// Hooks for React. They connect in effects only, so that servers can render the components. react.d.ts documents them.
import { useEffect, useMemo, useRef, useSyncExternalStore } from "react"
import { DISCONNECTED, hubStore, messageStore, NO_MESSAGES, NOBODY, presenceStore } from "./stores.js"

// useLatest returns a ref to the value of the last render, for functions that change with each one.
function useLatest(value) {
	const ref = useRef(value)
	useEffect(() => {
		ref.current = value
	})
	return ref
}

const useStore = (store, onServer) => useSyncExternalStore(store.subscribe, store.get, () => onServer)

export function useHub(url, options) {
	const latest = useLatest(options)
	const key = url && `${url}`
	return useStore(useMemo(() => hubStore(key, latest), [key]), DISCONNECTED)
}

export function useMessages(hub, options = {}) {
	const { event, channel, limit } = options
	const latest = useLatest(options.key ?? (message => message.id))
	const key = message => latest.current(message)
	const create = () => messageStore(hub, { event, channel, limit, key })
	return useStore(useMemo(create, [hub, event, channel, limit]), NO_MESSAGES)
}

export function usePresence(hub, channel) {
	return useStore(useMemo(() => presenceStore(hub, channel), [hub, channel]), NOBODY)
}

/**
 * Hooks for React 18 and later.
 *
 *     import { useHub, useMessages } from "caddy-broadcast/react"
 *
 *     const { hub, state } = useHub<{ price: { row: number; price: number } }>("/ws")
 *     const prices = useMessages(hub, { event: "price", key: message => message.data.row })
 */
import type { AnyEvents, EventName, Hub, MessageOf } from "./index.js"
import type { Connection, HubOptions, MessageOptions, Present } from "./stores.js"
export type * from "./index.js"
export type * from "./stores.js"

/**
 * Connects while the component is mounted. All components that use the same address at the same time share one connection,
 * with the options of the first; it is closed when the last of them is unmounted. Without an address it is not connected.
 */
export function useHub<E extends object = AnyEvents>(url: string | URL | null | undefined | false, options?: HubOptions): Connection<E>

/**
 * Returns the messages that arrived since the component was mounted. It renders the component at most once per frame, however
 * many messages arrive. Messages that have not changed are the same objects, so components made with memo are not rendered for
 * them.
 */
export function useMessages<E extends object = AnyEvents, K extends EventName<E> = "*">(
	hub: Hub<E> | undefined,
	options?: MessageOptions<E, K>,
): readonly MessageOf<E, K>[]

/** Returns who is present on a channel, if the route has the option presence. */
export function usePresence(hub: Pick<Hub, "presence"> | undefined, channel: string): Present

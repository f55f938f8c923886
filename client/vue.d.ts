/**
 * Composables for Vue 3.3 and later.
 *
 *     import { useHub, useMessages } from "caddy-broadcast/vue"
 *
 *     const { hub, state } = useHub<{ price: { row: number; price: number } }>("/ws")
 *     const prices = useMessages(hub, { event: "price", key: message => message.data.row })
 */
import type { ComputedRef, MaybeRefOrGetter, ShallowRef } from "vue"
import type { AnyEvents, EventName, Hub, MessageOf } from "./index.js"
import type { Connection, HubOptions, MessageOptions, Present } from "./stores.js"
export type * from "./index.js"
export type * from "./stores.js"

type Computed<T> = { [Name in keyof T]: ComputedRef<T[Name]> }

/**
 * Connects while the component is mounted. All components that use the same address at the same time share one connection,
 * with the options of the first; it is closed when the last of them is unmounted. Without an address it is not connected.
 */
export function useHub<E extends object = AnyEvents>(
	url: MaybeRefOrGetter<string | URL | null | undefined | false>,
	options?: HubOptions,
): Computed<Connection<E>>

/**
 * Returns the messages that arrived since the component was mounted. The ref changes at most once per frame, however many
 * messages arrive. Messages that have not changed are the same objects.
 */
export function useMessages<E extends object = AnyEvents, K extends EventName<E> = "*">(
	hub: MaybeRefOrGetter<Hub<E> | undefined>,
	options?: MaybeRefOrGetter<MessageOptions<E, K>>,
): Readonly<ShallowRef<readonly MessageOf<E, K>[]>>

/** Returns who is present on a channel, if the route has the option presence. */
export function usePresence(hub: MaybeRefOrGetter<Pick<Hub, "presence"> | undefined>, channel: MaybeRefOrGetter<string>): Computed<Present>

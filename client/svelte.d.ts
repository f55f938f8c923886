/**
 * Stores for Svelte 4 and later.
 *
 *     import { hubStore, messageStore } from "caddy-broadcast/svelte"
 *
 *     const connection = hubStore<{ price: { row: number; price: number } }>("/ws")
 *     const prices = messageStore(connection, { event: "price", key: message => message.data.row })
 *
 * The component uses $connection.state and $prices.
 */
import type { Readable } from "svelte/store"
import type { AnyEvents, EventName, Hub, MessageOf } from "./index.js"
import type { Connection, HubOptions, MessageOptions, Present } from "./stores.js"
export type * from "./index.js"
export type * from "./stores.js"

/**
 * Is connected while it has a subscriber. All stores that use the same address at the same time share one connection, with the
 * options of the first; it is closed when the last of them has no subscriber.
 */
export function hubStore<E extends object = AnyEvents>(
	url: string | URL | null | undefined | false,
	options?: HubOptions,
): Readable<Connection<E>>

/**
 * The messages that arrived since the store has a subscriber. It changes at most once per frame, however many messages arrive.
 * Messages that have not changed are the same objects.
 */
export function messageStore<E extends object = AnyEvents, K extends EventName<E> = "*">(
	connection: Readable<Connection<E>> | Hub<E> | undefined,
	options?: MessageOptions<E, K>,
): Readable<readonly MessageOf<E, K>[]>

/** Who is present on a channel, if the route has the option presence. */
export function presenceStore(
	connection: Readable<{ hub: Pick<Hub, "presence"> | undefined }> | Pick<Hub, "presence"> | undefined,
	channel: string,
): Readable<Present>

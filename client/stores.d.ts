import type { AnyEvents, EventName, Failure, FrameOptions, Gap, Hub, Member, MessageOf, Options, State } from "./index.js"

/** A hub that components share. Its handlers are passed to useHub or hubStore, not set. */
export interface SharedHub<E extends object = AnyEvents> extends Hub<E> {
	readonly onstate?: (state: State) => void
	readonly onerror?: (error: Failure) => void
	readonly ongap?: (gap: Gap) => void
	readonly onexpire?: () => string | URL | void | Promise<string | URL | void>
	readonly onentry: (entry: object) => void
}

/** The options of connect, which count when the connection is opened, and handlers, which need not stay the same. */
export interface HubOptions extends Options, Pick<Hub, "onstate" | "onerror" | "ongap" | "onexpire"> {}

export interface Connection<E extends object = AnyEvents> {
	/** The hub, or undefined while a server renders the page, in the first render, and without an address. */
	hub: SharedHub<E> | undefined
	state: State
	/** The last error, for example why the connection was refused. It is undefined again when the connection is open. */
	error: Failure | undefined
}

export interface MessageOptions<E extends object = AnyEvents, K extends EventName<E> = EventName<E>> extends FrameOptions<E, K> {
	/** Of messages with the same key, only the latest is kept, at the position of the first. Default: all are kept. */
	key?: (message: MessageOf<E, K>) => unknown
	/** How many messages are kept, or how many keys. The oldest are discarded. Default: 1000. */
	limit?: number
}

export interface Present {
	/** Undefined if there are more than 1000. Empty until the list has come. */
	members: Member[] | undefined
	/** All members, those without a user too, which are not listed. */
	count: number
}

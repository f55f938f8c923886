/**
 * The client of broadcast.d.ts, with who is present on its channels, for routes with the option presence.
 *
 *     import { connect } from "/ws?client=presence"        // the newest, or "/ws?client=presence@1"; see docs/versions.md
 *     const hub = connect("/ws")
 *     hub.presence("room:7", members => …)
 */
import type { AnyEvents, Hub, Member, Options, Presence } from "./broadcast.js"
export * from "./broadcast.js"

export function connect<E extends object = AnyEvents>(url: string | URL, options?: Options): PresenceHub<E>

export interface PresenceHub<E extends object = AnyEvents> extends Hub<E> {
	/** The client uses it itself. */
	onentry: (entry: object) => void

	/**
	 * Calls fn with all members of a channel, at once if the client already has them, then when they change, at most once per second,
	 * and again after each reconnect. A member is a user, however many connections it has. Above 1000 members, members is
	 * undefined, and only change.count is known. When the client leaves the channel, fn is not called any more. Returns a function
	 * that removes the listener.
	 */
	presence(channel: string, fn: (members: Member[] | undefined, change: Presence) => void): () => void
}

/**
 * One connection to a route of caddy-broadcast, which comes back by itself and goes on after the last message that it
 * has. It speaks broadcast.v1: by WebSocket, or where these are blocked by event stream and POST.
 *
 *     import { connect } from "/ws?client"
 *     const hub = connect("/ws")
 *     hub.on("price", price => …)
 */
export function connect(url: string | URL, options?: Options): Hub

export interface Options {
	/** Goes on after this message: the ID that a page was rendered at. Default: from now on. */
	lastId?: string
}

export interface Hub {
	/**
	 * What the connection is doing. Between "waiting" and "connecting" it comes back: at once, then after random times
	 * of up to 30 s; and as soon as the browser is online again or the page is looked at.
	 */
	readonly state: State

	/** The ID of the last message, or the position that the connection started at. */
	readonly lastId: string

	/** Called when the state changes. */
	onstate?: (state: State) => void

	/**
	 * Called when messages are lost for good: the server does not keep what these channels had before the position id, or
	 * dropped messages as the page was too slow. Load the state anew. What comes after it is complete.
	 */
	ongap?: (gap: { channels: string[]; id?: string }) => void

	/** Called with an error that answers no request, such as a channel that may not be joined any more. */
	onerror?: (error: { code: string; message: string }) => void

	/**
	 * Calls fn with the data of each message with the event, as it comes: "message" stands for messages without an event,
	 * "*" for all. With a channel, only of that. Returns a function that ends it.
	 */
	on(event: string, fn: (data: any, message: Message) => void, channel?: string): () => void

	/**
	 * Calls fn at most once an animation frame, with all messages since the last time, in order: one update of the page
	 * however many came. A hidden page has no frames: its messages wait, limit of them at most, and dropped says how many
	 * of the oldest are gone. Where there are no frames, as in Node, every 16 ms. Returns a function that ends it.
	 */
	frame(fn: (messages: Message[], dropped: number) => void, options?: FrameOptions): () => void

	/**
	 * Publishes data, which JSON can say, and promises the message's ID. It waits for a connection, and is repeated on
	 * the next one if that breaks, without being published twice, unless the server was restarted meanwhile. Rejects with
	 * an Error whose code is the server's ("forbidden", "too_big", "rate", …: see docs/protocol.md); "timeout" when there
	 * is no answer after 100 s and one more attempt to connect; "closed"; or, when a thousand requests wait already, the
	 * state.
	 */
	publish(data: any, options?: PublishOptions): Promise<string>

	/**
	 * Subscribes to one more channel, which the route's option join has to allow, now and after each reconnect. By event
	 * stream this connects anew, and what came on the channel since the last message comes too.
	 */
	join(channel: string): Promise<string | undefined>

	/** The other way. */
	leave(channel: string): Promise<string | undefined>

	/** Ends it for good. */
	close(): void
}

export type State = "connecting" | "open" | "waiting" | "closed"

export interface Message {
	id: string
	channel: string
	event?: string
	/** What was published: a JSON value, a text, or binary data in base64. */
	data: any
	encoding?: "base64"
}

export interface FrameOptions {
	/** Only messages with this event, see on. Default: "*". */
	event?: string
	/** Only messages of this channel. */
	channel?: string
	/** Of messages with the same key only the latest is kept, in its own place. Default: all are. */
	key?: (message: Message) => unknown
	/** How many messages wait at most. Default: 10000. */
	limit?: number
}

export interface PublishOptions {
	/** Default: none. */
	event?: string
	/** One that the connection is on, or the route's. Default: the route's first. */
	channel?: string
	/** The idempotency key. Default: one of its own. */
	key?: string
}

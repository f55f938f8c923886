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
	 * What the connection is doing. While it is "waiting", or "offline" because the browser has no network, the client
	 * tries again: immediately, then after random delays of up to half a minute, and as soon as the browser is online
	 * again or the page is looked at. It is "refused" after a failure with the code "forbidden", and then tries nothing
	 * until reconnect is called.
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

	/**
	 * Called with an error that answers no request: the server's, such as a channel that may no longer be joined, or why
	 * the client cannot connect. A browser does not tell why a WebSocket failed, so the client asks the route over HTTP.
	 */
	onerror?: (error: Failure) => void

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
	 * an Error that is a Failure, too. Its code is the server's ("forbidden", "too_big", "rate", …: see docs/protocol.md);
	 * "timeout" when there is no answer after 100 s and one more attempt to connect; or the state: "refused", "closed",
	 * or any when a thousand requests wait already. A message of more than about twice max_message ends the connection
	 * with 1009. It and the requests behind it, which the server has not read, reject with "error" and this status.
	 */
	publish(data: any, options?: PublishOptions): Promise<string>

	/**
	 * Subscribes to one more channel, which the route's option join has to allow, now and after each reconnect. By event
	 * stream this connects anew, and what came on the channel since the last message comes too.
	 */
	join(channel: string): Promise<string | undefined>

	/** The other way. */
	leave(channel: string): Promise<string | undefined>

	/**
	 * Connects now: after "refused", for example when the user has logged in, or anew. If a listener calls it, messages
	 * that came together with the one that it has may come once more.
	 */
	reconnect(): void

	/** Ends the connection, and all requests. Only reconnect would open it again. */
	close(): void
}

export type State = "connecting" | "open" | "waiting" | "offline" | "refused" | "closed"

export interface Failure {
	/**
	 * The code of a broadcast.v1 error, see docs/protocol.md. For an answer over HTTP or a closed connection it is
	 * "forbidden", which ends in the state "refused", or else "error", and the client tries again.
	 */
	code: string
	/**
	 * The HTTP status or the close code, if there is one. 401, 403, 404, and close codes from 4400 to 4499 are
	 * "forbidden". 1009 is an "error": a message was too long for the connection. A closed connection has no failure
	 * otherwise.
	 */
	status?: number
	/** What the server says: the first line of the response, if it is not HTML, or the reason of the close. Else the code. */
	message: string
}

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
	/** The idempotency key. Default: one of its own. With an undefined one the message may be published twice. */
	key?: string
}

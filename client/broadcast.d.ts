/**
 * One connection to a route of caddy-broadcast. It reconnects on its own and resumes after the last message it received. It
 * speaks broadcast.v1 over a WebSocket, or, where WebSockets are blocked, over an event stream and POST.
 *
 *     import { connect } from "/ws?client"        // the newest, or "/ws?client=1"; see docs/versions.md
 *     const hub = connect("/ws")
 *     hub.on("price", price => …)
 *
 * In TypeScript, name the events and the data of each. Then on, frame and publish check them; "message" stands for messages
 * without an event:
 *
 *     const hub = connect<{ price: { row: number; price: number }; message: string }>("/ws")
 */
export function connect<E extends object = AnyEvents>(url: string | URL, options?: Options): Hub<E>

export interface Options {
	/** Resumes after this message, for example the ID at which a page was rendered. Default: only new messages. */
	lastId?: string

	/**
	 * The class to connect with, where there is no global WebSocket, as in Node before version 22: that of the npm package ws. It
	 * is also a way to add headers to the handshake, with a class that extends it.
	 */
	WebSocket?: new (url: URL, protocol: string) => { send(data: string): void; close(): void }
}

/** Events of any name, with any data: those of a hub whose events are not named. */
export type AnyEvents = Record<string, any>

/** The names of the events that a listener can choose from. */
export type EventName<E extends object = AnyEvents> = (keyof E & string) | "*"

/** The data of messages with an event, or with one of them: "*" stands for all. */
export type DataOf<E extends object, K extends EventName<E> = "*"> = K extends keyof E ? E[K] : E[keyof E & string]

/** A message with an event, or with one of them. If you compare its event, TypeScript knows its data. */
export type MessageOf<E extends object, K extends EventName<E> = "*"> = string extends keyof E
	? Message
	: {
			[N in keyof E & string]: Message<E[N]> & { event: N extends "message" ? undefined : N }
		}[K extends "*" ? keyof E & string : K & keyof E & string]

export interface Hub<E extends object = AnyEvents> {
	/**
	 * What the connection is doing. While it is "waiting", or "offline" because the browser has no network, the client
	 * retries: immediately, then after random delays of up to half a minute, and as soon as the browser is online again or
	 * the page becomes visible. After a failure with the code "forbidden" it is "refused", and makes no further attempts
	 * until reconnect is called.
	 */
	readonly state: State

	/** The ID of the last message, or the position at which the connection started. */
	readonly lastId: string

	/** Called when the state changes. */
	onstate?: (state: State) => void

	/**
	 * Called when messages are lost for good: the server no longer keeps what these channels had before the position id, it
	 * dropped messages because the page was too slow, or its message broker has lost some. Load the state again. What arrives
	 * afterwards is complete.
	 */
	ongap?: (gap: Gap) => void

	/**
	 * Called half a minute or more before access ends, if the route has the option expires, so that the page can get new access. The
	 * client then reconnects and resumes: to the address that the function returns, such as one with a new token, or to the same
	 * one if it returns nothing, as after a session cookie was renewed. It is also called, once, when access has ended already (401
	 * or 4401). The client then waits 100 s for it at most. Without it, or if the new access is not accepted, the state becomes "refused".
	 */
	onexpire?: () => string | URL | void | Promise<string | URL | void>

	/**
	 * Called with an error that does not belong to a request: one from the server, for example about a channel that may no
	 * longer be joined, or the reason why the client cannot connect. Browsers do not tell pages why a WebSocket failed, so
	 * the client asks the route over HTTP.
	 */
	onerror?: (error: Failure) => void

	/**
	 * Called with each entry of broadcast.v1, after the client has dealt with it; see docs/protocol.md. It is for modules that add
	 * to the client, as presence.js does. Entries that the client does not know, which it ignores, are passed on too.
	 */
	onentry?: (entry: object) => void

	/**
	 * Calls fn with the data of each message with this event, as it arrives. "message" stands for messages without an event,
	 * "*" for all messages. With a channel, only messages of that channel. Returns a function that removes the listener.
	 */
	on<K extends EventName<E>>(event: K, fn: (data: DataOf<E, K>, message: MessageOf<E, K>) => void, channel?: string): () => void

	/**
	 * Calls fn at most once per animation frame, with all messages received since the last call, in order. The page then
	 * updates once, however many messages arrived. A hidden page has no frames: its messages are queued, up to limit, and
	 * dropped is the number of older ones that were discarded. Where there are no frames, as in Node, fn is called at most
	 * every 16 ms. Returns a function that removes the listener.
	 */
	frame<K extends EventName<E> = "*">(
		fn: (messages: MessageOf<E, K>[], dropped: number) => void,
		options?: FrameOptions<E, K>,
	): () => void

	/**
	 * Publishes data that can be represented as JSON, and resolves to the message's ID. It waits for a connection. If that
	 * breaks, it is retried on the next one, without being published twice, unless the server crashed in between, or was restarted
	 * without a history file.
	 *
	 * It rejects with an Error that is also a Failure. The code is the server's ("forbidden", "too_big", "rate", …: see
	 * docs/protocol.md); "timeout" if there is no answer after 100 s and one more attempt to connect; or the state: "refused"
	 * or "closed", or whichever it is when a thousand requests are already waiting.
	 *
	 * With a message broker there are two more codes: "unavailable" if nothing was published, and "unknown" if it may have
	 * been. To repeat a message without publishing it twice, choose its key yourself.
	 *
	 * A message longer than about twice max_message ends the connection with 1009. It and the requests after it, which the
	 * server has not read, reject with the code "error" and this status.
	 */
	publish(
		data: "message" extends keyof E ? E["message"] : never,
		options?: PublishOptions<string extends keyof E ? string : "message">,
	): Promise<string>
	publish<K extends keyof E & string>(data: E[K], options: PublishOptions<K> & { event: K }): Promise<string>

	/**
	 * Subscribes to another channel, now and after each reconnect. The route's option join must allow it. Over an event
	 * stream this reconnects, and messages published on the channel since the last message arrive too.
	 */
	join(channel: string): Promise<string | undefined>

	/**
	 * Unsubscribes from the channel. A channel that the backend has subscribed the client to is treated as one that it has joined, and
	 * one that the backend has unsubscribed it from as one that it has left.
	 */
	leave(channel: string): Promise<string | undefined>

	/**
	 * Connects now: after "refused", for example when the user has logged in, or with a new connection. If a listener calls
	 * it, messages that arrived together with the one it was called with may arrive a second time.
	 */
	reconnect(): void

	/** Ends the connection, and rejects all pending requests. Only reconnect opens it again. */
	close(): void
}

export type State = "connecting" | "open" | "waiting" | "offline" | "refused" | "closed"

export interface Failure {
	/**
	 * The code of a broadcast.v1 error; see docs/protocol.md. For an HTTP response or a closed connection it is "forbidden",
	 * which leads to the state "refused", or otherwise "error", after which the client retries.
	 */
	code: string
	/**
	 * The HTTP status or the close code, if there is one. 401, 403, 404, and close codes from 4400 to 4499 are "forbidden".
	 * 1009 is an "error": a message was too long for the connection. Other close codes cause no failure.
	 */
	status?: number
	/** The server's explanation: the first line of the response, if it is not HTML, or the close reason. Otherwise the code. */
	message: string
}

export interface Message<Data = any> {
	id: string
	channel: string
	event?: string
	/** What was published: a JSON value, text, or binary data in base64. */
	data: Data
	encoding?: "base64"
}

/** Messages of these channels are lost: those before the position id, or, if it has none, some between the messages around it. */
export interface Gap {
	channels: string[]
	id?: string
}

export interface FrameOptions<E extends object = AnyEvents, K extends EventName<E> = EventName<E>> {
	/** Only messages with this event; see on. Default: "*". */
	event?: K
	/** Only messages of this channel. */
	channel?: string
	/** Of messages with the same key, only the latest is kept, at its own position. Default: all are kept. */
	key?: (message: MessageOf<E, K>) => unknown
	/** Maximum number of queued messages. Default: 10000. */
	limit?: number
}

export interface PublishOptions<K extends string = string> {
	/** Default: none. */
	event?: K
	/** A channel that the client has joined, or one of the route's. Default: the route's first. */
	channel?: string
	/** Whether the server keeps the message for clients that come back. Default: true, as far as it has a history. */
	keep?: boolean
	/** The idempotency key. Default: a random one. If it is set to undefined, the message may be published twice. */
	key?: string
	/** The conflate key, such as "row:7": slow clients may get only the newest message that has it on the channel. Default: none. */
	conflate?: string
}

/**
 * An entry of a frame from the server, for programs that speak broadcast.v1 without this client. A frame is an array of
 * entries; an empty one is the heartbeat. Later versions may add entries of other names: ignore them. See docs/protocol.md.
 */
export type Entry =
	| Message
	| { hello: Hello }
	| { gap: Gap }
	| { ack: Ack }
	| { error: ErrorEntry }
	| { subscribed: { channel: string; id: string } }
	| { unsubscribed: { channel: string } }
	| { presence: Presence }
	| { close: { code: number; reason: string } } // in an event stream only

/** Always the first entry. */
export interface Hello {
	/** The connection's ID. */
	connection: string
	channels: string[]
	/** The position to resume from until the first message arrives. */
	id: string
	/** Whether nothing was missed since last_id. */
	resumed: boolean
	/** Seconds between heartbeats. */
	heartbeat: number
	/** Seconds until access ends, if it does. */
	expires?: number
}

export interface Member {
	user: string
	/** What the route's option member says of the user. */
	data?: any
}

/** Who is present on a channel: with members it is all of them, with joined and left what has changed, otherwise only their number. */
export interface Presence {
	channel: string
	/** All members, those without a user too, which are not listed. */
	count: number
	members?: Member[]
	/** Who has come, or whose data has changed. */
	joined?: Member[]
	left?: Member[]
}

export interface Ack {
	ref?: number | string
	/** Of a publish: the message's ID. Of a join: the position from which the client gets messages of the channel. */
	id?: string
	/** Of a join. */
	channel?: string
	/** Of a join: whether nothing was missed since last_id. */
	resumed?: boolean
}

export interface ErrorEntry {
	/** That of the request. An error that does not belong to a request has none. */
	ref?: number | string
	code: ErrorCode
	message: string
}

export type ErrorCode =
	| "invalid"
	| "forbidden"
	| "too_big"
	| "conflict"
	| "limit"
	| "full"
	| "unavailable"
	| "unknown"
	| "rate"

/** A request to the server, for programs that speak broadcast.v1 without this client. See docs/protocol.md. */
export type ClientRequest = { ref?: number | string } & (
	| { publish: { data: unknown; encoding?: "base64" } & PublishOptions }
	| { join: { channel: string; last_id?: string } }
	| { leave: { channel: string } }
)

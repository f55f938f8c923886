// Package resp is a server of the Redis protocol, as far as publishers need it, and a client that subscribes to a real Redis.
// The server lets a program that publishes to Redis publish here instead, without a change: python-socketio's message queue,
// redis-emitter, kombu, or any Redis client. It knows nothing of the hub: what PUBLISH does is up to a Publisher.
//
// Both versions of the protocol are spoken, RESP2 and RESP3 (https://redis.io/docs/latest/develop/reference/protocol-spec/).
// Answers and errors are those of Redis 7.0, word for word, because clients look at them; TestAsRedis compares the two.
//
// The life of a connection: one goroutine reads and runs commands in place, in the read buffer, and writes the answers of all
// commands that one read brought at once. A second goroutine that writes exists only for connections that need one: those that
// subscribe, and those whose Publisher holds answers back.
//
// Who owns what, and which lock comes first:
//
//  1. What the reading goroutine owns is under "The reader's" in Conn, and needs no lock.
//  2. Conn.mu guards what is waiting to be written. Nobody writes to a socket or calls the Publisher while holding it.
//  3. subscriptions.mu is taken before Conn.mu: a message is queued for all its subscribers in one step, so each of them gets
//     the messages in the same order.
//  4. Server.mu guards the list of connections, and is taken before Conn.mu and never with subscriptions.mu.
package resp

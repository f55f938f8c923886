// Package hub is the engine: one log that gives every message its position, and loops that own the connections and
// write to them. It knows no HTTP, no Caddy and no wire format.
//
//	Publish ──► log (Hub) ──► outbox ──► inbox of each loop that has a subscriber of the channel
//	                                         │ takes all that is waiting, as one batch
//	                                         ▼
//	                                       loop ──► one non-blocking write for each connection
//
// # Concurrency properties
//
//  1. Hub.mu guards the log, the channels, and what limits count. The order in which publishers, subscribers and closers get
//     it is the order of everything that connections see: each adds its entry to the outbox under it. Afterwards one
//     goroutine at a time moves what is in the outbox to the inboxes of the loops (Hub.wake), in that order. The locks of
//     the outbox and of an inbox are leaves, and are held for moments.
//  2. Nothing slow happens under Hub.mu: no socket is written, no loop is woken, and no message is encoded (except by
//     the last try of Conn.Join). Where there may be much to do, it is done in pieces of at most atOnce, and others get
//     the lock in between.
//  3. A function whose name ends in Locked is called with a mutex held: in write.go and input.go that is Conn.mu, in
//     flushers.go its own, everywhere else Hub.mu.
//  4. A connection belongs to one loop, from Connect to its end. Its subscriptions, messages and closing all come
//     through the loop's inbox, so they have one order: before a subscription's entry there is history, after it all
//     that is published.
//  5. A subscription counts when it is in the log (audience.size, by Hub.mu), and is effective when the loop comes to
//     its entry (the audience's groups, the loop's own). The loop's view lags behind, but is never in another order.
//  6. A loop gathers messages and delivers them together. It delivers what it has gathered before it changes an audience
//     that the messages are for, or writes anything else to one of their connections (see loop.barrier).
//  7. A connection's sink is used by one goroutine at a time. While Conn.flushing is false that is the loop, and the
//     backlog is empty; while it is true it is one flusher. Only the flusher, and Start, make it false.
//  8. Conn.mu guards the backlog, and is held for moments: a flusher tries to write under it, and releases it to encode, and
//     to wait for a peer. Hub.mu may be taken under Conn.mu, never the other way around.
//  9. Publish waits for no subscriber. What exceeds a limit is rejected (ErrFull), or the publisher waits for room in an
//     inbox (PublishWait), which its loop makes without waiting for anyone.
//  10. A message that was published does not change, except for the encodings that the wire formats keep in it, which
//     Message.mu guards. Bytes in backlogs are shared and do not change. Only counters are atomic.
//
// # Emits
//
// What only Socket.IO has is in Message.Emit, and costs other messages a comparison with nil:
//
//   - emit.go has what an emit says, and what of the history a connection gets then.
//   - emitted.go has the loop deliver an emit to several rooms once to each connection. It is one message for each room, next to
//     each other in the log, so that positions, history, brokers and resuming know nothing of it.
//   - names.go has the names of connections, private messages, and what is kept of these.
//   - enter.go has a connection join channels and take a name, or the place of another one, under one lock.
//   - command.go does to connections what a backend asks for.
//   - emitcode.go is what an emit is in the log that nodes share. Private messages and commands have a channel there of their
//     own, which a node opens with its first name.
//
// # A log that several nodes share
//
// With a log of package broker (Hub.UseLog) a message goes another way until it is in the inboxes, and the same way from there:
//
//	Publish ──► Log.Publish ──► broker ──► the publisher's answer, with the position
//	                              │ to every node that has the channel open
//	                              ▼
//	                           Sink.Entries ──► ingest ──► inbox of each loop ──► as above
//	                                              └──► history, a cache of the channels that are open
//
// The hub then numbers nothing. Hub.seq is the watermark W of package broker, and what a file does serves the rules there:
//
//   - log.go attaches a log, and is its Sink. UseLog runs in the goroutine that applies a configuration. The methods of the
//     Sink run in the log's goroutines, one at a time: sharedLog.order is held during each of them. A timer closes the
//     connections of a node that cannot follow the log for too long.
//   - async.go publishes, in the publisher's goroutine. The answer comes in one of the log's, which must not block.
//   - ingest.go moves W and fills the inboxes (rule 1). It is the only one that waits for room in the log's goroutine,
//     because nobody can refuse what is in the log already.
//   - await.go makes a handshake or a join wait, in its own goroutine and without a lock, until its channels are open and W
//     is at the client's position (rules 2 and 3). Then Connect and Join go on as without a log.
//   - read.go reads what the history lacks. Each read has its own goroutine, of which there are at most maxShortReads at work,
//     or maxReads with much to read, and all that wait for the same channel wait for one read.
//   - late.go is what the loops do with an entry that comes late, and with a gap (rule 4). Only a loop knows how far each of
//     its connections is. lost.go is what the Sink does when the log says that something is lost.
//   - idle.go closes channels that nobody has needed for idleTime, in the goroutine of one timer.
//   - catchup.go has a log of the same epoch take the place of another one, after a reload. What comes live is held
//     (rule 5), while one goroutine reads what the log before had not delivered.
//
// The hub calls no method of the log under Hub.mu, because the log may call back before it returns. The order of locks is
// sharedLog.order, then Hub.mu. In comments I1 to I7 are the rules of package broker with these numbers.
package hub

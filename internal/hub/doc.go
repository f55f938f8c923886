// Package hub is the engine: one log that gives every message its place, and loops that own the connections and
// write to them. It knows no HTTP, no Caddy and no wire format.
//
//	Publish ──► log (Hub) ──► inbox of each loop that has a subscriber of the channel
//	                              │ takes all that is waiting, as one batch
//	                              ▼
//	                            loop ──► one non-blocking write a connection
//
// Who owns what: Hub.mu guards the log, the table of channels and the loops' inboxes, and is never held while a
// socket is written. A loop alone touches the membership and the state of its connections. A connection's backlog is
// shared by its loop and, while there is one, its flusher, under Conn.mu.
package hub

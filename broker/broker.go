// Package broker is what a message broker implements so that several Caddy processes can share one log. It imports only the
// standard library. A Caddy module of the namespace broadcast.brokers that implements Broker can be used as
//
//	broadcast {
//		broker <name> ...
//	}
//
// Without a broker the hub of each process is its own log: it gives each message its position and delivers it. With one, the
// hub publishes to the Log, and delivers only what comes back from it, its own messages too. So all processes, called nodes
// here, deliver the same messages in the same order, and a client that moves from one node to another resumes where it was.
//
// # Guarantees
//
// A node's watermark W is a position such that the hub has everything of its open channels up to W, or was told what it
// lacks. What the hub promises to clients rests on these rules. Package brokertest checks a log's part of them:
//
//  1. W only grows within an epoch. Everything in the log's order moves it: entries of open channels, entries of channels
//     that are being opened, and calls of Advance.
//  2. The hub only tells clients positions that are at most W, and each message after such a position follows.
//  3. A client that returns with a position beyond W is answered when W has reached it: see Log.Barrier.
//  4. An entry that comes late, at a position below W, is the exception after a fault. The hub gives it only to connections
//     that cannot have gone past it, and reports a gap to the others.
//  5. A log that cannot be sure that it receives everything delivers nothing until it has caught up. So when the node gets an
//     entry of an open channel, it has everything before it on that channel, or was told what it lacks.
//  6. A publisher's ack has the position that the log stored the message at. One key has one position, on every node.
//  7. A position is never given to two messages of one epoch. A log that would do that, because its broker has lost data,
//     first changes the epoch.
//  8. Positions that a log returns are of the epoch that it has given to Sink.Epoch last. If the epoch has changed since the
//     call, the log returns an error instead.
package broker

import (
	"context"
	"errors"
	"time"
)

// Errors of Publish, Open, Barrier and Read. A log may wrap them.
var (
	// ErrDown says that the broker cannot be reached, and that nothing was stored. It may be tried again.
	ErrDown = errors.New("the broker cannot be reached: nothing was published")

	// ErrUnknown says that the broker did not confirm in time. The entries may be stored or not. A publisher that tries
	// again with the same key does not publish twice.
	ErrUnknown = errors.New("the broker did not confirm in time: the message may have been published")

	// ErrConflict says that the key was used for an entry with another digest. Nothing was stored.
	ErrConflict = errors.New("the idempotency key was used for another message")

	// ErrTooBig says that an entry exceeds what the broker accepts. Nothing was stored.
	ErrTooBig = errors.New("the message is larger than the broker accepts")

	// ErrClosed says that the Log was closed.
	ErrClosed = errors.New("the connection to the broker is closed")
)

// PartialError is the error of Publish for entries that are too many to be stored at once, if some are stored and the rest
// are not. It is the only case in which a part of a call is published.
type PartialError struct {
	Places []Place // those of the first entries, which are stored
	Err    error   // why the next one is not: ErrDown, ErrUnknown, ErrConflict or ErrTooBig
}

func (e *PartialError) Error() string {
	return "only some of the messages were published: " + e.Err.Error()
}
func (e *PartialError) Unwrap() error { return e.Err }

// Entry is one message in the log.
type Entry struct {
	// Seq is the position, from 1. The log sets it.
	Seq uint64

	// Time is when it was stored, in milliseconds since 1970, by the clock of the log. The log sets it.
	Time int64

	// Channel is 1 to 255 bytes of UTF-8 without control characters; only the hub's own channels begin with "\x01". Event is as
	// long at most, and may be empty.
	Channel, Event string

	// Kind and Data are the content. A log keeps both as they are.
	Kind uint8
	Data []byte

	// Key is the digest of an idempotency key, its channel and its publisher. If it is not zero, then entries with the same
	// Key that are published within two minutes, on any node, are one.
	Key [16]byte

	// Digest is a digest of Kind, Event and Data that is the same on all nodes. It tells whether two entries with one Key
	// are the same message. It is set only with a Key.
	Digest uint64

	// Node is the node that published the entry, and Conn a connection there that does not get it, or 0.
	Node, Conn uint64
}

// Place is where an entry was stored.
type Place struct {
	Seq  uint64
	Time int64 // as Entry.Time; 0 if the log cannot say

	// Repeated says that the key was known. Seq is then the position of the first entry with it, and no other was stored.
	Repeated bool
}

// Log is one order of entries that all nodes share. Its methods do not block, except Read, Last and Close. They may be
// called by several goroutines at once, and those that do not block also inside callbacks.
//
// Callbacks, which are the functions that methods are given and those of the Sink, may come before the method returns, and
// each function is called exactly once. After Close has returned none is called. The calls of the Sink and of opened are
// in one order: no two of them at once.
type Log interface {
	// Publish appends entries next to each other, all of them or none, in the order of the calls. The entries and their
	// Data belong to the log afterwards. done gets a place for each entry, or an error: ErrDown, ErrUnknown, ErrConflict,
	// ErrTooBig, ErrClosed, or a *PartialError. The log decides how long to wait for the broker, and ends with ErrUnknown.
	//
	// Places are positions of the epoch that the Sink was told last, and while done runs Sink.Epoch is not called. Entries
	// that were stored in an epoch that has ended may be lost: they are answered with ErrUnknown.
	//
	// An entry whose key is known is not stored again: its place is that of the first one, with Repeated. The order of calls
	// is kept for a publisher that waits for done, or whose calls all succeed.
	Publish(es []Entry, done func([]Place, error))

	// Open subscribes the node to channels. opened gets a position: every entry of the channels after it will come through
	// the Sink, and W has reached it. Entries of a channel that come before opened only move W. What is before the position is
	// history, and is not read. opened gets an error, and the channels are not open, if the log is closed; while the
	// broker cannot be reached it is not called. The channel "" stands for all channels, and may be open together with
	// others: an entry still comes once.
	Open(channels []string, opened func(at uint64, err error))

	// Release ends the subscription to open channels, or to channels that are being opened, whose opened is then called
	// with ErrClosed. Some of their entries may still come.
	Release(channels []string)

	// Barrier calls done when everything that was stored before the call has been given to the Sink, with the position that
	// W has then. Calls that wait at the same time may share one exchange with the broker. done gets ErrDown if the broker
	// cannot be reached.
	Barrier(done func(seq uint64, err error))

	// Read returns the entries of a channel after a position that were stored before the call, oldest first. If these are more
	// than n entries, or about so many bytes of data, it returns the oldest of them, at least one, and complete is false.
	// complete is also false if an entry after the position may be missing, because it is not stored any more. Read returns an
	// error if the epoch is, or becomes, another one than the Sink had been told when Read was called.
	Read(ctx context.Context, channel string, after uint64, n, bytes int) (es []Entry, complete bool, err error)

	// Last returns the newest entries of a channel, oldest first: at most n, and about so many bytes of data, but at least one
	// if there is one. If the epoch changes it returns an error, as Read does.
	Last(ctx context.Context, channel string, n, bytes int) ([]Entry, error)

	// Retain changes what the log has to keep.
	Retain(Retention)

	// Status describes the connection to the broker. It returns at once.
	Status() Status

	// Close ends the subscriptions and the connection. Publishes without an answer are done with ErrUnknown, and other
	// calls with ErrClosed, before it returns.
	Close()
}

// Sink is what the hub implements, and a Log calls. Its methods never wait for a call of the Log.
type Sink interface {
	// Epoch begins an epoch: the first one, or another one after the broker has lost data. Positions of other epochs mean
	// nothing. W becomes at, and every entry of open channels after that position will come. The epoch is 1 to 32 letters and digits.
	Epoch(epoch string, at uint64)

	// Entries gives the hub a run of entries in the order of the log. It may wait while the hub has no room. Entries of
	// channels that are not open may be among them. Between Broken and Repaired, a run may have late entries.
	Entries(run []Entry)

	// Advance moves W to a position, without an entry.
	Advance(seq uint64)

	// Broken says that from here on entries may be missing, and why. No entries come until the log knows what it lacks. Then
	// it calls Lost, if something is lost, gives the hub the entries that it has missed, and calls Repaired. A Log begins as
	// Broken.
	Broken(why error)

	// Lost says that messages of channels may be missing before the next ones, between Broken and Repaired. "" stands for all
	// channels.
	Lost(channels []string)

	// Repaired says that the log has caught up.
	Repaired()
}

// Retention is what a log has to keep so that clients can resume.
type Retention struct {
	Messages int           // of each channel
	Age      time.Duration // how long; 0 means no limit
}

// Status describes a connection to a broker, for people and for metrics.
type Status struct {
	// Up reports whether the log receives everything: it is connected and has caught up.
	Up bool

	// Server is the server that it is connected to, without secrets. It is empty if it is connected to none.
	Server string

	// Problem says what is wrong, for people, without secrets. It is empty if nothing is.
	Problem string

	// Heard is when the last sign of life came through the whole path, from the broker to the Sink.
	Heard time.Time

	// Clock is the present time by the clock that sets Entry.Time. It is zero if the log does not know it. Then the clock of
	// this process is used, and the ages of entries are wrong by the difference between the two.
	Clock time.Time

	// MaxData is how many bytes of data an entry may have. 0 is unknown.
	MaxData int

	// QueueBytes is the size of what was received and not yet given to the Sink.
	QueueBytes int64

	// Foreign counts what was received but not published by any node.
	Foreign uint64

	// Repairs counts how often the log had to catch up, by cause: reconnect, tick, chain, leader, audit, overflow, epoch.
	Repairs map[string]uint64
}

// Options is what the hub gives a Broker.
type Options struct {
	// Node is a random number that names this node among all others.
	Node uint64

	// Name is what people call this node. It need not be unique, and may be empty.
	Name string

	// Retention is what the log has to keep.
	Retention Retention

	// Message gets what other nodes have sent to this one with Peers.Send. It returns at once and keeps the message. It may
	// be called at the same time as the Sink, and by several goroutines. If it is nil, messages are dropped.
	Message func(from uint64, message []byte)
}

// Broker is what a Caddy module of the namespace broadcast.brokers implements. Its Validate has to find options that cannot
// work, because Dial is called only when the configuration has been accepted, and a rejected configuration must change nothing.
// The Log outlives the module if the next configuration has the same options, so the module's Cleanup must not end what the
// Log uses.
type Broker interface {
	// Dial returns a Log at once, which begins as Broken and keeps connecting until it is closed. An error means that the
	// options cannot work, not that the broker cannot be reached.
	Dial(Sink, Options) (Log, error)
}

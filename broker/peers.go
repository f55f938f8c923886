package broker

// Peers is what a Log also implements if its nodes can reach each other beside the log. It is optional: without it each
// node knows only its own connections and subscribers. It is for people who administer a cluster, so nothing that clients
// are promised depends on it.
//
// Its methods do not block, and may be called by several goroutines at once, and inside callbacks. After Close has returned
// no callback is called.
type Peers interface {
	// Send sends a message of at most MaxMessage bytes to one node, or to all other nodes if the number is 0. They get it
	// through Options.Message. Nothing is stored: a message comes once or not at all, and messages may overtake each other.
	// The message belongs to the log afterwards.
	Send(to uint64, message []byte)

	// SetCounts says how many subscribers this node has on some channels. The broker keeps the numbers until they are set
	// again, and may forget all of them when it loses data. 0 removes one. done gets ErrDown, ErrUnknown or ErrClosed if some may
	// not be stored; then they have to be set again. A later call for a channel takes effect after an earlier one.
	SetCounts(counts map[string]int, done func(error))

	// Counts calls done with the numbers that all nodes have set, this one included: for each channel, in the order of the
	// argument, by node. A node that has not set any is missing. Numbers of nodes that have ended stay until Forget.
	Counts(channels []string, done func([]map[uint64]int, error))

	// Forget removes all numbers of another node, which has ended. Several nodes may do it at once. It may do so lazily, when
	// Counts finds some.
	Forget(node uint64)
}

// MaxMessage is the size of the largest message that Peers.Send has to take.
const MaxMessage = 256 << 10

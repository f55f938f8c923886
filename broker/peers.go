package broker

// Peers is what a Log also implements if its nodes can reach each other outside the log. It is optional: without it each
// node knows only its own connections and subscribers. It is for administrators: no promise to clients depends on it.
//
// Its methods do not block, and may be called by several goroutines at once, and inside callbacks. Arguments belong to the
// log afterwards. Each callback is called exactly once, and none after Close has returned.
type Peers interface {
	// Send sends a message of at most MaxMessage bytes to one node, or to all other nodes if the number is 0. They get it
	// through Options.Message. Nothing is stored: a message comes once or not at all, and messages may overtake each other.
	// A node gets none from itself.
	Send(to uint64, message []byte)

	// SetCounts stores how many subscribers this node has on some channels. The channel "", which stands for all channels, may
	// be one of them. 0 removes a number. done gets ErrDown, ErrUnknown or ErrClosed if some numbers may not be stored; then
	// they have to be set again. A later call for a channel takes effect after an earlier one.
	//
	// The broker keeps a number until it is set again, but may drop it after an hour. It may forget all numbers when it loses
	// data. A log reports neither that, nor that another node has called Forget. So a node sets all its numbers again now and
	// then.
	SetCounts(counts map[string]int, done func(error))

	// Counts calls done with the numbers that all nodes have set, this one included: for each channel, in the order of the
	// argument, a map by node. A node that has not set a number is not in it. The numbers may be a second old. Those of nodes
	// that have ended stay until Forget. done gets ErrDown or ErrClosed if they are not available.
	Counts(channels []string, done func([]map[uint64]int, error))

	// Forget removes all numbers of another node, which has ended. Several nodes may do it at once. What the node sets later,
	// because it has not ended after all, is kept.
	Forget(node uint64)
}

// MaxMessage is the size of the largest message that Peers.Send has to take.
const MaxMessage = 256 << 10

package brokertest

import "github.com/caddy-broadcast/caddy-broadcast/broker"

// Traffic is what a node and the broker have sent each other, since the node's MemoryBroker was made. Faults count too: what
// was lost has been sent.
type Traffic struct {
	Publish Flow // entries that the node has published
	Ack     Flow // answers to its calls of Publish
	Entry   Flow // entries that it was sent because it is subscribed to their channels
	Tick    Flow // signs of life
	Barrier Flow
	Open    Flow // channels that it has subscribed to
	Read    Flow // calls of Read and Last, and what they returned
	Message Flow // that it was sent of what other nodes have sent with Peers.Send
	Counts  Flow // numbers of subscribers that it has set
	CatchUp Flow // the first connection, reconnects and repairs, and what it was sent then
}

// Flow is a number of messages, and their size. The size is that of channels, events and data. What a real broker puts around
// them comes on top.
type Flow struct{ Messages, Bytes uint64 }

func (f *Flow) add(messages, bytes int) {
	f.Messages += uint64(messages)
	f.Bytes += uint64(bytes)
}

// Traffic returns what the node and the broker have sent each other.
func (b *MemoryBroker) Traffic() (t Traffic) {
	b.set(func() { t = b.traffic })
	return t
}

func sizeOf(e *broker.Entry) int { return len(e.Channel) + len(e.Event) + len(e.Data) }

func size(es []broker.Entry) (n int) {
	for i := range es {
		n += sizeOf(&es[i])
	}
	return n
}

func names(channels []string) (n int) {
	for _, name := range channels {
		n += len(name)
	}
	return n
}

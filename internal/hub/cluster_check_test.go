package hub

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/oracle"
)

// trace is a format that shows all that a connection is told. A gap comes with the newest position that the log has then: what
// is missing after that is not excused by it.
type trace struct{ c *cluster }

func (trace) Append(dst []byte, run []*Message) []byte {
	for _, m := range run {
		dst = oracle.Message(dst, m.Channel, m.ID(), m.Data)
	}
	return dst
}

func (trace) Ping() []byte { return nil }

func (trace) Close(why Reason, _ string) []byte { return oracle.Closed(nil, why) }

func (t trace) Gap(channels []string) []byte { return oracle.Gap(nil, channels, t.c.position()) }

// position returns the newest position of the log.
func (c *cluster) position() string { return FormatID(c.memory.Position()) }

// transcript returns what the client was told.
func (k *clusterClient) transcript() string {
	k.client.mu.Lock()
	defer k.client.mu.Unlock()
	return string(k.client.got)
}

// position returns where the client would resume.
func (k *clusterClient) position() string { return oracle.Position(k.lastID, k.transcript()) }

// check returns what is wrong with what the clients were told, and with the publishers' answers.
func (c *cluster) check() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running > 0 {
		c.wrong = append(c.wrong, fmt.Sprintf("%d calls do not return", c.running))
	}
	log, wrong := oracle.NewLog(decoded(c.memory.Stored()))
	c.wrong = append(c.wrong, wrong...)
	for _, k := range c.clients {
		if k.conn != nil {
			c.wrong = append(c.wrong, log.Check(oracle.Connection{
				Name: fmt.Sprint("client ", k.number), Channels: k.channels, LastID: k.lastID, Gone: k.gone, All: k.all, Owned: c.owned(k), Transcript: k.transcript(),
			})...)
			c.wrong = append(c.wrong, c.replayed(k)...)
		}
	}
	for _, m := range c.sent {
		c.wrong = append(c.wrong, log.CheckPublished(oracle.Published{Channel: m.channel, Data: m.data, Keyed: m.key != "", Answers: m.answers}, ErrClosed)...)
	}
	return c.wrong
}

// replayed returns what is wrong with the messages of the history that a client got: none is transient, and a channel has no more
// than its rule keeps.
func (c *cluster) replayed(k *clusterClient) (wrong []string) {
	epoch := ""
	counts := make(map[string]int)
	for line := range strings.Lines(k.transcript()) {
		f := strings.Fields(line)
		switch f[0] {
		case "hello":
			epoch, _, _ = parseID(f[1])
			continue
		case "join":
			clear(counts) // what was missed of this channel follows
			continue
		case "message":
			if at, seq, _ := parseID(f[2]); at != epoch || seq > k.conn.startSeq {
				continue // it came live
			}
		case "missed":
		default:
			continue
		}
		counts[f[1]]++
		if count, _ := c.config.keepOf(f[1]); counts[f[1]] > count || oracle.IsTransient(f[3]) {
			wrong = append(wrong, fmt.Sprintf("client %d was replayed %s, the %dth of %d that are kept of %s", k.number, f[3], counts[f[1]], count, f[1]))
		}
	}
	return wrong
}

// owned returns the data that a client has published and gets no echo of.
func (c *cluster) owned(k *clusterClient) map[string]bool {
	owned := make(map[string]bool)
	for _, m := range c.sent {
		if m.from == k {
			owned[m.data] = true
		}
	}
	return owned
}

// decoded returns what is stored, with the data that clients get of emits.
func decoded(epochs []brokertest.Stored) []brokertest.Stored {
	for i := range epochs {
		epochs[i].Entries = slices.Clone(epochs[i].Entries)
		for j := range epochs[i].Entries {
			if e := &epochs[i].Entries[j]; e.Kind&kindEmit != 0 {
				m := Message{Channel: e.Channel}
				if err := m.parseEmit(e.Data); err != nil {
					panic(err)
				}
				e.Data = m.Data
			}
		}
	}
	return epochs
}

// emit publishes to several channels at once.
func (c *cluster) emit() {
	n := c.nodes[c.IntN(len(c.nodes))]
	var rooms []string
	for _, i := range c.Perm(len(clusterChannels))[:2+c.IntN(3)] {
		rooms = append(rooms, clusterChannels[i])
	}
	c.mu.Lock()
	number := fmt.Sprint("e", len(c.sent))
	whole := &Message{}
	if c.IntN(5) == 0 {
		number, whole.Transient = oracle.Transient(number), true
	}
	ms := ToRooms(whole, rooms, nil)
	var sent []*clusterMessage
	for _, m := range ms {
		m.Data = []byte(oracle.Emit(number, rooms, m.Channel))
		sent = append(sent, &clusterMessage{channel: m.Channel, data: string(m.Data)})
	}
	c.sent = append(c.sent, sent...)
	c.mu.Unlock()
	c.note("node %d emits %s to %q", n.number, number, rooms)
	c.start(func() {
		err := n.Publish(ms...)
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, m := range sent {
			a := oracle.Answer{Err: err}
			if err == nil {
				a.ID = ms[i].ID()
			}
			m.answers = append(m.answers, a)
		}
	})
}

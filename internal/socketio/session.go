package socketio

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

const (
	// connectTimeout is how long a client may be in no namespace, if that is more than three pings.
	connectTimeout = 45 * time.Second

	// attachmentTimeout is how long the attachments of a packet may take to come.
	attachmentTimeout = 10 * time.Second

	// assemblyCost is about what it takes until then besides its bytes.
	assemblyCost = 1 << 10

	// maxRefused is how often a client may ask for a namespace that does not exist.
	maxRefused = 20

	// maxRejected is how many events in a row get the error rate before the client is closed.
	maxRejected = 20

	// maxNamespaces is how many namespaces a client may be in at once.
	maxNamespaces = 100

	// MaxNamespace is the length of the longest namespace: with the ID of a client it is a name in the hub.
	MaxNamespace = hub.MaxName - len(",") - sidSize
)

var (
	// errLeft says that the client has ended its session.
	errLeft = errors.New("the client has left")

	// errEnded says that the session has ended.
	errEnded = errors.New("the session has ended")
)

// session is a client, whatever its transport is.
type session struct {
	endpoint *Endpoint
	conn     *hub.Conn
	user     string
	channels []string // of the route: the main namespace
	publish  []string // those that the client may publish on; the first one is where its events go
	mayJoin  func(channel string) bool
	greeting string
	replay   int
	limiter  *protocol.Limiter

	// Guarded by in: one packet at a time. While a client moves to a WebSocket it has two transports, and what a backend does
	// with it comes from elsewhere.
	in       sync.Mutex
	source   string // of its messages: its transport
	joined   []joined
	refused  int
	assembly *packet.Assembly // the packet whose attachments are missing
	held     int              // that is counted of it

	// Guarded by Table.mu.
	records []*record
	rooms   []string    // all its channels, as far as the loop has come
	early   *time.Timer // until the client is in a namespace
	late    *time.Timer // of the assembly
	ended   bool        // what the table had of it is gone
	why     hub.Reason
}

// joined is a namespace that the client is in.
type joined struct{ namespace, name string }

// open begins a session. The client is on no channel before it is in a namespace.
func (e *Endpoint) open(r *protocol.Request) *session {
	r.Limiter.Tolerate(maxRejected)
	s := &session{endpoint: e, user: r.User, channels: r.Channels, publish: r.Publish, mayJoin: r.MayJoin, greeting: r.Greeting,
		replay: r.Replay, limiter: r.Limiter}
	r.Channels, r.LastID, r.Replay = nil, "", 0
	return s
}

// begin gives the session its connection.
func (s *session) begin(c *hub.Conn, o *hub.ConnOptions) {
	s.conn, s.source = c, o.Transport
	s.early = time.AfterFunc(max(connectTimeout, 3*o.PingInterval+time.Second), func() {
		c.Fail(hub.ReasonProtocol, "no namespace")
		c.Done()
	})
	// Or the timer would keep a connection that ends before. Clients that come and go could pile up such.
	t := s.endpoint.Table
	t.register(s)
	if c.Gone() { // its end may have found nothing
		s.early.Stop()
		t.unregister(c)
	}
}

// Greeting implements protocol.Session, for a client that begins with a WebSocket. The session's ID is not kept, because the client
// never sends it: it has no other transport to move to.
func (s *session) Greeting(c *hub.Conn, o *hub.ConnOptions, _ hub.Welcome) []byte {
	s.begin(c, o)
	return textFrame(s.endpoint.handshake(newID(), false, o).Append(nil))
}

// textFrame puts a packet in a frame.
func textFrame(p []byte) []byte {
	return append(frame.AppendHeader(make([]byte, 0, frame.MaxHeader+len(p)), frame.Text, len(p)), p...)
}

// send sends a packet.
func (s *session) send(p []byte) { s.conn.Send(textFrame(p)) }

// Receive implements protocol.Session.
func (s *session) Receive(m frame.Message) error {
	data, err := m.Data()
	if m.Opcode == frame.Binary {
		data, err = m.Own() // it may be kept
	}
	if err != nil {
		return err
	}
	p, closing := packet.ParseFrame(m.Opcode, data)
	if closing != nil {
		return closing
	}
	if err = s.receive(p); errors.Is(err, errLeft) {
		s.conn.Close(hub.ReasonClient, "")
	}
	return err
}

// receive handles a packet of Engine.IO.
func (s *session) receive(p packet.EnginePacket) error {
	s.in.Lock()
	defer s.in.Unlock()
	switch {
	case p.Binary:
		return s.attachment(p.Data)
	case p.Type == packet.EngineMessage:
		return s.message(p.Data)
	case p.Type == packet.EngineClose:
		return errLeft
	case p.Type == packet.EnginePing:
		return &frame.CloseError{Code: frame.ProtocolError, Text: "a ping of the client"}
	}
	return nil // a pong, or what means nothing now
}

// message handles the text of a Socket.IO packet.
func (s *session) message(data []byte) error {
	if s.assembly != nil {
		return packet.Missing
	}
	p, closing := packet.Parse(data)
	if closing != nil {
		return closing
	}
	if p.Attachments == 0 {
		return s.packet(&p, nil)
	}
	if s.indexOf(p.Namespace) < 0 {
		return errNamespace
	}
	if s.assembly, closing = packet.NewAssembly(p, s.endpoint.MaxMessage); closing != nil {
		return closing
	}
	if !s.hold(len(data) + assemblyCost) {
		return errEnded
	}
	c := s.conn
	s.endpoint.Table.setLate(s, time.AfterFunc(attachmentTimeout, func() {
		c.Fail(hub.ReasonProtocol, packet.Missing.Text)
		c.Done()
	}))
	return nil
}

// hold counts what the assembly takes. Nothing else bounds how many clients have one.
func (s *session) hold(n int) bool {
	if !s.conn.Hold(n) {
		s.assembly, s.held = nil, 0
		return false
	}
	s.held += n
	return true
}

// attachment handles an attachment of the packet before it.
func (s *session) attachment(data []byte) error {
	if s.assembly == nil {
		return packet.Unexpected
	}
	complete, closing := s.assembly.Add(data)
	if closing != nil {
		return closing
	}
	if !complete {
		if !s.hold(len(data)) {
			return errEnded
		}
		return nil
	}
	a := s.assembly
	s.assembly = nil
	s.conn.Hold(-s.held)
	s.held = 0
	s.endpoint.Table.setLate(s, nil)
	return s.packet(&a.Packet, a.Attachments)
}

var errNamespace = &frame.CloseError{Code: frame.ProtocolError, Text: "not in the namespace"}

// indexOf returns the index of a namespace that the client is in, or -1.
func (s *session) indexOf(namespace string) int {
	return slices.IndexFunc(s.joined, func(j joined) bool { return j.namespace == namespace })
}

// packet does what a packet of Socket.IO says.
func (s *session) packet(p *packet.Packet, attachments [][]byte) error {
	at := s.indexOf(p.Namespace)
	if p.Type == packet.Connect {
		if at >= 0 {
			return &frame.CloseError{Code: frame.ProtocolError, Text: "in the namespace already"}
		}
		return s.connect(p)
	}
	if at < 0 {
		return errNamespace
	}
	switch p.Type {
	case packet.Disconnect:
		if name := s.joined[at].name; s.leaveNamespace(at) {
			s.endElsewhere(name)
		}
	case packet.Event, packet.BinaryEvent:
		return s.event(p, attachments)
	}
	return nil // an ack that nobody asked for
}

// leaveNamespace takes the client out of a namespace, for good. It reports false if another connection has gone on with the name.
func (s *session) leaveNamespace(at int) bool {
	j := s.joined[at]
	s.joined = slices.Delete(s.joined, at, at+1)
	for _, c := range s.conn.Channels() {
		if packet.Namespace(c) == j.namespace {
			s.conn.Leave(c, nil)
		}
	}
	h := s.endpoint.Hub
	if !s.endpoint.Table.forget(s, j.name) && h.Named(j.name) != s.conn {
		return false
	}
	h.Forget(j.name)
	return true
}

// dismiss takes the client out of a namespace, because a backend wants that. It returns false if the client is in no other
// namespace, and so has no use for its connection.
func (s *session) dismiss(is func(joined) bool) bool {
	s.in.Lock()
	defer s.in.Unlock()
	at := slices.IndexFunc(s.joined, is)
	if at < 0 {
		return len(s.joined) > 0
	}
	namespace := s.joined[at].namespace
	s.leaveNamespace(at)
	s.conn.SendNow(textFrame(packet.AppendDisconnect(nil, namespace)))
	return len(s.joined) > 0
}

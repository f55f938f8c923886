package nodes

import "github.com/caddy-broadcast/caddy-broadcast/broker"

// Sink returns the sink to dial the session's log with. It tells the session, too, when the node is cut off and when it is back.
func (s *Session) Sink(of broker.Sink) broker.Sink { return watched{of, s} }

type watched struct {
	broker.Sink
	session *Session
}

// Broken implements broker.Sink.
func (w watched) Broken(why error) {
	w.session.interrupted()
	w.Sink.Broken(why)
}

// Repaired implements broker.Sink.
func (w watched) Repaired() {
	w.Sink.Repaired()
	w.session.recovered()
}

// Epoch implements broker.Sink.
func (w watched) Epoch(epoch string, at uint64) {
	w.Sink.Epoch(epoch, at)
	w.session.recovered() // the broker may have lost the counts too
}

// Attach begins the session, in place of the previous one of the cluster, if the nodes of the log can reach each other. It
// returns the log for the hub, which ends the session before it is closed.
func (s *Session) Attach(log broker.Log) broker.Log {
	peers, ok := log.(broker.Peers)
	if !ok {
		return log
	}
	s.start(peers)
	return parting{log, s}
}

// parting is a log whose node says goodbye to the others before it is closed: when the hub ends its clients have had their
// time to leave by then.
type parting struct {
	broker.Log
	session *Session
}

// Close implements broker.Log.
func (p parting) Close() {
	p.session.close()
	p.Log.Close()
}

package socketio

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// A ticket is a pid with which the client can resume on the other servers of a shared log too:
//
//	1 byte   version
//	8 bytes  when the client came, in seconds
//	20       its ID in the namespace
//	the rest its position in the log then
//	32       HMAC-SHA-256 of that, and of what has to be the same on the other server: the namespace, the route, the user, and
//	         the route's channels
//
// It is authenticated and not encrypted: there is nothing in it that the client does not know, and nothing to choose wrongly.
const (
	ticketVersion = 1
	ticketHead    = 1 + 8
	sidSize       = 20 // of newID
)

// ticketTime is how long a ticket is good. A session may last longer, and then only its own server knows it.
const ticketTime = 24 * time.Hour

type secret = [hub.KeySize]byte

// ticketKeys returns the keys for tickets, the one to use first. There are none if no other server would know what rooms the
// client is in: those that it joins are known here alone.
func (s *session) ticketKeys() []secret {
	if s.mayJoin != nil || s.endpoint.Recovery == 0 || !s.endpoint.Hub.Shared() {
		return nil
	}
	keys, err := s.conn.SharedKeys()
	if err != nil {
		return nil // it can go on here
	}
	return keys
}

// ticket returns the ticket of a client.
func (s *session) ticket(key *secret, namespace, sid, position string, now time.Time) string {
	p := make([]byte, 0, 256)
	p = binary.BigEndian.AppendUint64(append(p, ticketVersion), uint64(now.Unix()))
	p = append(append(p, sid...), position...)
	return base64.RawURLEncoding.EncodeToString(append(p, s.sign(key, namespace, p)...))
}

// sign returns the HMAC of a ticket for this client.
func (s *session) sign(key *secret, namespace string, ticket []byte) []byte {
	m := hmac.New(sha256.New, key[:])
	part := func(p []byte) {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(p))) // so that no other parts make the same bytes
		m.Write(size[:])
		m.Write(p)
	}
	part(ticket)
	for _, text := range []string{namespace, s.endpoint.Route, s.user} {
		part([]byte(text))
	}
	for _, channel := range s.channelsOf(namespace) {
		part([]byte(channel))
	}
	return m.Sum(nil)
}

// openTicket returns the content of a ticket, if it is this client's.
func (s *session) openTicket(keys []secret, namespace, pid string, now time.Time) (sid, position string, ok bool) {
	p, err := base64.RawURLEncoding.Strict().DecodeString(pid)
	if err != nil || len(p) <= ticketHead+sidSize+sha256.Size || p[0] != ticketVersion {
		return "", "", false
	}
	p, mac := p[:len(p)-sha256.Size], p[len(p)-sha256.Size:]
	for i := range keys {
		if !hmac.Equal(mac, s.sign(&keys[i], namespace, p)) {
			continue
		}
		issued := time.Unix(int64(binary.BigEndian.Uint64(p[1:])), 0)
		sid, position = string(p[ticketHead:ticketHead+sidSize]), string(p[ticketHead+sidSize:])
		return sid, position, now.Sub(issued) < ticketTime
	}
	return "", "", false
}

// endElsewhere tells other servers that nobody may go on with names.
func (s *session) endElsewhere(names ...string) {
	if s.mayJoin != nil || s.endpoint.Recovery == 0 || !s.endpoint.Hub.Shared() {
		return // there are no tickets with them
	}
	for _, name := range names {
		s.endpoint.Hub.Note(hub.NameCommand{Do: hub.DoEnd, Name: name})
	}
}

// isTicket reports whether a pid is a ticket, and not one that only this server knows.
func isTicket(pid string) bool { return len(pid) > sidSize }

package hub

import (
	"fmt"
	"strconv"
	"strings"
)

// ConnID is the number of a connection, from 1. No other connection of the hub has had it. Hubs that share a log give the same
// numbers, so what people and clients see is then preceded by the node: see Hub.ShowID.
type ConnID uint64

// String returns the number as it is shown where a hub is alone, such as "c12".
func (id ConnID) String() string {
	return string(strconv.AppendUint([]byte{'c'}, uint64(id), 10))
}

// ShowID returns the ID of one of the hub's connections as clients and the admin API show it: "c12", or, if the hub shares a
// log, "k3x9f2.c12".
func (h *Hub) ShowID(id ConnID) string {
	if h.Shared() {
		return NodeText(h.node) + "." + id.String()
	}
	return id.String()
}

// NodeText returns a node's number as people see it: six letters and digits.
func NodeText(node uint64) string {
	// 30 of 64 random bits: of 1000 nodes two have the same text with a probability of 0.05 %. Without letters that look
	// like digits (Crockford's base 32).
	var p [nodeText]byte
	for i := range p {
		p[i] = nodeDigits[node>>(59-5*i)&31]
	}
	return string(p[:])
}

const (
	nodeText   = 6
	nodeDigits = "0123456789abcdefghjkmnpqrstvwxyz"
)

// isNodeText reports whether NodeText may have made a text.
func isNodeText(s string) bool { return len(s) == nodeText && strings.Trim(s, nodeDigits) == "" }

// ParseConnID is the inverse of ShowID. The node is empty if the ID has none: then it is of the hub that is asked. It accepts
// nothing that ShowID does not return.
func ParseConnID(s string) (node string, id ConnID, err error) {
	number := s
	if before, after, ok := strings.Cut(s, "."); ok && isNodeText(before) {
		node, number = before, after
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(number, "c"), 10, 64)
	if id := ConnID(n); err == nil && n > 0 && id.String() == number {
		return node, id, nil
	}
	return "", 0, fmt.Errorf("%q is not the ID of a connection, such as c12 or k3x9f2.c12", s)
}

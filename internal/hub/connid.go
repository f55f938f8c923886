package hub

import (
	"fmt"
	"strconv"
	"strings"
)

// ConnID is the number of a connection, from 1. No other connection of the hub has had it.
type ConnID uint64

// String returns the ID as clients and the admin API show it, such as "c12".
func (id ConnID) String() string { return string(id.Append(nil)) }

// Append appends the ID to dst.
func (id ConnID) Append(dst []byte) []byte {
	return strconv.AppendUint(append(dst, 'c'), uint64(id), 10)
}

// ParseConnID is the inverse of String. It accepts nothing that String does not return.
func ParseConnID(s string) (ConnID, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "c"), 10, 64)
	if id := ConnID(n); err == nil && n > 0 && id.String() == s {
		return id, nil
	}
	return 0, fmt.Errorf("%q is not the ID of a connection, such as c12", s)
}

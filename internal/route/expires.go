package route

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// errExpired rejects a request whose access has ended. The client learns from a 401 that it needs new access.
var errExpired = errors.New("access has expired")

// never is the value of the option expires for access that does not end.
const never = "never"

// lastUnix is the end of the year 9999, the last one that RFC 3339 can express. A larger number is one of milliseconds, and taken
// as seconds it would never come.
const lastUnix = 253402300799

// parseExpires returns the time that the option expires stands for in a request, or the zero time for never. An empty value is an
// error and not never: a claim or a header that is missing by mistake must not make access last for ever.
func parseExpires(s string) (time.Time, error) {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return time.Time{}, fmt.Errorf("the time when access expires is empty; it may be %q", never)
	case s == never:
		return time.Time{}, nil
	}
	// As a float: a NumericDate may have a fraction (RFC 7519, section 2), and Caddy shows the numbers of JSON with an exponent.
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(n) || n > lastUnix {
			return time.Time{}, fmt.Errorf("access expires at %.40q, which is no Unix time in seconds", s)
		}
		seconds, fraction := math.Modf(max(n, 0)) // what is before 1970 is past in any case
		return time.Unix(int64(seconds), int64(fraction*1e9)), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("access expires at %.40q, which is neither a Unix time nor one of RFC 3339", s)
	}
	if t.Unix() < 0 { // such as the zero time.Time of a server written in Go, which is no never here
		t = time.Unix(0, 0)
	}
	return t, nil
}

// expiresOf expands the option expires for a request. It returns errExpired for access that has ended.
func (route *Route) expiresOf(c *identity) (time.Time, error) {
	if route.expires == "" {
		return time.Time{}, nil
	}
	t, err := parseExpires(c.repl.ReplaceAll(route.expires, ""))
	if err == nil && !t.IsZero() && !t.After(time.Now()) {
		err = errExpired
	}
	return t, err
}

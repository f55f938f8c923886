package logwriter

import (
	"bytes"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// A published entry could cause the next one: a client that polls gets it as the response to a request, which is logged in turn.
// So what is logged about reading the log is marked where possible, and recognized by its text, which is all that a writer gets.

// markName is the field by which requests that may read log entries are known in access logs.
const markName = "broadcast_log"

// These are what Caddy's encoders json and console make of an entry's fields. A client cannot have any of this in an entry: within
// a string, where its own text is, quotes and tabs are escaped.
var (
	marks = [][]byte{
		[]byte(`"` + markName + `":true`), []byte(`"` + markName + `": true`),
		[]byte(`"logger":"` + loggerName + `"`), []byte("\t" + loggerName + "\t"),
	}
	adminMarks = [][]byte{[]byte(`"logger":"admin.api"`), []byte("\tadmin.api\t")}
	adminURIs  = [][]byte{[]byte(`"uri":"/broadcast`), []byte(`"uri": "/broadcast`)}

	// At this level the handlers of a route log each request, and often not which one it is: reverse_proxy names the upstream. A
	// client may use a connection for each request, too. So nothing of this is published.
	debugMarks   = [][]byte{[]byte(`"level":"debug"`), []byte(`"level":"DEBUG"`), []byte("\tdebug\t"), []byte("\tDEBUG\t"), []byte("DEBUG\x1b[0m\t")}
	debugLoggers = [][]byte{[]byte(`"logger":"http.`), []byte("\thttp."), []byte(`"logger":"tls.`), []byte("\ttls.")}
)

// causedByReading reports whether an entry is not published because publishing may have caused it.
func causedByReading(p []byte) bool {
	// The level and the logger come first, after the time. The others have this word, so most entries are searched once.
	start := p[:min(len(p), 256)]
	return containsAny(start, debugMarks) && containsAny(start, debugLoggers) ||
		bytes.Contains(p, []byte("broadcast")) && (containsAny(p, marks) || containsAny(p, adminMarks) && containsAny(p, adminURIs))
}

func containsAny(p []byte, parts [][]byte) bool {
	for _, part := range parts {
		if bytes.Contains(p, part) {
			return true
		}
	}
	return false
}

// channels are those of the loaded configurations' writers. During a reload these are two.
var channels struct {
	sync.Mutex
	count map[string]int
	names atomic.Pointer[[]string] // of count, for requests
}

// list adds to the number of a channel's writers.
func list(channel string, n int) {
	channels.Lock()
	defer channels.Unlock()
	if channels.count == nil {
		channels.count = make(map[string]int)
	}
	if channels.count[channel] += n; channels.count[channel] == 0 {
		delete(channels.count, channel)
	}
	names := make([]string, 0, len(channels.count))
	for name := range channels.count {
		names = append(names, name)
	}
	channels.names.Store(&names)
}

// Channels returns the channels that log entries are published on.
func Channels() []string {
	if names := channels.names.Load(); names != nil {
		return *names
	}
	return nil
}

// Mark marks a request to a route that has such a channel.
func Mark(r *http.Request) {
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.Bool(markName, true))
	}
}

package admin

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/active"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

const (
	// maxMessagesLimit is how many messages a page may have: they are found under the hub's lock.
	maxMessagesLimit = 1000

	// maxMessagesSize is about how many bytes of data a page has.
	maxMessagesSize = 4 << 20
)

// keptMessage is a message of the history, as a frame of broadcast.v1 has it.
type keptMessage struct {
	ID       string          `json:"id"`
	Time     time.Time       `json:"time"`
	Channel  string          `json:"channel"`
	Event    string          `json:"event,omitempty"`
	Data     json.RawMessage `json:"data"`
	Encoding string          `json:"encoding,omitempty"`
}

func keptMessageOf(m *hub.Message) (k keptMessage, err error) {
	k = keptMessage{ID: m.ID(), Time: m.Time.UTC(), Channel: m.Channel, Event: m.Event, Data: m.Data}
	switch m.Kind {
	case hub.Text:
		k.Data, err = json.Marshal(string(m.Data))
	case hub.Binary:
		k.Encoding = "base64"
		k.Data, err = json.Marshal(base64.StdEncoding.EncodeToString(m.Data))
	}
	return k, err
}

// kept answers with the messages of a channel that the history has: the oldest first, or with last those that are the newest.
func kept(w http.ResponseWriter, r *http.Request, app active.App, channel string) error {
	query := r.URL.Query()
	limit, err := limitOf(query)
	if err != nil {
		return err
	}
	ms, more, err := app.Hub.KeptMessages(r.Context(), channel, query.Get("after"), query.Has("last"), min(limit, maxMessagesLimit), maxMessagesSize)
	switch {
	case errors.Is(err, hub.ErrNoPosition):
		return reject(http.StatusBadRequest, "after is %q, which is no ID of a message of this epoch", query.Get("after"))
	case err != nil:
		return reject(http.StatusServiceUnavailable, "%w", err)
	}
	list := make([]keptMessage, len(ms))
	for i, m := range ms {
		if list[i], err = keptMessageOf(m); err != nil {
			return err
		}
	}
	if more {
		next(w, r, list[len(list)-1].ID)
	}
	return answer(w, list)
}

// keptOf returns the channel whose messages a path asks for. A channel may have a slash in its name.
func keptOf(path string) (channel string, ok bool) {
	name, ok := strings.CutSuffix(strings.TrimPrefix(path, "/broadcast/channels/"), "/messages")
	return name, ok && name != ""
}

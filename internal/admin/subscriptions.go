package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/caddy-broadcast/caddy-broadcast/internal/active"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
	"github.com/caddy-broadcast/caddy-broadcast/internal/survey"
)

// maxChange is the size in bytes of the longest request that changes subscriptions: two names, with all of their characters escaped.
const maxChange = 8 << 10

// subscriptions subscribes connections to a channel, or unsubscribes them from it.
func subscriptions(w http.ResponseWriter, r *http.Request) error {
	do := map[string]string{http.MethodPost: hub.DoJoin, http.MethodDelete: hub.DoLeave}[r.Method]
	if do == "" {
		return notAllowed(w, r, "POST, DELETE")
	}
	app, err := running()
	if err != nil {
		return err
	}
	x, err := readChange(w, r)
	if err != nil {
		return err
	}
	x.Do = do
	return change(w, r, app, x)
}

// readChange reads the body. Like a message that names its channel in a way that is not understood, a request that selects in such a
// way is rejected: it may be meant for somebody else.
func readChange(w http.ResponseWriter, r *http.Request) (x hub.Change, err error) {
	if r.URL.RawQuery != "" {
		return x, reject(http.StatusBadRequest, "the query is not read: the body has the user or the connection, and the channel")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxChange))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return x, reject(http.StatusRequestEntityTooLarge, "the request is larger than %d bytes", maxChange)
	}
	if err != nil {
		return x, reject(http.StatusBadRequest, "reading the body: %w", err)
	}
	var v struct {
		User       string `json:"user"`
		Connection string `json:"connection"`
		Channel    string `json:"channel"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err = d.Decode(&v); err == nil && d.More() {
		err = errors.New("there is more than one JSON value")
	}
	if err != nil {
		return x, reject(http.StatusBadRequest, `the body must be like {"user":"ann","channel":"room:7"} or {"connection":"c1","channel":"room:7"}: %w`, err)
	}
	return hub.Change{User: v.User, Connection: v.Connection, Channel: v.Channel}, nil
}

// change makes a change on all nodes.
func change(w http.ResponseWriter, r *http.Request, app active.App, x hub.Change) error {
	v, err := app.Survey.Change(r.Context(), x)
	if invalid := new(survey.InvalidError); errors.As(err, &invalid) {
		return reject(http.StatusBadRequest, "%w", err)
	}
	if err != nil {
		publish.RetryLater(w)
		return reject(http.StatusServiceUnavailable, "nothing has changed: %w", err)
	}
	// A pointer, so that the one that was not asked for is left out, and a 0 is not.
	var a struct {
		Subscribed   *int     `json:"subscribed,omitempty"`
		Unsubscribed *int     `json:"unsubscribed,omitempty"`
		Failed       int      `json:"failed,omitempty"`
		Nodes        int      `json:"nodes,omitempty"`
		Missing      []string `json:"missing,omitzero"`
	}
	if a.Failed = v.Failed; x.Do == hub.DoJoin {
		a.Subscribed = &v.Done
	} else {
		a.Unsubscribed = &v.Done
	}
	if v.Shared {
		a.Nodes, a.Missing = v.Nodes, v.Missing
	}
	switch {
	case len(v.Missing) > 0: // they do it when they are back
		return answerStatus(w, http.StatusAccepted, a)
	case v.Done == 0 && v.Failed == 0:
		return reject(http.StatusNotFound, "there is no such connection")
	case v.Done == 0:
		return answerStatus(w, http.StatusServiceUnavailable, a)
	}
	return answer(w, a)
}

package doctor

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// inside is what the admin API tells of the running Caddy. Only what is needed is read, because the command and the process
// need not be of one version.
type inside struct {
	err    error // of the first request; then there is nothing else
	totals totals
	epoch  string
	routes []routeInfo
	config config
}

// totals is from GET /broadcast.
type totals struct {
	ID          string `json:"id"`
	Version     string `json:"version"`
	Connections int    `json:"connections"`
	Broker      *struct {
		Node    string `json:"node"`
		Problem string `json:"problem"`
		Server  string `json:"server"`
		Up      bool   `json:"up"`
	} `json:"broker"`
	Nodes []struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Epoch   string `json:"epoch"`
		Away    bool   `json:"away"`
	} `json:"nodes"`
}

// routeInfo is from GET /broadcast/routes.
type routeInfo struct {
	Hosts       []string `json:"hosts"`
	Paths       []string `json:"paths"`
	Channels    []string `json:"channels"`
	Compression bool     `json:"compression"`
	Warnings    []string `json:"warnings"`
}

// String returns where a route is, for people.
func (r routeInfo) String() string {
	paths := strings.Join(r.Paths, " ")
	if paths == "" {
		paths = "/"
	}
	return visible(strings.Join(r.Hosts, " ") + paths)
}

// matches reports whether a request for a host and a path can get to the route. Matchers of other kinds are not known here.
func (r routeInfo) matches(host, path string) bool {
	if len(r.Hosts) > 0 && !slices.ContainsFunc(r.Hosts, func(h string) bool {
		suffix, wildcard := strings.CutPrefix(h, "*")
		return strings.EqualFold(h, host) || wildcard && strings.HasSuffix(host, suffix)
	}) {
		return false
	}
	return len(r.Paths) == 0 || slices.ContainsFunc(r.Paths, func(p string) bool {
		prefix, wildcard := strings.CutSuffix(p, "*")
		return p == path || wildcard && strings.HasPrefix(path, prefix)
	})
}

// config is from GET /config/: Caddy's JSON, as far as it concerns routes.
type config struct {
	Admin struct {
		Listen string `json:"listen"`
	} `json:"admin"`
	Logging struct {
		Logs map[string]struct {
			Level   string   `json:"level"`
			Include []string `json:"include"`
			Exclude []string `json:"exclude"`
		} `json:"logs"`
	} `json:"logging"`
	Apps struct {
		HTTP struct {
			Servers map[string]struct {
				Listen         []string        `json:"listen"`
				TrustedProxies json.RawMessage `json:"trusted_proxies"`
			} `json:"servers"`
		} `json:"http"`
		Broadcast struct {
			History int               `json:"history"`
			Rules   []json.RawMessage `json:"history_rules"`
		} `json:"broadcast"`
	} `json:"apps"`
}

// insideOf asks the admin API, the first time that something needs to know.
func (x *exam) insideOf(ctx context.Context) *inside {
	if x.inside != nil {
		return x.inside
	}
	in := new(inside)
	x.inside = in
	if x.Admin == nil {
		in.err = context.Canceled
		return in
	}
	ctx, cancel := context.WithTimeout(ctx, min(x.Wait, 5*time.Second))
	defer cancel()
	get := func(path string, v any) error {
		var body []byte
		err := twice(func() (err error) {
			body, err = x.Admin.Get(ctx, path)
			return err
		})
		if err != nil {
			return err
		}
		return json.Unmarshal(body, v)
	}
	if in.err = get("/broadcast", &in.totals); in.err != nil {
		return in
	}
	in.epoch = epochOf(in.totals.ID)
	// An older Caddy does not have the first, and a new one may have a configuration that this program does not know: then
	// less is found.
	_ = get("/broadcast/routes", &in.routes)
	_ = get("/config/", &in.config)
	return in
}

// listeners returns the addresses that Caddy's sites listen on.
func (in *inside) listeners() (all []string) {
	for _, s := range in.config.Apps.HTTP.Servers {
		for _, addr := range s.Listen {
			if !slices.Contains(all, addr) {
				all = append(all, addr)
			}
		}
	}
	slices.Sort(all)
	return all
}

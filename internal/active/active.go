// Package active finds the hub: that of the running configuration, for what outlives configurations, and that of a
// configuration that is being loaded, for its modules.
//
// The app that has the hub is the module's root package, which the packages in internal cannot import. So the root
// package registers how to look into its app, and the app needs no exported methods for it.
package active

import (
	"errors"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/brokered"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/placement"
	"github.com/caddy-broadcast/caddy-broadcast/internal/survey"
)

// Name is the ID of the app's module.
const Name = "broadcast"

// ErrNone is returned while the running configuration has no app `broadcast`.
var ErrNone = errors.New("nothing in the running configuration uses broadcast")

// ErrNotRunning is returned before the first configuration runs, and after the last. The admin endpoint answers then, too.
var ErrNotRunning = errors.New("no configuration is running: Caddy starts, or stops")

// App is what a configuration's app has for other packages.
type App struct {
	Hub     *hub.Hub
	Context caddy.Context // of the app: events come from it
	Broker  *brokered.Connection
	Survey  *survey.Survey // of all nodes
	Routes  []placement.Description
}

// open looks into an app. It is set by Register before main, and never changes.
var open func(app any) App

// Register sets how to look into an app of the root package. It is called once, by that package's init.
func Register(f func(app any) App) { open = f }

// Module returns the running configuration's app as a module, or nil if it has none. Whoever needs it asks each time:
// connections, and Caddy's admin routers, outlive configurations.
func Module() any {
	// Caddy returns an error for a configuration without the app. There is no other: the running one has loaded its apps.
	app, _ := caddy.ActiveContext().AppIfConfigured(Name)
	return app
}

// Running returns the running configuration's app, or ErrNone, or ErrNotRunning.
func Running() (App, error) {
	if caddy.ActiveContext().Context == nil {
		return App{}, ErrNotRunning
	}
	module := Module()
	if module == nil {
		return App{}, ErrNone
	}
	app := open(module)
	if app.Hub == nil { // it is not provisioned
		return App{}, ErrNone
	}
	return app, nil
}

// Hub returns the running configuration's hub, or ErrNone, or ErrNotRunning.
func Hub() (*hub.Hub, error) {
	app, err := Running()
	return app.Hub, err
}

// In returns the app of the configuration that is being loaded with ctx, and loads it if need be.
func In(ctx caddy.Context) (App, error) {
	module, err := ctx.App(Name)
	if err != nil {
		return App{}, err
	}
	return open(module), nil
}

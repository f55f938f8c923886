package doctor

import (
	"context"
)

// resume looks at whether a client that was cut off gets what it missed.
var resume = Check{
	Name: "resume", About: "whether a client that was cut off can resume", needs: aSocket,
	run: func(ctx context.Context, x *exam) []Finding {
		if x.publishOnly {
			return nil
		}
		first, _, err := x.open(ctx)
		if err != nil {
			return []Finding{problem("the second WebSocket does not open: %v", err).fixedBy("try again, and look for limits per address (max_connections … per_ip)")}
		}
		// Without a close frame, as when the network is gone.
		first.conn.UnderlyingConn().Close()
		<-first.ended
		second, resp, err := x.open(ctx, "last_id", first.hello.ID)
		if err != nil {
			return []Finding{x.noSocket(ctx, resp, err)}
		}
		defer second.close()
		switch {
		case second.hello.Resumed:
			return []Finding{ok("after a cut it resumes from the position %s", visible(first.hello.ID))}
		case epochOf(first.hello.ID) != epochOf(second.hello.ID):
			return []Finding{problem("two connections are on different hubs (%s and %s): a load balancer in front spreads clients over several Caddys that share no messages, or Caddy has just restarted",
				visible(epochOf(first.hello.ID)), visible(epochOf(second.hello.ID))).fixedBy(
				"have them share a message broker, or forward to one of them only",
				caddyfile("the global options of each", "broadcast {\n\tbroker nats nats://localhost:4222 {\n\t\treplicas 1\n\t}\n}"))}
		}
		return []Finding{advice("after a cut, what was published meanwhile is lost: no history is kept of this channel").fixedBy("keep some",
			caddyfile("the global options", historyLines))}
	},
}

const historyLines = "broadcast {\n\thistory 100 10m\n}"

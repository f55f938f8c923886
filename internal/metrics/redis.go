package metrics

import "github.com/prometheus/client_golang/prometheus"

var (
	redisConnections = desc("redis_connections", "Open connections of Redis clients.")
	redisRefused     = desc("redis_refused_total", "Connections of Redis clients that were too many.")
	redisUp          = desc("redis_up", "Whether the Redis of the option redis connect is subscribed to.")
	redisMessages    = desc("redis_messages_total", "What backends have published with the Redis protocol.", "result")

	redisDescs = []*prometheus.Desc{redisConnections, redisRefused, redisUp, redisMessages}
)

// collectRedis collects what there is only if backends publish with the Redis protocol.
func (c collector) collectRedis(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	s := c.intake.Stats()
	if s.Listens {
		gauge(redisConnections, float64(s.Connections))
		counter(redisRefused, s.Rejected)
	}
	if s.Connects {
		up := 0.0
		if s.Connected {
			up = 1
		}
		gauge(redisUp, up)
	}
	if s.Listens || s.Connects {
		for result, n := range s.Messages {
			counter(redisMessages, n, result)
		}
	}
}

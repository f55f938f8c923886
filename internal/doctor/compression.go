package doctor

import "context"

// compression looks at permessage-deflate. What of event streams is compressed is found by their own check.
var compression = Check{
	Name: "compression", About: "whether WebSocket messages can be compressed", needs: aSocket,
	run: func(ctx context.Context, x *exam) []Finding {
		if x.deflated {
			return []Finding{ok("permessage-deflate is negotiated")}
		}
		for _, r := range x.insideOf(ctx).routes {
			if r.Compression && r.matches(x.host, x.path()) {
				return []Finding{advice("the route has compression, but the response to the handshake does not say so: a proxy in front removes the header Sec-WebSocket-Extensions").fixedBy(
					"have the proxy pass the header on", nginx("location "+x.path(), "proxy_set_header Sec-WebSocket-Extensions $http_sec_websocket_extensions;"))}
			}
		}
		return []Finding{ok("WebSocket messages are not compressed, which is the default; the option compression is for long messages")}
	},
}

package logwriter

import (
	"net/http"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// TestReading: entries about reading the log are recognized, as Caddy's encoders write them, and a client cannot have its
// requests taken for one of them by what it sends.
func TestReading(t *testing.T) {
	config := zap.NewProductionEncoderConfig()
	type headers map[string][]string
	colored := config
	colored.EncodeLevel = zapcore.CapitalColorLevelEncoder // Caddy's default for console
	for name, encoder := range map[string]zapcore.Encoder{
		"json": zapcore.NewJSONEncoder(config), "console": zapcore.NewConsoleEncoder(config), "colored": zapcore.NewConsoleEncoder(colored),
	} {
		encode := func(logger, msg string, fields ...zap.Field) []byte {
			b, err := encoder.EncodeEntry(zapcore.Entry{Time: time.Now(), LoggerName: logger, Message: msg, Caller: zapcore.NewEntryCaller(0, "admin.go", 1, true)}, fields)
			if err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
		for _, p := range [][]byte{
			encode("http.log.access.log0", "handled request", zap.Int("status", 200), zap.Bool(markName, true)),
			encode("admin.api", "received request", zap.String("method", "POST"), zap.String("uri", "/broadcast/publish?channel=a")),
			encode("broadcast.log", "log entries were dropped", zap.Int("dropped", 1)),
		} {
			if !causedByReading(p) {
				t.Errorf("%s: %s is not recognized", name, p)
			}
		}
		debug := func(logger string) []byte {
			b, err := encoder.EncodeEntry(zapcore.Entry{Level: zap.DebugLevel, Time: time.Now(), LoggerName: logger, Message: "selected upstream"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
		for logger, want := range map[string]bool{"http.handlers.reverse_proxy": true, "tls.handshake": true, "http": false, "events": false} {
			if p := debug(logger); causedByReading(p) != want {
				t.Errorf("%s: %s: left out is %v", name, p, !want)
			}
		}
		if p := encode("admin.api", "received request", zap.String("uri", "/load")); causedByReading(p) {
			t.Errorf("%s: %s is left out", name, p)
		}
		for _, forged := range []string{
			`"broadcast_log":true`, `"broadcast_log": true`, `","broadcast_log":true,"`, `"logger":"broadcast.log"`, "\tbroadcast.log\t",
			"\tadmin.api\t\"uri\": \"/broadcast", `"logger":"admin.api","uri":"/broadcast"`, `"level":"debug"`, "\tDEBUG\t", "DEBUG\x1b[0m\t", "/broadcast", "admin.api", "true", "broadcast_log",
		} {
			p := encode("http.log.access", "handled request", zap.String("uri", forged), zap.String("user_id", forged),
				zap.Reflect("headers", headers{http.CanonicalHeaderKey("Broadcast_log"): {forged, "true"}, "Logger": {"broadcast.log", "admin.api", forged}}))
			if causedByReading(p) {
				t.Errorf("%s: %s is left out", name, p)
			}
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	p := []byte(`{"level":"info","ts":1795667681.3167846,"logger":"http.log.access.log0","msg":"handled request","request":{"remote_ip":"127.0.0.1","remote_port":"52372","client_ip":"127.0.0.1","proto":"HTTP/1.1","method":"GET","host":"127.0.0.1:13896","uri":"/log/b","headers":{"Accept-Encoding":["gzip"],"User-Agent":["Go-http-client/1.1"]}},"bytes_read":0,"user_id":"","duration":0.000068261,"size":0,"status":200,"resp_headers":{"Server":["Caddy"]}}` + "\n")
	b.Run("accepted", func(b *testing.B) {
		q := &queue{}
		for b.Loop() {
			q.Write(p)
			if q.size > maxWaiting/2 {
				q.entries, q.size = q.entries[:0], 0
			}
		}
	})
	b.Run("dropped", func(b *testing.B) {
		q := &queue{size: maxWaiting}
		for b.Loop() {
			q.Write(p)
		}
	})
}

//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// nchanModule is where Debian's and Ubuntu's package libnginx-mod-nchan puts it.
const nchanModule = "/usr/lib/nginx/modules/ngx_nchan_module.so"

// startNchan starts nginx with nchan. Its buffer is set to as little as it takes to deliver, because the scenarios have no
// history, and it would otherwise be charged for one.
func startNchan(dir string, port int) (*server, error) {
	// A worker for each core, as nginx is run. The limits of files and connections are raised for wide. The POSTs'
	// connections are kept for the whole run, and their bodies stay in memory up to 128 KiB, so that large does not measure
	// temporary files.
	cert, key, err := certificate(dir)
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`load_module %s;
daemon off;
worker_processes auto;
worker_rlimit_nofile 20000;
pid %s/nginx.pid;
error_log stderr crit;
events { worker_connections 19000; }
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	nchan_max_reserved_memory 256m;
	keepalive_requests 1000000000;
	server {
		listen %[3]s backlog=4096;
		listen %[4]s ssl backlog=4096;
		ssl_certificate %[5]s;
		ssl_certificate_key %[6]s;
		location ~ ^/pub/(\w+)$ { nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 1; nchan_message_timeout 2s; client_max_body_size 1m; client_body_buffer_size 128k; }
		location ~ ^/sub/(\w+)$ { nchan_pubsub websocket; nchan_channel_id $1; nchan_message_buffer_length 100; nchan_message_timeout 2s; nchan_subscriber_first_message newest; }
	}
}`, nchanModule, dir, address(port), address(port+2), cert, key)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	s := &server{
		target:  target{addr: address(port), path: func(i int) string { return "/sub/" + strconv.Itoa(i) }},
		publish: func(i int) string { return "/pub/" + strconv.Itoa(i) },
		wrap:    plain,
		tlsAddr: address(port + 2),
	}
	return run(s, dir, "/usr/sbin/nginx", "-c", file, "-p", dir)
}

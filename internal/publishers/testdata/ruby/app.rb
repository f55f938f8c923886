# The smallest app in Ruby that has what docs/publishers.md takes from Rails: a logger, and JSON.
require "json"
require "logger"
require "securerandom"
require "socket"
require "uri"

module Rails
  def self.logger = @logger ||= Logger.new($stderr)
end

require "./app/services/caddy_broadcast"

server = TCPServer.new("127.0.0.1", ENV["PORT"].to_i)
while (client = server.accept)
  length = 0
  while (line = client.gets) && line != "\r\n"
    length = line[/\d+/].to_i if line.downcase.start_with?("content-length:")
  end
  if length > 0 # or it only looked whether this listens
    order = URI.decode_www_form(client.read(length)).to_h
    CaddyBroadcast.publish("orders", "created", order)
    client.write("HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
  end
  client.close
end

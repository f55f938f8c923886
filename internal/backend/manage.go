package backend

import (
	"errors"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/queue"
)

// maxManaged bounds the work of one command, which may name thousands of clients, and thousands of rooms for each.
const maxManaged = 1000

var errManaged = errors.New("it names too many clients and rooms")

// manage has clients join and leave rooms, and disconnects them.
func (t *taker) manage(channel string, k *queue.Command) {
	if max(len(k.Rooms), 1)*max(len(k.Change), 1) > maxManaged {
		t.reject(invalid, channel, errManaged)
		return
	}
	var err error
	for _, command := range t.commands(k) {
		if err = t.hub.Command(command); err != nil {
			break
		}
	}
	t.published(channel, err)
}

// commands returns the hub's commands for a command of a backend.
func (t *taker) commands(k *queue.Command) (list []hub.NameCommand) {
	do := map[queue.Method]string{queue.Join: hub.DoJoin, queue.Leave: hub.DoLeave, queue.Disconnect: hub.DoClose}[k.Method]
	if k.Method == queue.CloseRoom {
		for _, room := range k.Rooms {
			if c, ok := packet.Room(k.Namespace, room); ok {
				list = append(list, hub.NameCommand{Do: hub.DoLeave, On: c, Channel: c})
			}
		}
		return list
	}
	except := t.excepted(k)
	for _, one := range t.selected(k) {
		one.Do, one.Except = do, except
		if k.Method == queue.Disconnect {
			one.Whole = k.CloseConnection
			list = append(list, one)
			continue
		}
		for _, room := range k.Change {
			if c, ok := packet.Room(k.Namespace, room); ok {
				one.Channel = c
				list = append(list, one)
			}
		}
	}
	return list
}

// selected returns commands that so far only select connections.
func (t *taker) selected(k *queue.Command) (list []hub.NameCommand) {
	if len(k.Rooms) == 0 {
		return []hub.NameCommand{{On: t.all(k.Namespace)}}
	}
	for _, room := range k.Rooms {
		as := t.find(k.Namespace, room)
		if as.name {
			list = append(list, hub.NameCommand{Name: as.text})
		}
		if as.channel {
			list = append(list, hub.NameCommand{On: as.text})
		}
	}
	return list
}

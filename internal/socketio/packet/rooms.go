package packet

// maxRooms is how many rooms of an event are looked at.
const maxRooms = 1000

// Rooms returns the rooms that the first argument of an event names, as pages name them that ask their servers to join one: a
// string, a number, an array of them, or an object that has one of them as its room or its channel. It reports false if the
// argument is anything else, or names no room. The names are not checked. Of more than maxRooms it returns one more than these.
func (p *Packet) Rooms() (rooms []string, ok bool) {
	if p.Type != Event && p.Type != BinaryEvent || p.list.count < 2 {
		return nil, false
	}
	r := reader{p: p.list.of(p.list.tail)}
	if !r.value(maxDepth) {
		return nil, false
	}
	argument := r.p[:r.i]
	if argument[0] == '{' {
		argument = roomMember(argument)
	}
	if len(argument) > 0 && argument[0] == '[' {
		return roomArray(argument)
	}
	room, ok := roomName(argument)
	return []string{room}, ok
}

// roomMember returns the value of the member that names the room, or nil. Flask's examples send {"username":…,"room":…}.
func roomMember(object []byte) (room []byte) {
	var channel []byte
	members(object, func(key, value []byte) {
		switch {
		case is(key, "room"):
			room = value
		case is(key, "channel"):
			channel = value
		}
	})
	if room == nil {
		room = channel
	}
	return room
}

// roomArray returns the rooms of an array.
func roomArray(array []byte) (rooms []string, ok bool) {
	r := reader{p: array, i: 1}
	for r.space() != ']' {
		from := r.i
		if len(rooms) > maxRooms {
			return rooms, true
		}
		if !r.value(maxDepth) {
			return nil, false
		}
		room, ok := roomName(r.p[from:r.i])
		if !ok {
			return nil, false
		}
		rooms = append(rooms, room)
		if r.space() == ',' {
			r.i++
		}
	}
	return rooms, len(rooms) > 0
}

// roomName returns the name that a value is. A number is its text: a page's 5 is the room "5" of python-socketio.
func roomName(value []byte) (name string, ok bool) {
	switch {
	case len(value) == 0:
		return "", false
	case value[0] == '"':
		name = unquote(value)
	case value[0] == '-' || isDigit(value[0]):
		name = numberText(value)
	}
	return name, name != ""
}

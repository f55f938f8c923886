package socket

import (
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Poller waits for many clients at once, so that a quiet one needs no goroutine. It owns an epoll instance beside the
// one of Go's runtime, which wakes only goroutines that are already there.
type Poller struct {
	fd      int
	stop    int // an eventfd that ends the waiting
	stopped sync.WaitGroup

	mu      sync.Mutex
	next    uint64
	sockets map[uint64]*Socket // by the number that their events carry, which no other ever has
}

// stopEvent is the number of the eventfd.
const stopEvent = 0

// NewPoller starts a poller. It returns nil, which is a good poller too, if the system does not let it.
func NewPoller() *Poller {
	p := &Poller{sockets: make(map[uint64]*Socket)}
	var err error
	if p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil
	}
	if p.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, p.stop, event(unix.EPOLLIN, stopEvent))
	}
	if err != nil {
		unix.Close(p.fd)
		return nil
	}
	p.stopped.Go(p.run)
	return p
}

// Close ends the poller. Its sockets must have ended.
func (p *Poller) Close() {
	if p == nil {
		return
	}
	unix.Write(p.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	p.stopped.Wait()
	unix.Close(p.stop)
	unix.Close(p.fd)
}

// event makes an event that carries a number.
func event(events uint32, number uint64) *unix.EpollEvent {
	return &unix.EpollEvent{Events: events, Fd: int32(uint32(number)), Pad: int32(number >> 32)}
}

func (p *Poller) run() {
	events := make([]unix.EpollEvent, 256)
	ready := make([]*Socket, 0, len(events))
	for {
		n, err := unix.EpollWait(p.fd, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(err) // a bad descriptor: somebody else closed it
		}
		ready = ready[:0]
		p.mu.Lock()
		for _, ev := range events[:max(n, 0)] {
			number := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
			if number == stopEvent {
				p.mu.Unlock()
				return
			}
			if s := p.sockets[number]; s != nil { // else it has just ended
				if ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
					s.hungUp.Store(true)
				}
				ready = append(ready, s)
			}
		}
		p.mu.Unlock()
		for _, s := range ready {
			s.notify(p)
		}
	}
}

// Len returns how many sockets the poller reads.
func (p *Poller) Len() int {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sockets)
}

// add has a socket read whenever there is something. It is told of each change once (EPOLLET), so reading goes on
// until there is nothing more.
func (p *Poller) add(s *Socket) bool {
	early := s.early != nil // from here on it may be read
	p.mu.Lock()
	p.next++
	s.number = p.next
	p.sockets[s.number] = s
	p.mu.Unlock()
	var err error
	if e := s.raw.Control(func(fd uintptr) {
		err = unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, int(fd), event(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET, s.number))
	}); e != nil {
		err = e
	}
	if err != nil {
		p.remove(s)
		return false
	}
	if early {
		s.notify(p)
	}
	return true
}

// remove forgets a socket that has ended. Closing it takes it out of epoll.
func (p *Poller) remove(s *Socket) {
	p.mu.Lock()
	delete(p.sockets, s.number)
	p.mu.Unlock()
}

// States of a socket.
const (
	idle    = iota
	reading // a goroutine reads
	again   // it reads, and there may be more
)

// notify has a goroutine read the socket, if none does.
func (s *Socket) notify(p *Poller) {
	for {
		switch s.state.Load() {
		case idle:
			if s.state.CompareAndSwap(idle, reading) {
				go s.readAll(p)
				return
			}
		case reading:
			if s.state.CompareAndSwap(reading, again) {
				return
			}
		case again:
			return
		}
	}
}

// readSize is what is read at once by a goroutine that is there only to read.
const readSize = 16 << 10

var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// readAll reads what there is.
func (s *Socket) readAll(p *Poller) {
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	more := true
	if early := s.early; early != nil {
		s.early = nil
		more = s.receiver.Received(early)
	}
	for more {
		n, err := s.readOnce(buf[:])
		if n > 0 {
			more = s.receiver.Received(buf[:n])
			if !more || n == len(buf) || s.hungUp.Load() {
				continue // there may be more, or the end
			}
		} else if !errors.Is(err, unix.EAGAIN) {
			break
		}
		if s.state.CompareAndSwap(reading, idle) {
			return
		}
		s.state.Store(reading) // more has come meanwhile
	}
	p.remove(s)
	s.receiver.Ended() // its state stays at reading, so nobody reads it again
}

// readOnce reads what is there, or returns EAGAIN. RawConn sees to it that the descriptor is not closed meanwhile.
func (s *Socket) readOnce(buf []byte) (n int, err error) {
	e := s.raw.Read(func(fd uintptr) bool {
		for {
			if n, err = syscall.Read(int(fd), buf); err != syscall.EINTR {
				return true
			}
		}
	})
	if e != nil {
		return 0, e
	}
	return max(n, 0), err
}

package socket

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Poller waits for many clients at once, so that an idle one needs no goroutine. It has epoll instances of its own, next to
// that of Go's runtime, because the runtime's can only wake goroutines that already exist. Together with
// a frame reader without buffers, this reduced an idle connection from 7.8 to 1.9 KiB (docs/performance.md).
type Poller struct {
	queues []*queue // one for each core, so that none has to wait for the events of all clients
	last   atomic.Uint64
}

// queue is an epoll instance and the goroutine that waits for its events.
type queue struct {
	fd      int
	stop    int // an eventfd that wakes the goroutine to end it
	stopped sync.WaitGroup

	mu      sync.Mutex
	sockets map[uint64]*Socket // by the number in their events. Unlike descriptors, numbers are never reused
}

// stopEvent is the number of the eventfd. Sockets are numbered from 1.
const stopEvent = 0

// maxQueues limits the queues, each of which has a thread. The hub has no more loops either.
const maxQueues = 64

// NewPoller starts a poller. It returns nil, which is a valid Poller, if epoll is unavailable.
func NewPoller() *Poller {
	p := new(Poller)
	for range min(runtime.GOMAXPROCS(0), maxQueues) {
		q, err := newQueue()
		if err != nil {
			break // too few descriptors are left: those that there are do
		}
		p.queues = append(p.queues, q)
	}
	if len(p.queues) == 0 {
		return nil
	}
	return p
}

// newQueue starts a queue.
func newQueue() (*queue, error) {
	q := &queue{sockets: make(map[uint64]*Socket)}
	var err error
	if q.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if q.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(q.fd)
		return nil, err
	}
	if err = unix.EpollCtl(q.fd, unix.EPOLL_CTL_ADD, q.stop, event(unix.EPOLLIN, stopEvent)); err != nil {
		unix.Close(q.stop)
		unix.Close(q.fd)
		return nil, err
	}
	q.stopped.Go(q.run)
	return q, nil
}

// Close ends the poller. Its sockets must have ended.
func (p *Poller) Close() {
	if p == nil {
		return
	}
	for _, q := range p.queues {
		// Eight bytes, whose number is not 0 in either byte order (eventfd(2)).
		unix.Write(q.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		q.stopped.Wait()
		unix.Close(q.stop)
		unix.Close(q.fd)
	}
}

// number returns the number of one more socket.
func (p *Poller) number() uint64 { return p.last.Add(1) }

// queue returns the queue of a socket.
func (p *Poller) queue(number uint64) *queue { return p.queues[number%uint64(len(p.queues))] }

// event returns an epoll event with a number in its 64 bits of user data, which unix.EpollEvent splits into Fd and Pad.
func event(events uint32, number uint64) *unix.EpollEvent {
	return &unix.EpollEvent{Events: events, Fd: int32(uint32(number)), Pad: int32(number >> 32)}
}

// run waits for events. It only starts readers, because a client's data must not delay the others.
func (q *queue) run() {
	events := make([]unix.EpollEvent, 256)
	ready := make([]*Socket, 0, len(events))
	for {
		n, err := unix.EpollWait(q.fd, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(err) // the descriptor is bad, so other code has closed it
		}
		ready = ready[:0]
		q.mu.Lock()
		for _, ev := range events[:max(n, 0)] {
			number := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
			if number == stopEvent {
				q.mu.Unlock()
				return
			}
			if s := q.sockets[number]; s != nil { // otherwise it has ended since the event
				if ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
					s.hungUp.Store(true)
				}
				ready = append(ready, s)
			}
		}
		q.mu.Unlock()
		// Without the lock, so that sockets can come and go meanwhile.
		for _, s := range ready {
			s.notify()
		}
		clear(ready) // those that have ended would stay in memory until as many are ready at once
	}
}

// Len returns how many sockets the poller reads.
func (p *Poller) Len() int {
	if p == nil {
		return 0
	}
	n := 0
	for _, q := range p.queues {
		q.mu.Lock()
		n += len(q.sockets)
		q.mu.Unlock()
	}
	return n
}

// add makes the poller read a socket whenever there is data. The poller is edge-triggered (EPOLLET): each change is reported
// once, so a reader must go on until there is nothing left. It reports whether that worked.
func (p *Poller) add(s *Socket) bool {
	// Looked at before the socket is registered: afterwards a reader may clear it. A tls.Conn may have data as well.
	early := s.early != nil || s.carrier != nil
	q := p.queue(s.number)
	q.mu.Lock()
	// Before epoll knows the socket, because the first event may come at once.
	q.sockets[s.number] = s
	q.mu.Unlock()
	var err error
	if e := s.raw.Control(func(fd uintptr) {
		err = unix.EpollCtl(q.fd, unix.EPOLL_CTL_ADD, int(fd), event(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET, s.number))
	}); e != nil {
		err = e
	}
	if err != nil {
		p.remove(s)
		return false
	}
	if early {
		s.notify()
	}
	return true
}

// remove forgets a socket that has ended. Closing its descriptor removes it from epoll.
func (p *Poller) remove(s *Socket) {
	q := p.queue(s.number)
	q.mu.Lock()
	delete(q.sockets, s.number)
	q.mu.Unlock()
}

// States of a socket. The transitions are:
//
//	idle    -> reading   notify starts a reader
//	reading -> again     notify, while the reader runs
//	again   -> reading   the reader, which then reads again
//	reading -> idle      the reader, when it has found nothing left
//
// No wake-up is lost. An event that comes before the reader's last read is seen by that read. One that comes after it
// either changes reading to again, so that the reader's compare-and-swap to idle fails, or finds the state idle and starts
// another reader.
const (
	idle    = iota
	reading // a goroutine reads
	again   // a goroutine reads, and has to look once more
)

// notify makes a goroutine read the socket. It starts one, unless one is reading.
func (s *Socket) notify() {
	for {
		switch s.state.Load() {
		case idle:
			if s.state.CompareAndSwap(idle, reading) {
				go s.readAll()
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

// readSize is the buffer size of a reader. It can be generous, because a reader has a buffer only while there is data.
const readSize = 16 << 10

// A pool, because a reader lives for a moment: an idle client holds no buffer.
var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// readAll reads until there is no more data, or the socket ends.
func (s *Socket) readAll() {
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	more := true
	if early := s.early; early != nil {
		s.early = nil
		more = s.receiver.Received(early)
	}
	s.lookAgain()
	for more {
		n, err := s.readNow(buf[:])
		if n > 0 {
			more = s.receiver.Received(buf[:n])
			if !more || n == len(buf) || s.hungUp.Load() || s.carrier != nil {
				continue // there may be more data, or the end. Otherwise a short read means that the socket is empty
			}
		} else if err != unix.EAGAIN && err != errNothing {
			break
		}
		if s.carrier != nil {
			s.carrier.shrink() // before another reader may start
		}
		if s.state.CompareAndSwap(reading, idle) {
			return
		}
		s.state.Store(reading) // an event arrived since the last read
		s.lookAgain()
	}
	s.poller.remove(s)
	s.receiver.Ended() // the state stays at reading, so notify starts no other reader
}

// lookAgain has the next read look at the socket, whatever was there before.
func (s *Socket) lookAgain() {
	if s.carrier != nil {
		s.carrier.empty = false
	}
}

// readNow reads without waiting. It returns EAGAIN, or over TLS errNothing, if there is nothing.
func (s *Socket) readNow(buf []byte) (int, error) {
	if s.carrier != nil {
		return s.Conn.Read(buf)
	}
	return readOnce(s.raw, buf)
}

// readOnce reads once, or returns EAGAIN. RawConn.Read keeps the descriptor from being closed meanwhile. Returning true from
// its function keeps it from waiting in the runtime's poller.
func readOnce(raw syscall.RawConn, buf []byte) (n int, err error) {
	e := raw.Read(func(fd uintptr) bool {
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

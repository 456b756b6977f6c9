// Package api is the HTTP face of cortex: it decodes and checks requests, hands them to the scheduler or reads from the
// store, and writes answers in the contract's shape, on loopback TCP and on the socket of the same user alike. It decides
// nothing about dispatches, never kills or starts anything itself, and writes to no database, and to no file but the
// token's (LoadToken).
package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"cortex/config"
	"cortex/sched"
	"cortex/store"
)

// Options are what a Server works with. All are required.
type Options struct {
	Sched   *sched.Scheduler
	Store   *store.Store
	Config  config.Config // in force at the start; see SetConfig
	Home    string        // the state folder, ~/.cortex
	Token   string        // what Authorization: Bearer must hold; see LoadToken
	Version string
	Metrics http.Handler // answers GET /metrics
	Log     *slog.Logger
	Started time.Time

	Configuration Configuration
}

// Server answers requests. It has no state of its own but the configuration that is in force, and how
// many follow the events.
type Server struct {
	Options
	log       *slog.Logger
	guard     atomic.Pointer[guard]
	config    atomic.Pointer[config.Config]
	routes    []route
	runs      string
	followers chan struct{} // has one for each that follows the events
	stopping  chan struct{} // closed when no more connections are taken: what waits answers
	stopOnce  sync.Once
}

// New makes a Server; it opens and starts nothing.
func New(o Options) *Server {
	s := &Server{
		Options:   o,
		log:       o.Log.With("component", "api"),
		routes:    table(),
		runs:      filepath.Join(o.Home, "runs"),
		followers: make(chan struct{}, maxFollowers()),
		stopping:  make(chan struct{}),
	}
	s.SetConfig(o.Config)
	return s
}

// Limits of time.
const (
	headerTime   = 10 * time.Second // for a request's header to come in
	idleTime     = 2 * time.Minute  // of a kept connection
	sendTime     = 30 * time.Second // for a reader to take one piece of an answer
	shutdownTime = 5 * time.Second  // for requests in flight, once the server stops
	cutTime      = 2 * time.Second  // for their handlers, once their connections are cut
)

// Serve answers on the listeners, which it closes, until ctx ends or one of them fails. Then nothing more is accepted,
// long polls are answered with what is so far, and what is in flight has shutdownTime before its connection is cut. It
// returns when no handler runs any more, but for one that does not heed that it is cut within cutTime: it hangs in a system
// call, since its file system doesn't answer. It returns nil where ctx ended.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var handlers sync.WaitGroup
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			s.guard.Load().wrap(s).ServeHTTP(w, r)
		}),
		ReadHeaderTimeout:            headerTime,
		IdleTimeout:                  idleTime,
		MaxHeaderBytes:               maxHeader,
		ConnContext:                  connContext,
		BaseContext:                  func(net.Listener) context.Context { return requests },
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // clients' failed connections
		DisableGeneralOptionsHandler: true,                                                // it would answer OPTIONS * past the guard
	}
	ended := make(chan error, len(listeners))
	bounds := make([]*bounded, len(listeners))
	for i, l := range listeners {
		if _, ok := l.Addr().(*net.TCPAddr); ok {
			l = jsonErrors{l}
		}
		bounds[i] = bound(l, maxConnections())
	}
	server.ConnState = func(c net.Conn, state http.ConnState) {
		for _, b := range bounds {
			b.track(c, state)
		}
	}
	for _, b := range bounds {
		go func() { ended <- server.Serve(b) }()
	}
	var failed error
	left := len(listeners)
	select {
	case <-ctx.Done():
	case failed = <-ended:
		left--
	}
	s.stopOnce.Do(func() { close(s.stopping) })
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil {
		s.log.Warn("requests in flight are cut", "err", err)
		cut()
		server.Close() // its error is that of closing connections nobody waits for
	}
	for ; left > 0; left-- {
		if err := <-ended; failed == nil && !errors.Is(err, http.ErrServerClosed) {
			failed = err
		}
	}
	s.awaitHandlers(&handlers)
	return failed
}

func (s *Server) awaitHandlers(handlers *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		handlers.Wait()
		close(done)
	}()
	patience := time.NewTimer(cutTime)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
		s.log.Error("a request is still busy, and is left to itself", "hint", "the database may be locked, or the file system of the home does not answer (dmesg, df)")
	}
}

// waiting is the context of a long poll: it ends with the request, after limit, and when the server stops.
func (s *Server) waiting(r *request, limit time.Duration) (context.Context, context.CancelFunc) {
	return s.untilStopped(context.WithTimeout(r.Context(), limit))
}

// untilStopped makes ctx end also when the server stops.
func (s *Server) untilStopped(ctx context.Context, cancel context.CancelFunc) (context.Context, context.CancelFunc) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel()
		<-ended
	}
}

// isStopping reports whether Serve takes no more connections.
func (s *Server) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// extendWrite gives the reader time for the next piece of an answer. The server has no limit for a whole answer, since
// one may wait for a dispatch's end or be a long log.
func extendWrite(w http.ResponseWriter) {
	// A writer that has no deadline (in a test) needs none.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sendTime))
}

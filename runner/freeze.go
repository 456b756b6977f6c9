package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cortex/runner/record"
)

// ErrOld says that a runner was started by a cortex that could not freeze, and can't learn it.
var ErrOld = errors.New("the runner is of an earlier cortex")

// helloPatience bounds the wait for the first word of a runner, which it says at once unless it is stopped.
const helloPatience = 2 * time.Second

// Freeze asks the runner of an attempt to freeze its agent's tree, or with op record.OpThaw to let it go on, and returns when
// that is done: a freeze takes at most some seconds. It has a connection of its own. was and is are what the runner said of
// itself before and after, as far as it came to that. Errors: ErrOld, a *Refusal, and those of Connect; after ErrSilent
// it may still come to pass where is says anything.
func Freeze(ctx context.Context, runs string, id int64, attempt int, want record.Process, op string) (was, is record.State, err error) {
	conn, err := Connect(ctx, runs, id, attempt, want)
	if err != nil {
		return was, is, err
	}
	defer conn.Close()
	hello, cancel := context.WithTimeout(ctx, helloPatience)
	defer cancel()
	select {
	case st, ok := <-conn.States():
		if !ok {
			return was, is, ErrGone
		}
		was, is = st, st
	case <-hello.Done():
		return was, is, fmt.Errorf("%w: %w", ErrSilent, context.Cause(hello))
	}
	if !was.Freezes {
		return was, is, ErrOld
	}
	err = conn.ask(ctx, record.Request{Op: op})
	select {
	case st, ok := <-conn.States(): // its reply came with it
		if ok {
			is = st
		}
	default:
	}
	return was, is, err
}

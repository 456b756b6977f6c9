// Package client speaks to the daemon over its socket, for the command line. It owns how the daemon is reached and how
// its errors become errors here; it decides nothing, prints nothing, and never starts a daemon.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"cortex"
	"cortex/api"
)

// ErrNoDaemon says that nobody answers on the socket, or that who did went away in the middle of an answer.
var ErrNoDaemon = errors.New("no daemon answers")

// ErrWentAway is an ErrNoDaemon of a daemon that was there, and ended before it had answered.
var ErrWentAway = fmt.Errorf("%w any more", ErrNoDaemon)

// Error is what the daemon answered in place of what was asked for.
type Error struct {
	Problem cortex.Error
	Code    int    // HTTP status
	Body    []byte // as it came
}

func (e *Error) Error() string { return e.Problem.Message }

// Client asks one daemon. It may be used by many goroutines.
type Client struct {
	socket string
	http   *http.Client
}

// New makes a client for the state folder home (~/.cortex). It connects with the first request.
func New(home string) *Client {
	c := &Client{socket: filepath.Join(home, "cortex.sock")}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, c.socket) },
		},
		// The daemon never redirects; whoever does is somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Close ends the connections that are kept open.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// dial connects to a socket whose path may be longer than the 108 bytes of sun_path: through a descriptor of its folder
// (proc(5), /proc/self/fd).
func dial(ctx context.Context, path string) (net.Conn, error) {
	dir, err := os.OpenFile(filepath.Dir(path), os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

// Get asks for path (with its query, already encoded) and decodes the answer into the value that into points to; nil
// leaves it be. The answer's bytes are returned as they came.
func (c *Client) Get(ctx context.Context, path string, query url.Values, into any) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, query, nil, into)
}

// Post sends body as JSON, or nothing where it is nil, and is otherwise like Get.
func (c *Client) Post(ctx context.Context, path string, query url.Values, body, into any) ([]byte, error) {
	return c.withBody(ctx, http.MethodPost, path, query, body, into)
}

// Patch is Post with that method, and no query.
func (c *Client) Patch(ctx context.Context, path string, body, into any) ([]byte, error) {
	return c.withBody(ctx, http.MethodPatch, path, nil, body, into)
}

// Delete is Patch with that method.
func (c *Client) Delete(ctx context.Context, path string, body, into any) ([]byte, error) {
	return c.withBody(ctx, http.MethodDelete, path, nil, body, into)
}

func (c *Client) withBody(ctx context.Context, method, path string, query url.Values, body, into any) ([]byte, error) {
	var sent io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		sent = bytes.NewReader(data)
	}
	return c.do(ctx, method, path, query, sent, into)
}

// Output opens a dispatch's log. The caller closes it.
func (c *Client) Output(ctx context.Context, id int64, query url.Values) (io.ReadCloser, error) {
	resp, err := c.send(ctx, http.MethodGet, fmt.Sprintf("/dispatches/%d/output", id), query, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		_, err := answer(resp)
		return nil, err
	}
	return resp.Body, nil
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader, into any) ([]byte, error) {
	resp, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := answer(resp)
	if err != nil {
		return nil, err
	}
	if into != nil {
		if err := json.Unmarshal(data, into); err != nil {
			return nil, fmt.Errorf("the daemon's answer to %s can't be read (is it another version? cortex status tells): %w", path, err)
		}
	}
	return data, nil
}

func (c *Client) send(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "localhost", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, c.unreachable(err)
	}
	return resp, nil
}

// unreachable says why nobody answers, and what to do.
func (c *Client) unreachable(err error) error {
	kind, message, hint := ErrNoDaemon, "No daemon answers on "+c.socket, "start one: cortex serves when it is called without a command"
	switch {
	case errors.Is(err, syscall.EACCES):
		message, hint = "The socket "+c.socket+" can't be opened", "run this as the user whose daemon it is"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = "it ended without removing its socket; start it again: cortex"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		kind, message, hint = ErrWentAway, "The daemon went away before it answered", "look whether the order took effect: cortex status, cortex list"
	}
	return &cortex.Error{Message: message, Hint: hint, Err: fmt.Errorf("%w: %w", kind, err)}
}

// answer reads an answer's body, and makes one that says no an *Error.
func answer(resp *http.Response) ([]byte, error) {
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, &cortex.Error{Message: "The daemon went away in the middle of its answer", Hint: "ask again",
			Err: fmt.Errorf("%w: %w", ErrWentAway, err)}
	}
	// 503 is also the answer of /health when something is wrong: then it is no problem but what was asked for.
	var p api.Problem
	if resp.StatusCode < 300 || resp.StatusCode == http.StatusServiceUnavailable && (json.Unmarshal(data, &p) != nil || p.Reason == "") {
		return data, nil
	}
	if json.Unmarshal(data, &p) != nil || p.Reason == "" {
		return nil, &Error{Code: resp.StatusCode, Body: data, Problem: cortex.Error{Reason: cortex.ReasonInternal,
			Message: "The daemon answered " + resp.Status, Hint: "is another program behind this socket?"}}
	}
	return nil, &Error{Code: resp.StatusCode, Body: data,
		Problem: cortex.Error{Reason: cortex.Reason(p.Reason), Message: p.Error, Hint: p.Hint}}
}

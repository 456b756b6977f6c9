package api

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"cortex"
)

// What net/http can't read as a request never comes to a handler: it answers itself, in plain text. jsonErrors gives these
// answers the shape of all others.
type jsonErrors struct{ net.Listener }

func (l jsonErrors) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c, nil
	}
	return jsonErrorConn{tcp}, nil
}

// jsonErrorConn keeps the methods of a TCPConn: net/http half-closes a connection, so that the client sees the answer.
type jsonErrorConn struct{ *net.TCPConn }

// Write passes all on but what net/http answers itself, which comes in one piece.
func (c jsonErrorConn) Write(p []byte) (int, error) {
	answer, ok := inShape(p)
	if !ok {
		return c.TCPConn.Write(p)
	}
	if _, err := c.TCPConn.Write(answer); err != nil {
		return 0, err
	}
	return len(p), nil
}

// plainHead is how such an answer goes on after its status line (net/http, errorHeaders); no answer of a handler does.
const plainHead = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

// inShape makes a problem of an answer of net/http's own.
func inShape(p []byte) ([]byte, bool) {
	status, found := bytes.CutPrefix(p, []byte("HTTP/1.1 "))
	end := bytes.Index(status, []byte(plainHead))
	if !found || end < 0 || len(status) < 3 {
		return nil, false
	}
	code, err := strconv.Atoi(string(status[:3]))
	if err != nil || code < 400 {
		return nil, false
	}
	body := unreadable(code, string(status[:end]))
	text, err := encode(body)
	if err != nil {
		return nil, false
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		body.Code, http.StatusText(body.Code), len(text), text), true
}

// unreadable is the problem for a status line. A Host that is missing or malformed is a foreign one.
func unreadable(code int, line string) Problem {
	if strings.Contains(line, "Host header") {
		return Problem{Error: "The request's Host is not a name of this daemon", Code: statuses[cortex.ReasonForeignHost],
			Reason: string(cortex.ReasonForeignHost), Hint: "send one Host header, such as 127.0.0.1:8900"}
	}
	return Problem{Error: "The request can't be read: " + clip(line), Code: code, Reason: string(cortex.ReasonBadRequest),
		Hint: "send HTTP/1.1, with headers of at most 16 KiB"}
}

package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"cortex"
	"cortex/api"
)

// Events are events as they happen. One goroutine may read them.
type Events struct {
	body io.ReadCloser
	in   *bufio.Reader
	last string
}

// Follow asks for the events as they happen: GET /events with query, to which follow=true is added. The caller closes them.
func (c *Client) Follow(ctx context.Context, query url.Values) (*Events, error) {
	asked := url.Values{"follow": {"true"}}
	for name, values := range query {
		asked[name] = values
	}
	resp, err := c.send(ctx, http.MethodGet, "/events", asked, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		_, err := answer(resp)
		return nil, err
	}
	return &Events{body: resp.Body, in: bufio.NewReader(resp.Body)}, nil
}

// Close ends the connection.
func (e *Events) Close() error { return e.body.Close() }

// Last is the id to go on after, for the query's after; "" before the daemon has named one.
func (e *Events) Last() string { return e.last }

// Next waits for the next event, and also returns its JSON as it came. It is ErrWentAway when the daemon ends the stream: it
// stops, is gone, or does not wait any longer for a reader that takes nothing.
func (e *Events) Next() (api.Event, []byte, error) {
	var id, data string
	for {
		line, err := e.in.ReadString('\n')
		if err != nil {
			return api.Event{}, nil, &cortex.Error{Message: "The daemon went away", Hint: "cortex status shows whether it is back",
				Err: fmt.Errorf("%w: %w", ErrWentAway, err)}
		}
		line = strings.TrimSuffix(line, "\n")
		if line != "" {
			switch name, value, _ := strings.Cut(line, ": "); name {
			case "id":
				id = value
			case "data":
				data = value
			} // else it is the kind, which the data has, too, or a sign of life
			continue
		}
		// Only now the piece is whole.
		if id != "" {
			e.last = id
		}
		if data == "" {
			continue
		}
		var ev api.Event
		if err := json.Unmarshal([]byte(data), &ev); err != nil {
			return ev, nil, fmt.Errorf("the daemon's event %s can't be read (is it another version? cortex status tells): %w", id, err)
		}
		return ev, []byte(data), nil
	}
}

package testenv

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// Answer is a JSON answer.
type Answer map[string]any

// Get asks over TCP, as curl does.
func (h *Host) Get(path string) (int, Answer) { return h.Ask(http.MethodGet, path, "") }

// Post is Get with a body that may be empty.
func (h *Host) Post(path, body string) (int, Answer) { return h.Ask(http.MethodPost, path, body) }

// Ask sends a request over TCP, with the token. The answer is nil where it is not JSON, and the code 0 where there is none.
func (h *Host) Ask(method, path, body string) (int, Answer) {
	code, text := h.AskText(method, path, body)
	var a Answer
	if json.Unmarshal([]byte(text), &a) != nil {
		return code, nil
	}
	return code, a
}

// AskText is Ask for an answer of any kind.
func (h *Host) AskText(method, path, body string) (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+h.Listen+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if token, err := os.ReadFile(filepath.Join(h.State, "token")); err == nil {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

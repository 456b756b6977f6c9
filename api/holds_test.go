package api

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cortex"
	"cortex/sched"
)

func decodeHold(body string, now time.Time) (sched.HoldOrder, error) {
	order := sched.HoldOrder{Scope: cortex.ScopeAll}
	err := decodeBody(httptest.NewRecorder(), httptest.NewRequest("POST", "/holds", strings.NewReader(body)), holdFields(&order, now))
	return order, err
}

func TestDecodeHold(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 2, 18, 6, 0, 0, 0, time.UTC)
	order, err := decodeHold(`{"scope":"provider:p:eu","reason":"limits","by":"ann","until":"2026-02-18T09:00:00+02:00","kind":"operator","ttl":null}`, now)
	if err != nil || order.Scope != "provider:p:eu" || order.Reason != "limits" || order.By != "ann" || order.TTL != 0 ||
		order.Until == nil || !order.Until.Equal(now.Add(time.Hour)) {
		t.Errorf("%+v, %v", order, err)
	}
	if order, err := decodeHold("", now); err != nil || order.Scope != cortex.ScopeAll || order.Until != nil {
		t.Errorf("an empty body: %+v, %v", order, err)
	}
	if order, err := decodeHold(`{"ttl":"30d"}`, now); err != nil || order.TTL != 30*24*time.Hour {
		t.Errorf("the longest ttl: %+v, %v", order, err)
	}
	if _, err := decodeHold(`{"scope":"provider:`+strings.Repeat("x", 256)+`"}`, now); err != nil {
		t.Errorf("the longest scope: %v", err)
	}
	for body, says := range map[string]string{
		`{"scope":""}`:                  "scope: want all, or project:",
		`{"scope":"web"}`:               `got "web"`,
		`{"scope":"project:"}`:          "scope: want",
		`{"scope":"session:x"}`:         "scope: want",
		`{"scope":["all"]}`:             "scope: want a string, got a list",
		`{"scope":"project:a\nb"}`:      "scope: want",
		`{"scope":"project:\u001b[2J"}`: "scope: control characters",
		`{"scope":"provider:` + strings.Repeat("x", 257) + `"}`: "scope: want at most 265 bytes",
		`{"ttl":"30d1s"}`:                  "ttl: want a duration",
		`{"ttl":"0s"}`:                     "ttl: want a duration",
		`{"ttl":3600}`:                     "ttl: want a duration as a string",
		`{"until":"2026-02-18T06:00:00Z"}`: "until: 2026-02-18T06:00:00Z is past",
		`{"until":"2026-03-20T06:00:01Z"}`: "is more than 30d from now",
		`{"until":"tomorrow"}`:             `until: want a time such as 2026-02-18T06:01:00Z, got "tomorrow"`,
		`{"until":1}`:                      "until: want a time",
		`{"kind":"disk"}`:                  `kind: want "operator", got "disk"`,
		`{"kind":"ttl"}`:                   `kind: want "operator"`,
		`{"scop":"all"}`:                   `"scop"`,
		`{"reason":"` + strings.Repeat("x", 4097) + `"}`: "reason: want at most 4096 bytes",
	} {
		_, err := decodeHold(body, now)
		var p *cortex.Error
		if !errors.As(err, &p) || statuses[p.Reason] != 400 || !strings.Contains(p.Message, says) || p.Hint == "" {
			t.Errorf("%.60s: %v, want …%s…", body, err, says)
		}
	}
}

func TestLiftMessage(t *testing.T) {
	t.Parallel()
	pause := cortex.Hold{ID: 3, Kind: cortex.HoldOperator, Scope: cortex.ScopeAll}
	disk := cortex.Hold{Kind: cortex.HoldDisk, Scope: cortex.ScopeAll}
	web := cortex.Hold{ID: 7, Kind: cortex.HoldTTL, Scope: "project:web"}
	for want, c := range map[string]struct {
		hold      cortex.Hold
		remaining []cortex.Hold
	}{
		"Scheduler resumed":                         {pause, nil},
		"Hold 3 lifted; still held: operator, disk": {pause, []cortex.Hold{pause, disk, disk}},
		"Hold 7 lifted":                             {web, nil},
		"Hold 7 lifted; still held: operator":       {web, []cortex.Hold{pause}},
	} {
		if got := liftMessage(c.hold, c.remaining); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

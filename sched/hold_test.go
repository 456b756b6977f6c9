package sched

import (
	"testing"
	"time"

	"cortex"
)

func TestHoldOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		order HoldOrder
		kind  cortex.HoldKind
		until *time.Time
	}{
		"until it is lifted": {HoldOrder{Scope: "all"}, cortex.HoldOperator, nil},
		"for a while":        {HoldOrder{PauseOrder: PauseOrder{TTL: time.Hour}}, cortex.HoldTTL, at(time.Hour)},
		"until a time":       {HoldOrder{Until: at(time.Minute)}, cortex.HoldTTL, at(time.Minute)},
	} {
		h := holdOf(c.order, t0)
		if h.Kind != c.kind || (h.Until == nil) != (c.until == nil) || c.until != nil && !h.Until.Equal(*c.until) || !h.Since.Equal(t0) {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

func TestLongPause(t *testing.T) {
	t.Parallel()
	hold := func(change func(*cortex.Hold)) *cortex.Hold {
		h := &cortex.Hold{ID: 1, Kind: cortex.HoldOperator, Scope: cortex.ScopeAll, Since: t0}
		change(h)
		return h
	}
	same := func(*cortex.Hold) {}
	for name, c := range map[string]struct {
		hold    *cortex.Hold
		warning time.Duration
		after   time.Duration
		want    bool
	}{
		"longer":              {hold(same), time.Hour, time.Hour + 1, true},
		"not longer":          {hold(same), time.Hour, time.Hour, false},
		"never":               {hold(same), 0, 1000 * time.Hour, false},
		"not paused":          {nil, time.Hour, 2 * time.Hour, false},
		"with an end":         {hold(func(h *cortex.Hold) { h.Kind = cortex.HoldTTL }), time.Hour, 2 * time.Hour, true},
		"cortex's own":        {hold(func(h *cortex.Hold) { h.Kind = cortex.HoldDisk }), time.Hour, 2 * time.Hour, false},
		"only in the journal": {hold(func(h *cortex.Hold) { h.ID = 0 }), time.Hour, 2 * time.Hour, false},
		"nobody knows since":  {hold(func(h *cortex.Hold) { h.Since = time.Time{} }), time.Hour, 2 * time.Hour, false},
	} {
		if got := long(c.hold, c.warning, t0.Add(c.after)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

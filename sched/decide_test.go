package sched

import (
	"testing"
	"time"

	"cortex"
)

var t0 = time.Date(2026, 2, 18, 6, 0, 0, 0, time.UTC)

func at(d time.Duration) *time.Time {
	t := t0.Add(d)
	return &t
}

func TestPauseSumsUpItsHolds(t *testing.T) {
	t.Parallel()
	operator := cortex.Hold{ID: 1, Kind: cortex.HoldOperator, Scope: "all", By: "ann", Since: t0.Add(time.Minute)}
	ttl := cortex.Hold{ID: 2, Kind: cortex.HoldTTL, Scope: "all", By: "bob", Since: t0, Until: at(time.Hour)}
	disk := cortex.Hold{Kind: cortex.HoldDisk, Scope: "all", By: "cortex", Since: t0.Add(-time.Hour)}
	project := cortex.Hold{ID: 3, Kind: cortex.HoldOperator, Scope: "project:p", Since: t0}
	lifted := cortex.Hold{ID: 4, Kind: cortex.HoldOperator, Scope: "all", Since: t0, LiftedAt: at(time.Second)}
	for name, c := range map[string]struct {
		holds []cortex.Hold
		by    string // "" for no pause
		until *time.Time
	}{
		"none":                             {nil, "", nil},
		"a project's alone":                {[]cortex.Hold{project}, "", nil},
		"lifted":                           {[]cortex.Hold{lifted}, "", nil},
		"ends by itself":                   {[]cortex.Hold{ttl}, "bob", at(time.Hour)},
		"one of two does not end":          {[]cortex.Hold{ttl, operator}, "bob", nil},
		"the operator's before the disk's": {[]cortex.Hold{disk, operator}, "ann", nil},
		"the disk's":                       {[]cortex.Hold{disk, project}, "cortex", nil},
	} {
		holds := inForce(c.holds, t0.Add(2*time.Minute))
		h, until := pause(holds)
		if (h == nil) != (c.by == "") || h != nil && h.By != c.by {
			t.Errorf("%s: by %+v, want %q", name, h, c.by)
		}
		if shut(holds) != (c.by != "") {
			t.Errorf("%s: shut %v", name, shut(holds))
		}
		if (until == nil) != (c.until == nil) || until != nil && !until.Equal(*c.until) {
			t.Errorf("%s: until %v, want %v", name, until, c.until)
		}
	}
	if left := inForce([]cortex.Hold{ttl}, t0.Add(time.Hour)); len(left) != 0 {
		t.Errorf("a hold is in force at its end: %v", left)
	}
}

func TestDiskHold(t *testing.T) {
	t.Parallel()
	const floor = 100 * mib
	none := diskHold(nil, floor, floor, t0)
	if none != nil {
		t.Errorf("at the floor: %+v", none)
	}
	held := diskHold(nil, floor-1, floor, t0)
	if held == nil || held.Scope != cortex.ScopeAll || held.Kind != cortex.HoldDisk {
		t.Fatalf("below the floor: %+v", held)
	}
	still := diskHold(held, floor+floor/20, floor, t0.Add(time.Minute))
	if still == nil || !still.Since.Equal(t0) {
		t.Errorf("just above the floor it flaps: %+v", still)
	}
	if gone := diskHold(held, floor+floor/10, floor, t0); gone != nil {
		t.Errorf("well above the floor: %+v", gone)
	}
	for total, want := range map[int64]int64{10 * mib: mib, 1000 * mib: 20 * mib, 1 << 40: 256 * mib} {
		if got := Floor(total); got != want {
			t.Errorf("floor of %d: %d, want %d", total, got, want)
		}
	}
}

func TestDescriptorHold(t *testing.T) {
	t.Parallel()
	const limit = 128 // of which 32 are kept
	if h := descriptorHold(nil, 92, limit, t0); h != nil {
		t.Errorf("with room for one start: %+v", h)
	}
	held := descriptorHold(nil, 93, limit, t0)
	if held == nil || held.Scope != cortex.ScopeAll || held.Kind != cortex.HoldDescriptors {
		t.Fatalf("without room for a start: %+v", held)
	}
	still := descriptorHold(held, 92, limit, t0.Add(time.Minute))
	if still == nil || !still.Since.Equal(t0) {
		t.Errorf("with room for one start it flaps: %+v", still)
	}
	if gone := descriptorHold(held, 88, limit, t0); gone != nil {
		t.Errorf("with room for two starts: %+v", gone)
	}
	for _, c := range []struct{ used, limit, starting, want int }{
		{40, limit, 0, 14}, {40, limit, 14, 0}, {40, limit, 20, -6}, {20, 64, 0, 7}, {1000, 1 << 20, 0, 261886},
	} {
		if got := startsFor(c.used, c.limit, c.starting); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 6: backoffMax, 1000: backoffMax} {
		if got := backoff(n); got != want {
			t.Errorf("after %d failures: %v, want %v", n, got, want)
		}
	}
}

func TestRecent(t *testing.T) {
	t.Parallel()
	starts := []time.Time{t0, t0.Add(time.Minute), t0.Add(4 * time.Minute)}
	if got := recent(starts, t0.Add(5*time.Minute+time.Second)); len(got) != 2 {
		t.Errorf("%v", got)
	}
	if got := recent(starts, t0.Add(time.Hour)); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

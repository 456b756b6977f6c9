package sched

import (
	"testing"
	"time"

	"cortex"
)

func TestMemoryHold(t *testing.T) {
	t.Parallel()
	const mark = 100 * mib
	if h := memoryHold(nil, 0, 0, t0); h != nil {
		t.Errorf("without a mark: %+v", h)
	}
	if h := memoryHold(nil, mark, mark, t0); h != nil {
		t.Errorf("at the mark: %+v", h)
	}
	held := memoryHold(nil, mark-1, mark, t0)
	if held == nil || held.Scope != cortex.ScopeAll || held.Kind != cortex.HoldMemory {
		t.Fatalf("below the mark: %+v", held)
	}
	if still := memoryHold(held, mark+mark/20, mark, t0.Add(time.Minute)); still == nil || !still.Since.Equal(t0) {
		t.Errorf("just above the mark it flaps: %+v", still)
	}
	if gone := memoryHold(held, mark+mark/10, mark, t0); gone != nil {
		t.Errorf("well above the mark: %+v", gone)
	}
}

func TestLoadHold(t *testing.T) {
	t.Parallel()
	if h := loadHold(nil, 1000, 1, 0, t0); h != nil {
		t.Errorf("without a mark: %+v", h)
	}
	if h := loadHold(nil, 8, 4, 200, t0); h != nil {
		t.Errorf("at the mark: %+v", h)
	}
	held := loadHold(nil, 8.01, 4, 200, t0)
	if held == nil || held.Scope != cortex.ScopeAll || held.Kind != cortex.HoldLoad {
		t.Fatalf("above the mark: %+v", held)
	}
	if still := loadHold(held, 7.5, 4, 200, t0.Add(time.Minute)); still == nil || !still.Since.Equal(t0) {
		t.Errorf("just below the mark it flaps: %+v", still)
	}
	if gone := loadHold(held, 7.2, 4, 200, t0); gone != nil {
		t.Errorf("well below the mark: %+v", gone)
	}
}

func TestHostPressure(t *testing.T) {
	t.Parallel()
	available, load, err := hostPressure(Marks{MinMemory: 1})
	if err != nil || available < mib || load < 0 {
		t.Errorf("%d bytes available, load %v: %v", available, load, err)
	}
}

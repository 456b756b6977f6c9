package record

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A disk that gets full cuts a write short in the middle: os.File.WriteAt then says that nothing was written, and the timing
// once lost step with the log by what was. Here it gets full after each number of pages, with writes of several sizes; what is
// in the log is counted, what is not is marked when there is room again.
func TestAFullDiskCutsAWriteShort(t *testing.T) {
	t.Parallel()
	if !onSmallDisk(t) {
		return
	}
	short := 0
	for pages := range int64(12) {
		for _, piece := range []int{1000, 5000, 3 * 4096, 70_000} {
			t.Run(fmt.Sprintf("%d pages, %d", pages, piece), func(t *testing.T) {
				disk := mount(t, "tmpfs", "mode=700,size=256k")
				d := makeDir(t, disk)
				w := create(t, d, 1<<20)
				filler := fill(t, disk, pages)
				all := speech(300_000)
				at, failed, kept := 0, 0, int64(0)
				for failed < 3 {
					n := min(piece, len(all)-at)
					before := w.Bytes() - w.Lost()
					err := w.Write(all[at:at+n], time.Duration(at)*time.Microsecond)
					at += n
					if err != nil {
						wantErr(t, err, unix.ENOSPC)
						failed++
					}
					inStep(t, d) // after each write, cut short or not
					kept = w.Bytes() - w.Lost()
					if got := kept - before; err != nil && got > 0 && got < int64(n) {
						short++
					}
					if size := w.head.size; size != kept {
						t.Fatalf("%d bytes are in the log, %d were said and are not lost", size, kept)
					}
				}
				if w.Lost() == 0 || free(t, disk) >= int64(piece)+page {
					t.Fatalf("%d are lost, %d bytes are free: the test proves nothing", w.Lost(), free(t, disk))
				}
				if got := readLog(t, d); !bytes.Equal(got, all[:kept]) {
					t.Errorf("%d bytes are read, and are not the first %d", len(got), kept)
				}
				lost := w.Lost()
				check(t, os.Remove(filler))
				check(t, w.Write(all[at:at+10], time.Second))
				inStep(t, d)
				check(t, w.Close())
				log := readLog(t, d)
				wantLog(t, log, at+10)
				if m := lossRE.FindAllSubmatch(log, -1); len(m) != 1 || string(m[0][1]) != fmt.Sprint(lost) || lost != w.Lost() {
					t.Errorf("%d are lost, %d in the end; marks %q", lost, w.Lost(), m)
				}
				if !strings.Contains(string(log), "lost: no space left on device]") {
					t.Error("the mark does not say why")
				}
				inStep(t, d)
				alone(t, d)
			})
		}
	}
	if short < 10 {
		t.Errorf("%d writes were cut short in the middle: the test proves nothing", short)
	}
}

// Room for a moment only: each gap has its own mark, and what is said between is kept.
func TestEachLossIsMarked(t *testing.T) {
	t.Parallel()
	if !onSmallDisk(t) {
		return
	}
	disk := mount(t, "tmpfs", "mode=700,size=512k")
	d := makeDir(t, disk)
	w := create(t, d, 1<<20)
	all := speech(200_000)
	at := 0
	for round := range int64(5) {
		filler := fill(t, disk, round)
		for range 6 {
			if err := w.Write(all[at:at+5001], 0); err != nil {
				wantErr(t, err, unix.ENOSPC)
			}
			at += 5001
			inStep(t, d)
		}
		check(t, os.Remove(filler))
		check(t, w.Write(all[at:at+501], 0))
		at += 501
		inStep(t, d)
	}
	check(t, w.Close())
	log := readLog(t, d)
	wantLog(t, log, at)
	marks := lossRE.FindAllSubmatch(log, -1)
	lost := int64(0)
	for _, m := range marks {
		var n int64
		if _, err := fmt.Sscan(string(m[1]), &n); err != nil {
			t.Error(err)
		}
		lost += n
	}
	if len(marks) < 5 || lost != w.Lost() {
		t.Errorf("%d marks of %d bytes, %d are lost", len(marks), lost, w.Lost())
	}
}

// A loss that is the last thing to happen is marked at the close, and where even then there is no room the counters tell.
func TestLossAtTheEnd(t *testing.T) {
	t.Parallel()
	if !onSmallDisk(t) {
		return
	}
	for _, room := range []bool{true, false} {
		disk := mount(t, "tmpfs", "mode=700,size=256k")
		d := makeDir(t, disk)
		w := create(t, d, 1<<20)
		check(t, w.Write(speech(100), 0))
		filler := fill(t, disk, 0)
		all := speech(50_000)
		wantErr(t, w.Write(all[100:], 0), unix.ENOSPC)
		if room {
			check(t, os.Remove(filler))
			check(t, w.Close())
			wantLog(t, readLog(t, d), len(all))
		} else {
			wantErr(t, w.Close(), unix.ENOSPC)
			n, err := covers(readLog(t, d))
			if err != nil || int64(n) != w.Bytes()-w.Lost() {
				t.Errorf("%d bytes are in the log, %d not lost, %v", n, w.Bytes()-w.Lost(), err)
			}
		}
		inStep(t, d)
	}
}

// Where there is no room to bring head and tail together, they stay as they are, and the log reads the same. The room is every
// number of pages from none to enough, so that the join is cut short in the timing, in the mark and in the bytes.
func TestNoRoomToJoin(t *testing.T) {
	t.Parallel()
	if !onSmallDisk(t) {
		return
	}
	const limit = 64 << 10
	left, joined := 0, 0
	for pages := range int64(14) {
		t.Run(fmt.Sprint(pages, " pages"), func(t *testing.T) {
			disk := mount(t, "tmpfs", "mode=700,size=256k")
			d := makeDir(t, disk)
			w := create(t, d, limit)
			say(t, w, 2*limit+limit/4-500, 40)
			whole := readLog(t, d)
			wantLog(t, whole, 2*limit+limit/4-500)
			filler := fill(t, disk, pages)
			err := w.Close()
			if err != nil {
				wantErr(t, err, unix.ENOSPC)
				left++
				inStep(t, d)
			} else {
				joined++
				alone(t, d)
				inStep(t, d)
			}
			if got := readLog(t, d); !bytes.Equal(got, whole) {
				t.Errorf("after the close (%v) the log has %d bytes, before %d", err, len(got), len(whole))
			}
			check(t, os.Remove(filler))
		})
	}
	if left < 3 || joined == 0 {
		t.Errorf("%d stayed apart, %d were joined: the test proves nothing", left, joined)
	}
}

// A tail whose next stretch finds no room is written on as soon as there is some. How much is cut then is a matter of luck; head,
// end and step are not.
func TestAFullDiskBeyondTheBound(t *testing.T) {
	t.Parallel()
	if !onSmallDisk(t) {
		return
	}
	const limit = 32 << 10
	disk := mount(t, "tmpfs", "mode=700,size=256k")
	d := makeDir(t, disk)
	w := create(t, d, limit)
	all := speech(900_000)
	at := 0
	write := func(n, piece int) {
		for end := at + n; at < end; at += piece {
			if err := w.Write(all[at:at+piece], time.Duration(at)); err != nil {
				wantErr(t, err, unix.ENOSPC)
			}
			inStep(t, d)
		}
	}
	write(limit/2+1000, 500)
	for pages := range int64(6) {
		filler := fill(t, disk, pages)
		write(20_000, 2500)
		check(t, os.Remove(filler))
		write(3*limit, 1024) // enough to push the losses out of the tail
	}
	if w.Lost() == 0 {
		t.Error("nothing was lost: the test proves nothing")
	}
	check(t, w.Close())
	log := readLog(t, d)
	mark := cutRE.FindIndex(log)
	if mark == nil || !bytes.Equal(log[:mark[0]], all[:limit/2]) || !bytes.HasSuffix(all[:at], log[mark[1]:]) || len(log)-mark[1] < limit/4 {
		t.Errorf("%d bytes, the mark at %v", len(log), mark)
	}
	inStep(t, d)
	alone(t, d)
}

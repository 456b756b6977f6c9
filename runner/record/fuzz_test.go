package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// back writes a record, reads it again and checks that the same came back. Times are compared as they are written: a zone of
// the same offset may be another object.
func back[T any](t *testing.T, v T) T {
	t.Helper()
	written, err := json.Marshal(v)
	check(t, err)
	var read T
	if err := decode(written, &read); err != nil {
		t.Fatalf("%s can't be read again: %v", written, err)
	}
	again, err := json.Marshal(read)
	check(t, err)
	if !bytes.Equal(written, again) {
		t.Errorf("written %s, read %s", written, again)
	}
	// No beginning of a record is one, wherever it was cut off; and one of a later version is told from damage.
	for _, cut := range []int{0, 1, len(written) / 4, len(written) / 2, 3 * len(written) / 4, len(written) - 2, len(written) - 1} {
		if err := decode(written[:cut], new(T)); !errors.Is(err, ErrTorn) {
			t.Errorf("%s: %v", written[:cut], err)
		}
	}
	newer := bytes.Replace(written, []byte(`"format":1,`), []byte(`"format":2,`), 1)
	if err := decode(newer, new(T)); !errors.Is(err, ErrNewer) {
		t.Errorf("%s: %v", newer, err)
	}
	return read
}

// readable reads a record; false where it is torn or newer, and nothing else.
func readable[T any](t *testing.T, data []byte) (v T, ok bool) {
	t.Helper()
	err := decode(data, &v)
	if err != nil && errors.Is(err, ErrTorn) == errors.Is(err, ErrNewer) {
		t.Errorf("neither torn nor newer, or both: %v", err)
	}
	return v, err == nil
}

var specs = []string{
	`{"format":1,"id":7,"bead":"b","project":"p","priority":2,"created_at":"2026-02-18T06:01:00Z","command":["make","test"],` +
		`"env":["PATH=/bin",{"base64":"UkFXPf8="}],"workdir":"/w","stdin":"pty","timeout_ms":1,"grace_ms":10000,"output_max":4096,` +
		`"columns":200,"rows":50}`,
	`{"format":1,"created_at":"2026-02-18T06:01:00.123456789+01:30","command":null,"env":null}`,
	`{"format":1,"command":["","\u0000","\ud800","\u2028<&>"],"env":["",null,{},{"base64":""}]}`,
	`{"format":1,"env":[{"base64":"?"}]}`, `{"format":2}`, `{"format":0}`, `{}`, `null`, ``, `[`, "\xff", `{"format":1e999}`,
	`{"format":1,"format":2}`, `{"FORMAT":1,"Env":["A=b"]}`, `{"format":1,"created_at":"9999-12-31T23:59:60Z"}`,
}

func FuzzSpec(f *testing.F) {
	for _, s := range specs {
		f.Add([]byte(s), "PATH=/bin")
	}
	f.Add([]byte(specs[0]), "RAW=\xff\xfe\x00")
	f.Fuzz(func(t *testing.T, data []byte, env string) {
		s, ok := readable[Spec](t, data)
		if !ok {
			return
		}
		s.Format = Format // an older one is not written
		s.Env = append(s.Env, Raw(env))
		if read := back(t, s); !slices.Equal(read.Env, s.Env) || !slices.Equal(read.Command, s.Command) {
			t.Errorf("%q %q, read %q %q", s.Command, s.Env, read.Command, read.Env)
		}
	})
}

func FuzzExit(f *testing.F) {
	for _, s := range append(specs,
		`{"format":1,"id":7,"attempt":1,"cause":"exit","code":137,"signal":9,"core":true,"started_at":"2026-02-18T06:01:00Z",`+
			`"ended_at":"2026-02-18T06:01:01Z","seconds":1.25,"swept":["12 sleep"],"swept_more":3,"output_bytes":1,"output_cut":2,`+
			`"output_lost":3,"max_rss_kib":4,"cpu_seconds":0.1}`,
		`{"format":1,"cause":"spawn_error","code":-1,"error":"exec: \"x\u0000\": not found","seconds":1e-300}`,
		`{"format":1,"code":99999999999999999999}`, `{"format":1,"seconds":1e999}`, `{"format":1,"seconds":"NaN"}`) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, ok := readable[Exit](t, data)
		if !ok {
			return
		}
		e.Format = Format
		if read := back(t, e); !reflect.DeepEqual(read.Swept, e.Swept) && len(e.Swept) > 0 || !read.EndedAt.Equal(e.EndedAt) || read.Seconds != e.Seconds {
			t.Errorf("%+v, read %+v", e, read)
		}
	})
}

// FuzzClaim also reads the other small records: who ends up in one's place is an agent that writes into its own folder.
func FuzzClaim(f *testing.F) {
	for _, s := range append(specs,
		`{"format":1,"runner":{"boot":"4f3b1d6e-8f1c-4f3e-9d59-0a4f6c1f2b3a","pid_ns":4026531836,"pid":4711,"start":123456},`+
			`"session":"ctx-p-b-7","tmux":"/tmp/tmux-0/default,812,3","cgroup":"/sys/fs/cgroup/ctx-7-1.4711","at":"2026-02-18T06:01:00Z"}`,
		`{"format":1,"revoked":true,"reason":"the scheduler was paused","runner":{"boot":"","pid_ns":0,"pid":0,"start":0},`+
			`"at":"2026-02-18T06:01:00.000000001Z"}`,
		`{"format":1,"by":"operator","reason":"too slow","actor":"ann","grace_ms":10000,"at":"2026-02-18T06:01:00Z"}`,
		`{"format":1,"kind":"lost","detail":"the host was restarted while it ran","proven":true,"at":"2026-02-18T06:01:00Z"}`,
		`{"format":1,"agent":{"boot":"b","pid_ns":1,"pid":2,"start":3},"tty":"/dev/pts/3","at":"2026-02-18T06:01:00Z"}`) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, ok := readable[Claim](t, data); ok {
			c.Format = Format
			if read := back(t, c); read.Runner != c.Runner || read.Revoked != c.Revoked {
				t.Errorf("%+v, read %+v", c, read)
			}
		}
		if s, ok := readable[Started](t, data); ok {
			s.Format = Format
			back(t, s)
		}
		if o, ok := readable[Order](t, data); ok {
			o.Format = Format
			back(t, o)
		}
		if v, ok := readable[Verdict](t, data); ok {
			v.Format = Format
			back(t, v)
		}
	})
}

// FuzzLog writes pieces of the sizes that the input says. The log is what was said but for what its mark says, before and after
// its close; its timing adds up to it and to the time; and none of it is larger than the bound.
func FuzzLog(f *testing.F) {
	f.Add(uint16(0), []byte{})
	f.Add(uint16(4096), []byte{1})
	f.Add(uint16(4096), bytes.Repeat([]byte{1}, 700))   // the timing is what is full
	f.Add(uint16(4097), bytes.Repeat([]byte{200}, 90))  // stretches of odd sizes
	f.Add(uint16(9000), bytes.Repeat([]byte{255}, 300)) // large pieces
	f.Add(uint16(65535), []byte{255, 255, 0, 1, 255, 128, 127, 255})
	f.Add(uint16(4096), slices.Concat(bytes.Repeat([]byte{1}, 300), bytes.Repeat([]byte{255}, 20), bytes.Repeat([]byte{2}, 300)))
	runs := f.TempDir()
	n := int64(0)
	f.Fuzz(func(t *testing.T, limit uint16, sizes []byte) {
		n++
		top, err := MakeDir(runs, n, 0)
		check(t, err)
		defer os.RemoveAll(top.Path())
		defer top.Close()
		w := create(t, top, int64(limit))
		var last time.Duration
		total := 0
		for i, b := range sizes {
			size := int(b)
			if b > 127 { // up to 16 KiB
				size = int(b-127) * 128
			}
			if total+size > speechMax {
				break
			}
			at := time.Duration(i) * time.Duration(b) * time.Millisecond // not always forward
			check(t, w.Write(allSpeech()[total:total+size], at))
			if total += size; size > 0 {
				last = max(last, at)
			}
		}
		before := readLog(t, top)
		inStep(t, top)
		check(t, w.Close())
		log := readLog(t, top)
		if !bytes.Equal(log, before) {
			t.Error("closing has changed what the log says")
		}
		wantLog(t, log, total)
		inStep(t, top)
		alone(t, top)
		cut := int64(0)
		if m := cutRE.FindSubmatch(log); m != nil {
			cut = int64(total - len(log) + len(m[0]))
		}
		bound := max(int64(limit), minOutputMax)
		if limit == 0 {
			bound = DefaultOutputMax
		}
		if cut != w.Cut() || w.Lost() != 0 || w.Bytes() != int64(total) || int64(len(log)) > bound+64 || gapCount(log) > 1 {
			t.Errorf("cut %d, by the writer %d of %d, kept %d of at most %d", cut, w.Cut(), w.Bytes(), len(log), bound)
		}
		timing, err := os.Stat(filepath.Join(top.Path(), OutputTiming))
		check(t, err)
		if _, micros := sumTiming(t, top, OutputTiming); micros != last.Microseconds() || timing.Size() > bound+128 {
			t.Errorf("the timing lasts %d µs, want %d; it has %d bytes", micros, last.Microseconds(), timing.Size())
		}
	})
}

func gapCount(log []byte) int { return strings.Count(string(log), "[cortex: ") }

// Package metrics shows the state of cortex to Prometheus. Each scrape takes one snapshot, so that its figures belong
// together; it counts nothing itself, asks no database, and carries no bead, project, path or prompt, since every local
// user may read it.
package metrics

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"cortex"
	"cortex/sched"
)

// Options are what is shown. The functions are called once a scrape, from any goroutine, and must not wait.
type Options struct {
	Snapshot func() sched.Status
	Failures func() float64                     // dispatches that ended as failed since the database was made; never falls
	Config   func() (refused bool, restart int) // whether the file is refused, and how many of its keys need a restart
	Version  string
	Started  time.Time // of the daemon

	Followers func() float64 // who follow the events now
}

// Handler answers a scrape, from a registry of its own: nothing that a library registers by itself is in it.
func Handler(o Options) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		newCollector(o),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "cortex_event_followers", Help: "Clients that follow the events."}, o.Followers),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// collector makes cortex's own metrics of one snapshot.
type collector struct {
	Options
	revision string

	dispatches, running, frozen, pending, failures, paused, recent, limit, unrecorded, holds, lastPass, build, start, refused, restart *prometheus.Desc
}

func newCollector(o Options) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("cortex_"+name, help, labels, nil)
	}
	return &collector{
		Options:    o,
		revision:   revision(),
		dispatches: desc("dispatches", "Dispatches by status.", "status"),
		running:    desc("dispatches_running", "Dispatches that are claimed for a start and have not ended, with nothing of them left."),
		frozen:     desc("dispatches_frozen", "Running dispatches that are frozen."),
		pending:    desc("dispatches_pending", "Dispatches that wait to be started, retries included."),
		failures:   desc("dispatch_failures_total", "Dispatches that ended as failed."),
		paused:     desc("scheduler_paused", "1 while nothing is started because of a hold of scope all, else 0."),
		recent:     desc("dispatches_recent", "Dispatches started since the last pause or resume, within the last 5 minutes."),
		limit:      desc("dispatches_running_limit", "How many dispatches may run at once (max_concurrent_dispatches)."),
		unrecorded: desc("exits_unwritten", "Ends that are on disk and could not be written into the database yet."),
		holds:      desc("holds", "Holds in force, of any scope, by kind.", "kind"),
		lastPass:   desc("scheduler_last_pass_timestamp_seconds", "When the scheduler last looked for something to start."),
		build:      desc("build_info", "1, with what this daemon was built from.", "version", "revision", "goversion"),
		start:      desc("start_timestamp_seconds", "When this daemon started."),
		refused:    desc("config_refused", "1 while the configuration as it was last read is refused, else 0."),
		restart:    desc("config_restart_required", "Keys of the configuration that count only from a restart on and have changed."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.dispatches, c.running, c.frozen, c.pending, c.failures, c.paused, c.recent, c.limit, c.unrecorded, c.holds, c.lastPass, c.build, c.start,
		c.refused, c.restart,
	} {
		to <- d
	}
}

// holdKinds are all kinds, so that each series is there, at 0, from the start.
var holdKinds = []cortex.HoldKind{
	cortex.HoldOperator, cortex.HoldTTL, cortex.HoldDrain, cortex.HoldDisk, cortex.HoldDB, cortex.HoldTmux,
	cortex.HoldDescriptors, cortex.HoldMemory, cortex.HoldLoad,
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := c.Snapshot()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, status := range cortex.Statuses {
		gauge(c.dispatches, float64(s.Counts[status]), string(status))
	}
	gauge(c.running, float64(s.Running))
	gauge(c.frozen, float64(s.Frozen))
	gauge(c.pending, float64(s.Pending))
	to <- prometheus.MustNewConstMetric(c.failures, prometheus.CounterValue, c.Failures())
	paused := 0.0
	if s.State != sched.StateRunning {
		paused = 1
	}
	gauge(c.paused, paused)
	gauge(c.recent, float64(s.RecentDispatches))
	gauge(c.limit, float64(s.MaxConcurrent))
	gauge(c.unrecorded, float64(s.Unrecorded))
	kinds := map[cortex.HoldKind]int{}
	for _, h := range s.Holds {
		kinds[h.Kind]++
	}
	for _, kind := range holdKinds {
		gauge(c.holds, float64(kinds[kind]), string(kind))
	}
	gauge(c.lastPass, seconds(s.LastTick))
	gauge(c.build, 1, c.Version, c.revision, runtime.Version())
	gauge(c.start, seconds(c.Started))
	wrong, restart := c.Config()
	refused := 0.0
	if wrong {
		refused = 1
	}
	gauge(c.refused, refused)
	gauge(c.restart, float64(restart))
}

// seconds is a time as Prometheus writes it; 0 for one that has not been.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// revision is the commit that the binary was built from, or empty where the build did not know.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

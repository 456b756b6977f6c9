package cortex

// Check is one health check's answer: a value, so that whoever knows a part reports on it and the API only collects.
type Check struct {
	Name   string
	OK     bool
	Notice bool   // while it is not OK: somebody should see to it, but the daemon is none the worse for it
	Detail string // what was seen
	Hint   string // what to do; empty when OK
}

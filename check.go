package cortex

// Check is one health check's answer: a value, so that whoever knows a part reports on it and the API only collects.
type Check struct {
	Name   string
	OK     bool
	Detail string // what was seen
	Hint   string // what to do; empty when OK
}

// Command cortex-runner is the program in each tmux pane: it runs one attempt of a dispatch from its claim to its exit
// record (package cortex/runner/pane). The daemon starts it; people only look at it.
package main

import (
	"os"
	"runtime"

	"cortex/runner/pane"
)

// version is set by the build (-ldflags "-X main.version=...").
var version = "dev"

// The main goroutine stays on the first thread, which lives as long as the process: the agent is killed when the thread
// that forked it ends.
func init() { runtime.LockOSThread() }

func main() {
	os.Exit(pane.Main(os.Args[1:], version, os.Stdout, os.Stderr))
}

package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// typed is one command of the drill.
type typed struct {
	section string // the heading that it stands under
	moment  string // the drill's clock: T+1:00; empty in the assessment
	line    int    // of drill.md
	command string // as typed, without the prompt; may have several lines
	answer  string // as printed, without remarks; empty where the drill shows none
}

func (c typed) String() string {
	return fmt.Sprintf("drill.md:%d (%s %s)", c.line, c.section, c.moment)
}

var (
	momentLine = regexp.MustCompile(`^\*\*(T\+\d+:\d\d)\*\*`)
	remark     = regexp.MustCompile(`\s+# .*$`)
)

// nothing is how the drill shows that a command prints nothing, and that this is its answer.
const nothing = "[No output - no errors]"

// parseDrill reads the commands of all ```bash blocks.
func parseDrill(t *testing.T, text string) []typed {
	t.Helper()
	var commands []typed
	var section, moment string
	inside := false
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch {
		case !inside && strings.HasPrefix(line, "#"):
			section, moment = strings.TrimLeft(line, "# "), ""
		case !inside && momentLine.MatchString(line):
			moment = momentLine.FindStringSubmatch(line)[1]
		case !inside && line == "```bash":
			inside = true
		case inside && line == "```":
			inside = false
		case inside && strings.HasPrefix(line, "$ "):
			c := typed{section: section, moment: moment, line: i + 1}
			i = c.take(t, lines, i)
			commands = append(commands, c)
		case inside && line != "" && !strings.HasPrefix(line, "#"):
			t.Fatalf("drill.md:%d: %q belongs to no command", i+1, line)
		}
	}
	if inside {
		t.Fatal("drill.md: the last block has no end")
	}
	return commands
}

// take takes the command that begins in line i, as many lines as bash wants to have, and its answer. It returns the last
// line that it took.
func (c *typed) take(t *testing.T, lines []string, i int) int {
	t.Helper()
	c.command = strings.TrimPrefix(lines[i], "$ ")
	for !complete(c.command) {
		i++
		if lines[i] == "```" {
			t.Fatalf("%v: bash finds no end of: %s", c, c.command)
		}
		c.command += "\n" + lines[i]
	}
	var answer []string
	for ; !strings.HasPrefix(lines[i+1], "$ ") && !strings.HasPrefix(lines[i+1], "#") && lines[i+1] != "```"; i++ {
		answer = append(answer, strings.TrimRight(remark.ReplaceAllString(lines[i+1], ""), " "))
	}
	c.answer = strings.Trim(strings.Join(answer, "\n"), "\n")
	return i
}

// complete reports whether bash takes a text as a whole program.
func complete(text string) bool {
	cmd := exec.Command("bash", "-n")
	cmd.Stdin = strings.NewReader(text + "\n")
	return cmd.Run() == nil
}

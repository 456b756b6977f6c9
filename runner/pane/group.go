package pane

import (
	"os"

	"cortex/cgroup"
	"cortex/proc"
	"cortex/runner/record"
)

// makeGroup makes a control group for the agent, below the runner's own, where the spec and the host let it. Without one the
// process tree below this subreaper is what is killed; with one, whoever finds the claim after this runner's death can end
// the agent, and prove it.
func (r *runner) makeGroup() {
	if r.spec.NoCgroup {
		return
	}
	g, err := cgroup.Make(record.CgroupName(r.opts.ID, r.opts.Attempt, os.Getpid()))
	if err == nil {
		r.group = g
	}
}

func (r *runner) removeGroup() error {
	if r.group == nil {
		return nil
	}
	return r.group.Remove()
}

// dropGroup does without the group, where the agent can't be forked in it. The claim says so before there is an agent: a
// group that is empty since nobody was ever in it would else be taken for proof.
func (r *runner) dropGroup() error {
	if r.group == nil {
		return nil
	}
	r.claimed.Cgroup = ""
	if err := r.dir.Write(record.ClaimFile, r.claimed); err != nil {
		return err
	}
	err := r.removeGroup()
	r.group = nil
	return err
}

// alone reports whether nothing of the agent is left: no child of this subreaper, and nobody in the group. A group that
// can't be looked into says nothing.
func (r *runner) alone() bool {
	if !r.agent.reap() {
		return false
	}
	if r.group == nil {
		return true
	}
	empty, err := r.group.Empty()
	return empty || err != nil
}

// killGroup ends all in the group at once, however they fork, and returns who was below this process before. What is not in
// the group, or survives, is left to the sweep that follows.
func killGroup(g *cgroup.Group) ([]proc.Stat, error) {
	if g == nil {
		return nil, nil
	}
	seen, err := below()
	if err != nil {
		return nil, err
	}
	return seen, g.Kill()
}

// SPDX-License-Identifier: Apache-2.0

package application

// verdict is what follows from the result of a check.
type verdict int

const (
	goOn      verdict = iota
	restart           // take the application down and up again
	failed            // this node cannot run the application; said once
	recovered         // after failed: it can again
)

// counter judges the results of checks. It knows no time: what counts is how
// many results came in a row.
type counter struct {
	failures int // results in a row before something is done, at least 1
	restarts int // tries before this node has failed
	forget   int // good results in a row after which earlier restarts no longer count

	bad, good int // results in a row
	restarted int
	failed    bool
}

// observe takes the result of one check.
func (c *counter) observe(ok bool) verdict {
	if !ok {
		c.good = 0
		if c.bad++; c.failed || c.bad < c.failures {
			return goOn
		}
		return c.escalate()
	}
	c.bad = 0
	if c.good++; c.good >= c.forget {
		c.restarted = 0
	}
	if c.failed {
		c.failed = false
		return recovered
	}
	return goOn
}

// escalate is what to do about too many bad results, and about a restart that
// did not succeed: no more checks are needed to see that.
func (c *counter) escalate() verdict {
	c.bad, c.good = 0, 0
	if c.restarted < c.restarts {
		c.restarted++
		return restart
	}
	c.failed = true
	return failed
}

// reset forgets what came before a maintenance, but not that the node has
// failed: that ends with a good result.
func (c *counter) reset() { c.bad, c.good, c.restarted = 0, 0, 0 }

// untold takes back a verdict that nobody was told of.
func (c *counter) untold(v verdict) {
	switch v {
	case failed:
		c.failed = false
	case recovered:
		c.failed = true
	}
}

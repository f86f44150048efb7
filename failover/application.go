// SPDX-License-Identifier: Apache-2.0

package failover

import "time"

// The application on the service: it is up where the node serves, and comes
// second to the data: no failing script or check stops the last good copy
// (rule 23).

type appState uint8

const (
	appDown appState = iota
	appGoingUp
	appUp
	appFailed // it does not start, or its check gave up
	appGoingDown
	appKilled
)

type application struct {
	state  appState
	ailing bool          // it has failed here, and not been well since
	since  time.Duration // when it last failed, or came up
	why    string
}

// wellAfter is how long an application must run before its failures here are
// forgiven.
const wellAfter = 10 * time.Minute

func (m *Machine) bringUp() {
	m.application.state = appGoingUp
	m.do(Action{Do: DoUp, Epoch: m.term})
}

// Up: the application is up, or a step of it failed.
func (m *Machine) Up(now time.Duration, err error) []Action {
	m.begin(now)
	if m.application.state == appGoingUp {
		if err != nil {
			m.applicationFailed(err.Error())
		} else {
			m.application.state, m.application.since, m.application.why = appUp, m.now, ""
		}
	}
	return m.end()
}

// CheckFailed: the check has given up on the application, after its restarts.
func (m *Machine) CheckFailed(now time.Duration, why string) []Action {
	m.begin(now)
	if m.role == serving && m.application.state == appUp {
		m.applicationFailed(why)
	}
	return m.end()
}

// Recovered: a check has succeeded again.
func (m *Machine) Recovered(now time.Duration) []Action {
	m.begin(now)
	if m.role == serving && m.application.state == appFailed {
		m.application.state, m.application.since, m.application.why = appUp, m.now, ""
		m.event("application", "failed", "up", "its check succeeds again")
	}
	return m.end()
}

func (m *Machine) applicationFailed(why string) {
	m.application = application{state: appFailed, ailing: true, since: m.now, why: why}
	m.event("application", "up", "failed", why)
}

// tendApplication moves the service away from a node on which the application
// fails: once, to a peer on which it has not failed, and never from the last
// good copy (rule 23).
func (m *Machine) tendApplication() {
	a := &m.application
	switch {
	case a.state == appUp && a.ailing && m.now-a.since >= wellAfter:
		a.ailing = false
	case a.state == appFailed && m.going.why == staying && !m.durable.Maintenance && m.paired() && m.mayHandOver() && !m.peer.beat.Ailing:
		m.event("switch", m.set.Node, m.set.Peer, "the application fails here: "+a.why)
		m.going = departure{why: switching}
	case m.data.Detached && !m.peer.beat.Detached && m.going.why == staying && !m.durable.Maintenance && m.paired() && m.mayHandOver():
		m.event("switch", m.set.Node, m.set.Peer, "the network of the service does not carry here, and there it does")
		m.going = departure{why: switching}
	}
}

// failBack returns the service to the node that it prefers, once that has been
// up to date for long enough, and the application runs well here and did there.
func (m *Machine) failBack() {
	ready := m.set.Failback && m.set.Prefer == m.set.Peer && m.paired() && m.mayHandOver() && !m.peer.beat.Ailing && !m.peer.beat.Detached && !m.durable.Maintenance
	switch {
	case !ready:
		m.good = 0
	case m.good == 0:
		m.good = m.now
	case m.now-m.good >= m.set.HoldOff && m.going.why == staying:
		m.event("switch", m.set.Node, m.set.Peer, "the service prefers "+m.set.Peer+", which is up to date")
		m.going, m.good = departure{why: switching}, 0
	}
}

func (m *Machine) whilePromoting() {
	m.keepRight()
}

func (m *Machine) whileServing() {
	m.keepRight()
	m.tendApplication()
	m.failBack()
	m.leave()
}

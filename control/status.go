// SPDX-License-Identifier: Apache-2.0

package control

import "time"

// Status is everything that a node shows of itself.
type Status struct {
	Cluster  string          `json:"cluster"`
	Node     string          `json:"node"`
	Peer     string          `json:"peer"` // the other node's name
	Version  string          `json:"version"`
	Time     time.Time       `json:"time"`     // when this was true, by the node's wall clock
	Services []ServiceStatus `json:"services"` // by name
}

// Service returns the status of the service of that name, or nil.
func (s *Status) Service(name string) *ServiceStatus {
	for i := range s.Services {
		if s.Services[i].Name == name {
			return &s.Services[i]
		}
	}
	return nil
}

// State is what a node is for a service.
type State string

// The states.
const (
	Stop      State = "STOP"   // told to stop
	Wait      State = "WAIT"   // waits for something that Reason names, then goes on by itself
	Alone     State = "ALONE"  // serves; the peer does not follow
	Primary   State = "PRIM"   // serves; the peer follows
	Secondary State = "SECOND" // follows
)

// Colour says whether a state may stay as it is.
type Colour string

// The colours.
const (
	Ready     Colour = "ready"     // green: as it should be
	Transient Colour = "transient" // orange: on the way
	NotReady  Colour = "notready"  // red: somebody should look
)

// ServiceStatus is what a node is for one service.
type ServiceStatus struct {
	Name        string         `json:"name"`
	State       State          `json:"state"`
	Colour      Colour         `json:"colour"`
	UpToDate    bool           `json:"uptodate"`
	Reason      string         `json:"reason"` // one sentence
	Role        string         `json:"role"`   // primary, secondary or none
	Epoch       uint64         `json:"epoch"`  // the highest that the node durably knows
	Maintenance bool           `json:"maintenance"`
	Peer        PeerStatus     `json:"peer"`
	Problems    []Problem      `json:"problems,omitempty"` // of the service as a whole
	Volumes     []VolumeStatus `json:"volumes"`            // by name
}

// PeerStatus is what a node knows of the other one.
type PeerStatus struct {
	Name       string    `json:"name"`
	Connection string    `json:"connection"` // connected, connecting, refused or down
	Address    string    `json:"address,omitempty"`
	Since      time.Time `json:"since,omitzero"` // of this connection state
	State      State     `json:"state,omitempty"`
	Problem    string    `json:"problem,omitempty"` // why it is not connected, one sentence
}

// VolumeStatus is what a node knows of one volume.
type VolumeStatus struct {
	Name        string         `json:"name"`
	Size        int64          `json:"size"`       // bytes
	Disk        string         `json:"disk"`       // uptodate, inconsistent, outdated, failed, blank or none
	DiskPath    string         `json:"diskPath"`   // this node's
	Generation  string         `json:"generation"` // short form
	DirtyBlocks int64          `json:"dirtyBlocks"`
	DirtyBytes  int64          `json:"dirtyBytes"`
	Resync      *ResyncStatus  `json:"resync,omitempty"`      // nil when none runs
	Export      string         `json:"export,omitempty"`      // NBD URI
	Device      string         `json:"device,omitempty"`      // of the kernel; empty: none is configured
	DeviceState string         `json:"deviceState,omitempty"` // detached, or attached and with how many connections
	Counters    VolumeCounters `json:"counters"`
	Problems    []Problem      `json:"problems,omitempty"`
}

// ResyncStatus is how far a resync or verify has come.
type ResyncStatus struct {
	Kind   string  `json:"kind"`   // resync or verify
	Source string  `json:"source"` // the node whose blocks win
	Done   int64   `json:"done"`   // bytes
	Total  int64   `json:"total"`  // bytes
	Rate   int64   `json:"rate"`   // bytes per second
	ETA    float64 `json:"eta"`    // seconds left; negative: not known yet
}

// VolumeCounters count since the daemon started.
type VolumeCounters struct {
	Reads          uint64 `json:"reads"`
	ReadBytes      uint64 `json:"readBytes"`
	Writes         uint64 `json:"writes"`
	WriteBytes     uint64 `json:"writeBytes"`
	Flushes        uint64 `json:"flushes"`
	Trims          uint64 `json:"trims"`
	SentBytes      uint64 `json:"sentBytes"`     // to the peer, writes only
	ReceivedBytes  uint64 `json:"receivedBytes"` // from the peer, writes only
	ResyncedBytes  uint64 `json:"resyncedBytes"` // copied to the peer by resyncs
	IntentMisses   uint64 `json:"intentMisses"`  // writes that waited for an intent
	ClientSessions uint64 `json:"clientSessions"`
}

// Problem is something that somebody should look at.
type Problem struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

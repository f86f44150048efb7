// SPDX-License-Identifier: Apache-2.0

package config

import (
	"maps"
	"math/bits"
	"path"
	"slices"
	"strings"
	"time"
)

const maxWait = 10 * time.Minute // no timeout of a service is longer

func (r *reader) readServices(root *section) {
	tables := root.tables("service")
	if len(tables) == 0 {
		root.fault("service", "", "there must be at least one [service.NAME] table")
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		r.checkName(tables[name], "", name)
		r.cfg.Services = append(r.cfg.Services, r.readService(name, tables[name]))
	}
}

func (r *reader) readService(name string, s *section) Service {
	const command = `a command, e.g. "systemctl start postgresql"`
	service := Service{
		Name:        name,
		Prefer:      s.text("prefer", "", "a node's name"),
		Failback:    choice(s, "failback", FailbackManual, FailbackAuto),
		Pace:        r.readPace(s),
		Lone:        choice(s, "lone", LoneFreeze, LoneContinue),
		IP:          r.readIPs(s),
		Fence:       strings.TrimSpace(s.text("fence", "", "a command")),
		Start:       s.texts("start", command),
		Stop:        s.texts("stop", command),
		Check:       r.readCheck(s),
		PeerTimeout: s.duration("peer-timeout", DefaultPeerTimeout, 100*time.Millisecond, maxWait),
		DiskTimeout: s.duration("disk-timeout", DefaultDiskTimeout, 100*time.Millisecond, maxWait),
	}
	switch {
	case service.Prefer != "" && !slices.Contains(r.nodes, service.Prefer):
		s.fault("prefer", didYouMean(service.Prefer, r.nodes), "there is no node %q", service.Prefer)
	case service.Prefer == "" && service.Failback == FailbackAuto:
		s.fault("failback", "set prefer, or failback = \"manual\"", "is \"auto\", but no node is preferred")
	}
	if s.has("lone") && len(r.cfg.Witness.Address)+len(r.cfg.Witness.Ping) == 0 {
		s.fault("lone", "remove it, or add [witness]", "has a meaning only with a witness")
	}
	if service.Fence != "" && len(r.cfg.Witness.Address)+len(r.cfg.Witness.Ping) > 0 {
		s.fault("fence", "remove it, or remove [witness]", "decides where there is neither witness nor ping; two judges could decide for both nodes")
	}

	volumes := s.tables("volume")
	if len(volumes) == 0 {
		s.fault("volume", "", "there must be at least one [service.%s.volume.NAME] table", name)
	}
	for _, volume := range slices.Sorted(maps.Keys(volumes)) {
		r.checkName(volumes[volume], "", volume)
		service.Volumes = append(service.Volumes, r.readVolume(name, volume, volumes[volume]))
	}
	s.end()
	return service
}

// readPace takes the name of a pace, or a table with both of its times.
func (r *reader) readPace(s *section) Pace {
	if !isTable(s.values["pace"]) {
		return paces[choice(s, "pace", "normal", "fast", "safe")]
	}
	t := s.table("pace")
	for _, key := range []string{"heartbeat", "timeout"} {
		if !t.has(key) {
			t.fault(key, "", "is missing; heartbeat and timeout are set together")
		}
	}
	faults := len(r.doc.problems)
	pace := Pace{
		Heartbeat: t.duration("heartbeat", paces["normal"].Heartbeat, 10*time.Millisecond, time.Minute),
		Timeout:   t.duration("timeout", paces["normal"].Timeout, 100*time.Millisecond, maxWait),
	}
	if t.has("heartbeat") && t.has("timeout") && faults == len(r.doc.problems) && pace.Timeout < 3*pace.Heartbeat {
		t.fault("timeout", "", "%s is too short for a heartbeat of %s; expected at least %s, so that one lost packet loses no node",
			FormatDuration(pace.Timeout), FormatDuration(pace.Heartbeat), FormatDuration(3*pace.Heartbeat))
	}
	t.end()
	return pace
}

func (r *reader) readIPs(s *section) []VirtualIP {
	var ips []VirtualIP
	s.each("ip", "ADDRESS/BITS, e.g. 10.0.0.100/24", func(text string) error {
		ip, err := ParseVirtualIP(text)
		if err == nil {
			ips = append(ips, ip)
		}
		return err
	})
	return ips
}

func (r *reader) readCheck(s *section) *Check {
	t := s.table("check")
	if t.values == nil {
		return nil
	}
	check := &Check{
		Command:  t.required("command", `a command, e.g. "pg_isready -q"`),
		Every:    t.duration("every", 5*time.Second, 100*time.Millisecond, 24*time.Hour),
		Timeout:  t.duration("timeout", 3*time.Second, 100*time.Millisecond, time.Hour),
		Failures: t.number("failures", 3, 1, 1000),
		Restarts: t.number("restarts", 2, 0, 1000),
	}
	t.end()
	return check
}

func (r *reader) readVolume(service, name string, s *section) Volume {
	v := Volume{
		Name:     name,
		Service:  service,
		Size:     r.readVolumeSize(s),
		Disk:     s.perNode("disk", r.nodes, "an absolute path", checkPath),
		Metadata: s.perNode("metadata", r.nodes, "an absolute path", checkPath),
		Export:   r.readExports(name, s),
		Device:   s.perNode("device", r.nodes, "/dev/nbdN", checkDevice),
		Mount:    r.readMount(s),
		Intents:  s.number("intents", DefaultIntents, 16, 65535),
		Region:   s.size("region", DefaultRegion),
		Thin:     s.flag("thin"),
	}
	if !s.has("disk") {
		s.fault("disk", "", `is missing; expected a path for each node, e.g. { alpha = "/dev/disk/by-id/…", beta = "/var/lib/twinbd/%s.img" }`, name)
	}
	if v.Metadata != nil {
		r.checkStable(s, v)
	}
	if bits.OnesCount64(uint64(v.Region)) != 1 || v.Region < 64<<10 || v.Region > 64<<20 {
		s.fault("region", "", "%s is out of range; expected a power of two, 64KiB to 64MiB", FormatSize(v.Region))
	}
	if v.Mount != nil && v.Device == nil {
		s.fault("mount", `add device = "/dev/nbd0"`, "needs a device to mount")
	}
	s.end()
	return v
}

func (r *reader) readVolumeSize(s *section) int64 {
	faults := len(r.doc.problems)
	size := s.size("size", 0)
	switch {
	case !s.has("size"):
		s.fault("size", "", "is missing; expected e.g. 10GiB")
	case faults < len(r.doc.problems):
	case size == 0:
		s.fault("size", "", "is zero; expected e.g. 10GiB")
	case size%BlockSize != 0:
		s.fault("size", "", "%s is no multiple of 4KiB; expected e.g. %s", FormatSize(size), FormatSize(size/BlockSize*BlockSize+BlockSize))
	}
	return size
}

// checkStable holds that metadata which lies apart from its disk cannot meet
// another disk after a reboot.
func (r *reader) checkStable(s *section, v Volume) {
	for _, node := range r.nodes {
		r.checkStablePath(s, "disk", node, v.Disk[node])
		r.checkStablePath(s, "metadata", node, v.Metadata[node])
	}
}

func (r *reader) checkStablePath(s *section, key, node, disk string) {
	if disk != "" && !stableDisk(disk) {
		s.fault(s.nodeKey(key, node), "use its name below /dev/disk/by-id",
			"%s may be another disk after a reboot; with metadata, expected a /dev/disk/by-… name", disk)
	}
}

func (r *reader) readExports(volume string, s *section) map[string]Export {
	check := func(text string) error { _, err := ParseExport(text); return err }
	texts := s.perNode("export", r.nodes, "unix:PATH or tcp:HOST:PORT", check)
	exports := map[string]Export{}
	for i := range r.cfg.Nodes {
		node := &r.cfg.Nodes[i]
		text, ok := texts[node.Name]
		if texts == nil {
			text, ok = "unix:"+path.Join(node.Run, volume+".sock"), true
		}
		if !ok {
			continue // reported
		}
		e, err := ParseExport(text)
		if err != nil { // only the default can be wrong here
			s.fault("export", "choose a shorter run directory", "%v", err)
			continue
		}
		if !e.Local() && r.cfg.TLS.Insecure {
			s.fault(s.nodeKey("export", node.Name), "make keys with `twinbd init`, or export on 127.0.0.1",
				"%s can be reached from other machines, which needs [tls]", e)
		}
		exports[node.Name] = e
	}
	return exports
}

func (r *reader) readMount(s *section) *Mount {
	t := s.table("mount")
	if t.values == nil {
		return nil
	}
	m := &Mount{
		At:      t.perNode("at", r.nodes, "an absolute path", checkPath),
		Type:    t.required("type", `a file system, e.g. "ext4"`),
		Options: t.text("options", "", `mount options, e.g. "noatime"`),
	}
	if !t.has("at") {
		t.fault("at", "", "is missing; expected an absolute path")
	}
	t.end()
	return m
}

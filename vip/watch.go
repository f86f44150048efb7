// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"context"
	"fmt"
	"time"
)

// Link is whether the interface of an address carries now.
type Link struct {
	Address   Address
	Interface string // empty: none has the subnet
	Up        bool   // it is set up and has a carrier
}

// Links returns the state of the link of each address.
func (m *Manager) Links() ([]Link, error) {
	devices, err := m.network.devices()
	if err != nil {
		return nil, fmt.Errorf("look at the links of virtual addresses: %w", err)
	}
	links := make([]Link, 0, len(m.config.Addresses))
	for _, a := range m.config.Addresses {
		link := Link{Address: a, Interface: a.Interface}
		if p, err := locate(a, devices, m.isVirtual); err == nil {
			link.Interface, link.Up = p.device.name, p.device.up
		}
		links = append(links, link)
	}
	return links, nil
}

// lookEvery is how often Watch looks without being told of a change: the
// kernel drops news for who reads them too slowly.
const lookEvery = 5 * time.Second

// Watch reports the link of each address, and again whenever it changed, until
// the context ends; then it returns nil. It calls report from this goroutine,
// in the order of events; a state that lasted shorter than the kernel's news
// took may be left out.
func (m *Manager) Watch(ctx context.Context, report func(Link)) error {
	if len(m.config.Addresses) == 0 {
		<-ctx.Done()
		return nil
	}
	news, err := m.network.changes()
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	stirred := make(chan struct{}, 1)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for buffer := make([]byte, 64<<10); ; {
			if _, err := news.Read(buffer); err != nil {
				return // closed; else lookEvery must do
			}
			select {
			case stirred <- struct{}{}:
			default:
			}
		}
	}()
	defer func() {
		_ = news.Close()
		<-stopped
	}()

	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	known := make(map[Address]Link)
	for {
		if err := m.reportChanges(known, report); err != nil {
			m.log.Warn("links not looked at", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-stirred:
		case <-tick.C:
		}
	}
}

// reportChanges compares the links with what is known of them.
func (m *Manager) reportChanges(known map[Address]Link, report func(Link)) error {
	links, err := m.Links()
	if err != nil {
		return err
	}
	for _, link := range links {
		if was, ok := known[link.Address]; !ok || was != link {
			known[link.Address] = link
			report(link)
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package node

func (s *service) why() string { return s.shown.Load().machine.Why() }

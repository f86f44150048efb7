# SPDX-License-Identifier: Apache-2.0

GO       ?= go
FUZZTIME ?= 60s# for each fuzz target
ROUNDS   ?= 50# rounds of kill and return
SIMTIME  ?= 5m# of the simulation of a service, with fresh seeds
RUNS     ?= 1500# schedules of the simulation of two engines
STATES   ?= 70000# of the model of who serves, for each start and bound of events
WHOLE    ?= 5600# all states from a start that had no more within the bound before
WALKS    ?= 200000# at random through who serves
CUTS     ?= 100# of the power of real nodes
CHAOS    ?= 15m# of things broken at random in network namespaces
ARGS     ?=# for demo and bench, for example: make bench ARGS="--rounds 3 --check"

.PHONY: build demo setup test race lint fuzz sim model mutations rounds power bench netns bench-failover test-vm bench-vm prove clean

build: # one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/twinbd ./cmd/twinbd

demo: build # a pair and a witness on this machine, through a whole story
	bin/twinbd demo $(ARGS)

setup: # what the tests need: installed when root, else a line for each test that is left out
	@tests/setup

# The race detector needs a C compiler; without one the tests run all the same.
test: setup
	$(GO) test $$(command -v "$$($(GO) env CC)" >/dev/null && echo -race) -timeout 10m ./...

race: # with the race detector, each test anew
	$(GO) test -race -count=1 -timeout 20m ./...

lint:
	@unformatted=$$(gofmt -l .) && test -z "$$unformatted" || { echo "lint: gofmt would change:" $$unformatted; exit 1; }
	$(GO) vet ./...
	GOOS=windows $(GO) vet ./...
	$(GO) tool staticcheck ./...
	@tests/vulnerabilities

fuzz: # every fuzz target
	tests/fuzz $(FUZZTIME)

sim: # a whole service under random faults with fresh seeds, and every seed that ever failed; then two engines alone
	$(GO) test -count=1 -v -timeout 24h ./tests/sim -args -sim.time $(SIMTIME)
	$(GO) test -count=1 -v -timeout 90m ./mirror -run 'TestPair$$' -args -sim.runs $(RUNS)

model: # who serves: every state within bounds, random walks, and each rule left out in turn
	$(GO) test -count=1 -v -timeout 60m ./failover -run 'TestModel' -args -model.faults 3 -model.states $(STATES) -model.whole $(WHOLE) -model.verbose -model.walks $(WALKS)
	$(GO) test -count=1 -v -timeout 30m -tags mutation ./failover -run 'TestMutations'

mutations: # each rule of the data path left out in turn, until the simulation of two engines fails
	$(GO) test -count=1 -v -timeout 60m -tags mutation ./mirror -run 'TestMutations'

rounds: build # nodes killed under load at random moments, then compared
	$(GO) test -count=1 -v -timeout 60m ./tests/rounds -args -rounds $(ROUNDS)

power: build # real nodes on disks that lose what was not flushed; needs root
	TWINBD_BINARY=$(CURDIR)/bin/twinbd $(GO) test -count=1 -v -timeout 90m ./tests/power -args -power.cuts $(CUTS) $(ARGS)

bench: setup build # side by side with other servers; docs/BENCHMARKS.md says how to read it
	$(GO) run ./bench --twinbd bin/twinbd $(ARGS)

netns: build # failover between machines that are network namespaces, then chaos; needs root
	TWINBD_BINARY=$(CURDIR)/bin/twinbd $(GO) test -count=1 -v -timeout 90m ./tests/netns -args -netns -chaos.time $(CHAOS) $(ARGS)

test-vm: build # on real kernels, in machines under QEMU; needs root, and builds their root from Debian's packages once
	@tests/setup --vm
	TWINBD_BINARY=$(CURDIR)/bin/twinbd $(GO) test -count=1 -v -timeout 60m ./tests/vm -args -vm $(ARGS)

bench-vm: build # twinbd beside DRBD and md, where test-vm runs; docs/BENCHMARKS.md says how to read it
	@tests/setup --vm
	TWINBD_BINARY=$(CURDIR)/bin/twinbd $(GO) test -count=1 -v -timeout 60m ./tests/vm -run TestSpeed -args -vm -vm.speed 3 $(ARGS)

bench-failover: build # what a client sees of takeovers and switches; needs root; docs/BENCHMARKS.md says how to read it
	TWINBD_BINARY=$(CURDIR)/bin/twinbd $(GO) test -count=1 -v -timeout 60m ./tests/netns -run TestMeasure -args -netns -measure.runs 30 $(ARGS)

prove: # every long suite, in full
	@tests/prove

clean:
	rm -rf bin

# SPDX-License-Identifier: Apache-2.0

GO       ?= go
FUZZTIME ?= 60s# for each fuzz target
ROUNDS   ?= 50# rounds of kill and return
RUNS     ?= 3000# schedules of the simulation
ARGS     ?=# for demo and bench, for example: make bench ARGS="--rounds 3 --check"

.PHONY: build demo setup test race lint fuzz sim rounds bench prove clean

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

sim: # two engines, their disks and their link, under random faults with fresh seeds
	$(GO) test -count=1 -v -timeout 90m ./mirror -run 'TestPair$$' -args -sim.runs $(RUNS)

rounds: build # nodes killed under load at random moments, then compared
	$(GO) test -count=1 -v -timeout 60m ./tests/rounds -args -rounds $(ROUNDS)

bench: setup build # side by side with other servers; docs/BENCHMARKS.md says how to read it
	$(GO) run ./bench --twinbd bin/twinbd $(ARGS)

prove: test lint fuzz sim rounds # every long suite, in full

clean:
	rm -rf bin

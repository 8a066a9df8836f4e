# Everything a person does with this checkout. `make build` needs Go, on any Linux and on macOS. `make demo`, `make test` and what
# else has to do with the lab set up what they need on a fresh Debian.
.POSIX:
.SUFFIXES:

FERRY_GO = internal cmd go.mod go.sum
# Go tools run at a pinned version, so that a new release of one does not break an old checkout.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

FERRY = version=$$(release/version) && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$$version" -o bin/ferry ./cmd/ferry

.PHONY: help setup agents build tools demo lab test unit integration lint matrix bench chaos man release fuzz clean

help:
	@echo 'make build        bin/ferry, with the agents embedded; needs Go'
	@echo 'make demo         start a target, deploy a web service to it, change it, cut it off'
	@echo 'make test         all checks and tests'
	@echo 'make lab          a running target to play with; Ctrl-C takes it away'
	@echo 'make bench        ferry against the commands by hand; writes doc/bench.md'
	@echo 'make matrix       the deployment tests with every version of Nix that Debian has, the largest paths and fleet'
	@echo 'make chaos        deployments with random faults; CHAOS="-seed 7 -rounds 1000" says which and how many'
	@echo 'make fuzz         each fuzz test for half a minute'
	@echo 'make man          man pages in bin/man'
	@echo 'make release      archives for Linux and macOS, in bin/release'

setup:
	@lab/setup

agents:
	@go run ./cmd/ferry-agents internal/agent/embedded

build: agents
	$(FERRY)

# What the tests and the demo run: ferry, and the machines that it deploys to.
tools: setup agents
	$(FERRY)
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o bin/ferry-lab ./cmd/ferry-lab

demo: tools
	bin/ferry-lab run lab/demo

lab: tools
	bin/ferry-lab up

test: tools lint unit integration

# The unit tests use Nix for real, in a store that is gone afterwards.
unit: setup agents
	lab/private-store go test -race ./internal/... ./cmd/... ./lab/... .

# Most of these tests wait most of the time: more of them at once than there are processors. What takes longest begins first.
integration: tools
	go test -count=1 -timeout 30m -parallel 6 ./integration/safe ./integration/deploy ./integration/...

lint: setup agents
	lab/lint $(STATICCHECK)

matrix: tools
	FERRY_LAB_SUITES=sid go test -count=1 -timeout 60m -parallel 6 ./integration/deploy/ -matrix
	go test -count=1 -timeout 60m -run 'Memory|SmallFiles' ./integration/ship/ -mebibytes 2048 -files 50000
	go test -count=1 -timeout 60m -run 'Rack|Interrupted' ./integration/fleet/ -rack 20 -every-kill
	go test -count=1 -timeout 60m ./integration/release/ -whole

# The machines' disks are in memory: ext4 is slow to make files where many were deleted a moment ago, as the lab does all the
# time, and whoever makes more of them pays. It takes about 5 GB; TMPDIR says where else.
bench: tools
	mkdir -p doc
	dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && lab/point-releases "$$dir" && \
	TMPDIR="$${TMPDIR:-/dev/shm}" go test -count=1 -timeout 120m -v ./integration/bench/ -write "$$PWD/doc/bench.md" -releases "$$dir" $(BENCH)

# The same faults every day are part of make test; this is a new seed each time, which it prints. CHAOS has flags for it.
CHAOS =
chaos: tools
	go test -count=1 -timeout 12h -v ./integration/chaos/ -seed 0 -rounds 300 -time 30m -targets 6 $(CHAOS)

man: build
	rm -rf bin/man
	mkdir bin/man
	bin/ferry man bin/man

# Archives for Linux and macOS, with their sums, in bin/release.
release: agents
	rm -rf bin/release
	release/build bin/release

fuzz: setup agents
	lab/fuzz

clean:
	rm -rf bin internal/agent/embedded/agent-*.gz internal/agent/embedded/index

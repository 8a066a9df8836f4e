# Everything a person does with this checkout. `make demo` and `make test` set up what they need on a fresh Debian.
.POSIX:
.SUFFIXES:

FERRY_GO = internal cmd go.mod go.sum
# Go tools run at a pinned version, so that a new release of one does not break an old checkout.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help setup agents build demo lab test unit integration lint matrix bench man fuzz clean

help:
	@echo 'make build        bin/ferry, with the agents embedded'
	@echo 'make demo         start a target, deploy a web service to it, change it, deploy again'
	@echo 'make test         all checks and tests'
	@echo 'make lab          a running target to play with; Ctrl-C takes it away'
	@echo 'make bench        ferry against the commands by hand; writes doc/bench.md'
	@echo 'make matrix       the deployment tests with every version of Nix that Debian has'
	@echo 'make fuzz         each fuzz test for half a minute'
	@echo 'make man          man pages in bin/man'

setup:
	@lab/setup

agents: setup
	@internal/agent/embedded/build

build: agents
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o bin/ferry ./cmd/ferry
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o bin/ferry-lab ./cmd/ferry-lab

demo: build
	bin/ferry-lab run lab/demo

lab: build
	bin/ferry-lab up

test: build lint unit integration

# The unit tests use Nix for real, in a store that is gone afterwards.
unit: agents
	lab/private-store go test -race ./internal/... ./cmd/... .

# Most of these tests wait most of the time: more of them at once than there are processors.
integration: build
	go test -count=1 -timeout 30m -parallel 6 ./integration/...

lint: agents
	lab/lint $(STATICCHECK)

matrix: build
	FERRY_LAB_SUITES=sid go test -count=1 -timeout 60m -parallel 6 ./integration/deploy/ -matrix

bench: build
	mkdir -p doc
	go test -count=1 -timeout 120m -v ./integration/bench/ -write "$$PWD/doc/bench.md"

man: build
	rm -rf bin/man
	mkdir bin/man
	bin/ferry man bin/man

fuzz: agents
	lab/fuzz

clean:
	rm -rf bin internal/agent/embedded/agent-*.gz internal/agent/embedded/index

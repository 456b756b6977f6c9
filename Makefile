# What is done with this checkout. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= $(HOME)/.local
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: tools ## Build ./cortex and ./cortex-runner
	CGO_ENABLED=1 go build -trimpath -ldflags '$(LDFLAGS)' -o cortex ./cmd/cortex
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o cortex-runner ./cmd/cortex-runner

.PHONY: demo
demo: tools-demo build ## See it work: 40 dispatches, whatever dies, and five numbers to check
	./scripts/demo.sh

.PHONY: compare
compare: tools-compare ## The same by another program, PEER=supervisor or PEER=task-spooler
	./scripts/compare.sh '$(PEER)'

.PHONY: test
test: tools-test lint ## Run all tests and checks
	go test -race -count=1 -timeout 15m -parallel 4 ./...

.PHONY: lint
lint: tools-test ## Check format, code, scripts and modules
	@unformatted=$$(gofmt -l .); \
		[ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted" >&2; exit 1; }
	go mod tidy -diff
	go vet ./...
	go vet -tags faults ./...
	go tool staticcheck ./...
	go tool staticcheck -tags faults ./...
	shellcheck scripts/*.sh .ci/run e2e/testdata/drill.sh

ROUNDS ?= 100
.PHONY: torture
torture: tools-test ## Random operations against the real binaries, ROUNDS=100 runs of them
	go test -count=1 -v -timeout 0 -run 'TestModel$$' ./e2e -rapid.checks=$(ROUNDS)

.PHONY: flood
flood: tools-test ## An agent that writes 1 GiB as fast as it can
	go test -count=1 -v -timeout 10m -run 'TestLogFlood$$' ./e2e -flood=1024

.PHONY: bench
bench: tools-demo build ## Measure starts per second, latency and memory, as ratios to bare tmux; and what a decision costs
	go run ./bench
	go test -run '^$$' -bench BenchmarkPick ./sched

FUZZTIME ?= 30s
.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZTIME=30s
	@for package in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u); do \
		targets=$$(go test -list '^Fuzz' "$$package" | grep '^Fuzz'); \
		for target in $$targets; do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target"'$$' -fuzztime $(FUZZTIME) "$$package"; \
		done; \
	done

FOR ?= 5m
.PHONY: soak
soak: tools-demo build ## Load a daemon for FOR=5m, and compare its last tenth with its first
	go run ./bench -soak $(FOR)

.PHONY: install
install: build ## Install both programs into $(PREFIX)/bin, also while dispatches run
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 0755 cortex cortex-runner '$(DESTDIR)$(PREFIX)/bin/'

.PHONY: clean
clean: ## Remove what was built
	rm -f cortex cortex-runner

# Programs that the targets need, installed where they are missing.
.PHONY: tools tools-demo tools-compare tools-test
tools:
	@./scripts/tools.sh build
tools-demo:
	@./scripts/tools.sh build demo
tools-compare:
	@./scripts/tools.sh demo compare
tools-test:
	@./scripts/tools.sh build demo compare test

# Seaway. `make demo` is the product in four minutes, `make test` everything that a release needs.
# What is built lies in CACHE, outside the tree; the lab keeps its own cache beside it.
SHELL    := /bin/bash -o pipefail
CACHE    ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/seaway
GO       := CGO_ENABLED=0 go
GOFLAGS  := -trimpath -buildvcs=false
export GOFLAGS

VERSION  ?= $(shell git describe --tags --always 2>/dev/null || echo dev)
TOOL     := go tool -modfile=tools/go.mod
SEAWAY   := $(CACHE)/bin/seaway
LAB      := $(CACHE)/bin/seaway-lab
STORY    ?=
OUT      ?=

.PHONY: help build install unit netns fuzz lint generate test e2e conformance demo demo-down bench bench-scale bench-dns lab-up lab-down

help: ## What can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

build: ## Build seaway and seaway-lab into the cache
	@mkdir -p $(CACHE)/bin
	$(GO) build $(OVERLAY) -ldflags "-s -w -X main.version=$(VERSION)" -o $(SEAWAY) ./cmd/seaway
	cd lab && $(GO) build -ldflags "-s -w" -o $(LAB) ./cmd/seaway-lab

PREFIX ?= /usr/local
install: build ## seaway and seaway-lab into PREFIX/bin (/usr/local), also as `kubectl seaway`, which kubectl completes
	install -D -m 755 $(SEAWAY) $(DESTDIR)$(PREFIX)/bin/seaway
	install -m 755 $(LAB) $(DESTDIR)$(PREFIX)/bin/seaway-lab
	ln -sf seaway $(DESTDIR)$(PREFIX)/bin/kubectl-seaway
	printf '#!/bin/sh\nexec seaway __complete "$$@"\n' >$(DESTDIR)$(PREFIX)/bin/kubectl_complete-seaway
	chmod 755 $(DESTDIR)$(PREFIX)/bin/kubectl_complete-seaway

unit: ## Quick inner loop: no root, no network, under a minute when warm
	$(GO) test -short ./...
	cd lab && $(GO) test -short ./...

netns: ## Kernel tests in network namespaces (root)
	@[ "$$(id -u)" = 0 ] || { echo "make netns: these tests make network namespaces; run them as root"; exit 1; }
	$(GO) test -count=1 ./datapath/... ./tunnel/... ./slice/node/...

# So many tries, not seconds: at the end of its seconds go's fuzzer now and then takes "context deadline exceeded" for a failure.
FUZZTIME ?= 5000x
fuzz: ## Every fuzzer for FUZZTIME: tries (5000x), or as long as one likes (10m)
	@set -e; for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
	  mod=.; case $$dir in ./lab*) mod=lab; dir=./$${dir#./lab/};; esac; \
	  for f in $$(cd $$mod && grep -h '^func Fuzz' $$dir/*_test.go | sed 's/func \(Fuzz[A-Za-z0-9_]*\).*/\1/'); do \
	    echo "fuzz $$mod $$dir $$f $(FUZZTIME)"; (cd $$mod && $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$dir) || exit 1; \
	  done; done

lint: ## gofmt, vet, staticcheck, generated files up to date
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	cd lab && $(GO) vet ./...
	$(TOOL) staticcheck ./...

generate: ## Make the CRDs and deep copies again
	$(GO) generate ./...

test: ## Everything a release needs: lint, unit, namespaces, fuzzers, the lab's stories (root, Debian 12)
	@./.ci/prepare
	$(MAKE) build
	$(LAB) setup
	$(MAKE) lint
	$(GO) test ./...
	cd lab && $(GO) test ./...
	$(MAKE) fuzz
	$(MAKE) e2e

e2e: build ## Stories on real clusters; STORY=name for one
	SEAWAY_E2E=1 SEAWAY_BIN=$(SEAWAY) SEAWAY_LAB_BIN=$(LAB) $(GO) test -count=1 -timeout $(or $(TIMEOUT),60m) -v -run 'TestStory/$(or $(STORY),.*)$$' ./e2e

conformance: ## The standard's own suite against the lab: SUITE=FILE (its compiled test binary) [RUNS=3] [OUT=DIR] [ADDRESSES=Slice]
	@./.ci/prepare
	@$(MAKE) --no-print-directory build
	@SEAWAY_BIN=$(SEAWAY) SEAWAY_LAB_BIN=$(LAB) $(GO) run ./e2e/conformance -version $(VERSION) -suite '$(SUITE)' $(if $(RUNS),-runs $(RUNS)) $(if $(OUT),-out '$(OUT)') $(if $(FOCUS),-focus '$(FOCUS)') $(if $(ADDRESSES),-addresses '$(ADDRESSES)')

RUNS ?=
.PHONY: postgres etcd chaos clock
CLOCK := $(if $(STORY),$(if $(findstring clock-steps,$(STORY)),clock),clock)
chaos: OVERLAY := $(if $(CLOCK),-overlay $(CACHE)/clock/overlay.json)
chaos: $(CLOCK) build ## Faults under load, each RUNS times (50); STORY=a,b for some, HOLD=10m to stay longer, OUT=FILE for JSON, which later runs of the same commit add to
	@./.ci/prepare
	$(LAB) status >/dev/null 2>&1 || $(LAB) up --config e2e/chaos/lab.yaml
	SEAWAY_SLACK=1 SEAWAY_ONCE=1 FAULTS=$(or $(STORY),all) RUNS=$(or $(RUNS),50) HOLD=$(HOLD) BOOK=$(abspath $(OUT)) COMMIT=$(shell git describe --always --dirty --abbrev=12 2>/dev/null) $(MAKE) --no-print-directory e2e OVERLAY='$(OVERLAY)' OUT= STORY=chaos TIMEOUT=24h

clock: # what a seaway is built with whose clock can be stepped
	@$(GO) run ./e2e/chaos/clock -out $(CACHE)/clock

postgres: ## PostgreSQL over three clusters loses nothing; RUNS=20 rounds, OUT=FILE for JSON
	@./.ci/prepare
	SEAWAY_SLACK=1 SEAWAY_ONCE=1 RUNS=$(or $(RUNS),20) $(MAKE) --no-print-directory e2e OUT=$(abspath $(OUT)) STORY=postgres TIMEOUT=6h

etcd: ## etcd over three clusters stays linearizable; RUNS=18 rounds, OUT=FILE for JSON
	@./.ci/prepare
	SEAWAY_SLACK=1 SEAWAY_ONCE=1 RUNS=$(or $(RUNS),18) $(MAKE) --no-print-directory e2e OUT=$(abspath $(OUT)) STORY=etcd TIMEOUT=6h

demo: ## From nothing to an application across three real clusters
	@./.ci/prepare
	@$(MAKE) --no-print-directory build
	@SEAWAY_BIN=$(SEAWAY) SEAWAY_LAB_BIN=$(LAB) $(GO) run ./e2e/demo

demo-down: ## Take the demo's clusters away
	@[ ! -x $(LAB) ] || $(LAB) down

bench: ## Side by side: veth, VXLAN, WireGuard, OpenVPN, Seaway; OUT=FILE for JSON
	@./.ci/prepare
	$(GO) run ./bench $(if $(OUT),-out $(OUT))

bench-dns: build ## Seaway's DNS and CoreDNS side by side under dnsperf; OUT=FILE for JSON
	@./.ci/prepare
	$(LAB) setup
	$(GO) run ./bench/dns $(if $(OUT),-out $(OUT))

bench-scale: ## The autoscaler's bars A-H in the simulator; SEAWAY_TRACES=DIR for real traces, SEEDS=n, DAYS=n of each (4; 0: all), OUT=FILE for JSON
	$(GO) run ./bench/scale -seeds $(or $(SEEDS),3) -days $(or $(DAYS),4) $(if $(OUT),-out $(OUT)) $(SCALEFLAGS)

.PHONY: autoscale
autoscale: build ## The real HPA and Seaway drive the same service on the lab; SEAWAY_TRACES=DIR for recorded load, OUT=FILE for JSON
	@./.ci/prepare
	SEAWAY_BIN=$(SEAWAY) SEAWAY_LAB_BIN=$(LAB) $(GO) run ./e2e/autoscale/contest $(if $(SEAWAY_TRACES),-trace $(SEAWAY_TRACES)/$(or $(TRACE),autothrottle_diurnal-2_1s.csv.gz)) $(if $(OUT),-out $(abspath $(OUT))) $(SCALEFLAGS)

bench-discovery: ## 100 clusters, up to 10,000 endpoints: from "ready" in one cluster to traffic in another; OUT=FILE for JSON
	@./.ci/prepare
	[ -n "$$(ls $${XDG_CACHE_HOME:-$$HOME/.cache}/seaway-lab/bin/kubeall-*/kubeall 2>/dev/null)" ] || { $(MAKE) build; $(LAB) setup; }
	$(GO) test ./controller -count=1 -timeout 30m -run TestBenchDiscovery -discovery-bench $(if $(OUT),-discovery-out $(abspath $(OUT)))

lab-up: build ## Only the clusters
	$(LAB) up

lab-down: ## Take them away
	$(LAB) down

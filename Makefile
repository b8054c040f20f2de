# Muslin's commands. `make` or `make help` lists them.
SHELL       := /bin/bash
GO          ?= go
TOOLS       := hack/tools/lint/go.mod
LAB_NAME    ?= muslin
TOPOLOGY    ?= hack/lab/topologies/two-racks.yaml
PACKAGES    := bird2 frr containerd runc containernetworking-plugins busybox-static nftables iproute2 tcpdump procps \
               qemu-system-x86 kmod xz-utils iputils-ping prometheus iperf3
PURE        := ./bgp ./ipam ./ipam/alloc ./felix ./pkg/selector ./pkg/reconcile ./pkg/validate
MIN_COVER   := 85
# How long each fuzzer runs: a time, or a number of inputs ending in x. Numbers are the same work on every machine.
FUZZTIME      ?= 20000x
SOAK_FUZZTIME ?= 10m
# How many packages are tested at once, and how many tests of one that may run beside each other: they mostly wait.
AT_ONCE       ?= 3
PARALLEL      ?= 6
# The stories of hack/scenario that take longest are played from the start, and so many of the others beside them, each on a lab
# of its own.
LONG_STORIES  := TestCluster|TestOperator|TestNeverTwice|TestInstallation|TestChaos
STORIES       ?= 2
# The packages that take minutes, longest first: they start first, so that none is left to run alone at the end.
LONG          := bgp/gobgp cmd/agent/app pkg/kube manifests cmd/controller/app hack/vm manifests/monitoring ipam/kubestore felix/acceptance \
                 hack/manifests
# The release that make skew plays beside this tree: a tag or a commit of the history. Until there is a tag, the newest commit
# that clusters may have run.
PREVIOUS      ?= 0bc1258bd17ae03da47dfe238f837648b6bb39e5
# How long TestChaos makes faults in make soak, and what it draws them from; 0: the clock. make test plays a few minutes of
# one seed.
CHAOS         ?= 1h
CHAOS_SEED    ?= 0
# Fuzzers that talk over real sessions find new inputs in make soak alone; what they have found runs with every go test.
FUZZ_SLOW     ?= FuzzSpeaker
# The go command with the patched GoBGP (hack/thirdparty), in targets that have third-party before them. The go command by
# itself takes the release.
PATCHED       = GOFLAGS="$$($(GO) env GOFLAGS) -modfile=$(CURDIR)/third_party/gobgp/patched/go.alt.mod"
GO_PATCHED    = $(PATCHED) $(GO)
# go test, and each test that failed once more by itself, unless more than ten did. One that passes then is reported as failed in
# its first run: on a machine as full as make test makes it, a router or the kernel may take minutes. It is a fault to be mended.
GO_TEST       = "$$($(GO) tool -modfile=$(CURDIR)/hack/tools/go.mod -n gotestsum)" --format pkgname-and-test-fails --rerun-fails=1 --rerun-fails-run-root-test --rerun-fails-max-failures=10
# make test runs the tests of bgp/gobgp with the release, too, but for these: half of the time, and of the parser alone.
PATCHED_ONLY ?= TestHostilePeer|TestFlood
export CGO_ENABLED := 0
# Tests, programs and the image are compiled with the same flags: what one has compiled serves the others.
export GOFLAGS := $(strip $(filter-out -trimpath,$(GOFLAGS)) -trimpath)

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: deps
deps: ## install the Debian packages that the lab and the tests use (routers, containerd, nft)
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

.PHONY: build
build: third-party ## build the programs into bin/
	@mkdir -p bin
	$(GO_PATCHED) build -trimpath -ldflags '-s -w' -o bin/ ./cmd/... ./hack/lab/cmd/lab

.PHONY: generate
generate: ## regenerate CRDs, deep copies and the RPC code
	$(GO) generate ./...

.PHONY: manifests
manifests: ## write manifests/muslin.yaml; IMAGE=registry/name:tag@sha256:... is what it asks for
	$(GO) run ./hack/manifests/cmd/manifests -image '$(IMAGE)'

.PHONY: check-generate
check-generate: generate ## fail when generated files are not current
	@git diff --exit-code --stat -- manifests pkg || { echo "generated files differ: run make generate and commit"; exit 1; }

.PHONY: third-party
third-party: ## bring third_party/gobgp/patched up to date: GoBGP's release with our patches
	@$(GO) run ./hack/thirdparty/cmd/thirdparty >/dev/null

.PHONY: third-party-test
third-party-test: ## run GoBGP's own tests with the patches, 5 minutes; in a network namespace; needs a C compiler
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	$(GO) run ./hack/thirdparty/cmd/thirdparty -source "$$dir/gobgp" && cd "$$dir/gobgp" && $(GO) mod download && \
	unshare --net sh -ec 'ip link set lo up; CGO_ENABLED=1 exec "$$0" test -count=1 ./internal/... ./pkg/...' $(GO)

# What ends soon need not collect its garbage often: a fifth of the time of these. Tests that measure memory keep Go's usual.
# What is given away is built by the toolchain that go.mod names, and its standard library is what make vuln looks up, whatever
# Go is installed and GOTOOLCHAIN says.
image release vuln: export GOTOOLCHAIN := $(shell awk '/^toolchain/ { print $$2 }' go.mod)
lint vuln cover fuzz: export GOGC = 400

.PHONY: lint
lint: ## golangci-lint with the project's list
	$(GO) tool -modfile=$(TOOLS) golangci-lint run --allow-parallel-runners ./...

.PHONY: image
image: ## build the OCI archive dist/muslin.tar and report its size
	@mkdir -p dist
	$(GO) run ./hack/image/cmd/image -o dist/muslin.tar

.PHONY: release
release: third-party ## make the files of a release in dist/VERSION: VERSION=v1.2.3 IMAGE=registry/name; without network
	GOPROXY=off $(GO) run ./hack/release/cmd/release -version '$(VERSION)' -image '$(IMAGE)'

.PHONY: lab
lab: deps third-party ## the main job: a Kubernetes cluster over two racks on this machine, pods talking over BGP
	$(GO_PATCHED) run ./hack/scenario/cmd/mainjob -name $(LAB_NAME) -topology $(TOPOLOGY)

.PHONY: lab-down
lab-down: ## remove the lab and everything it made
	$(GO) run ./hack/lab/cmd/lab --name $(LAB_NAME) down

.PHONY: test
test: cover test-packages ## all tests, the cluster scenario, lint, known vulnerabilities, coverage of the pure rooms, fuzzers in short
	$(MAKE) --no-print-directory -j3 test-stories test-gobgp test-source

.PHONY: test-packages
test-packages: deps third-party ## the tests of all packages but the stories
	$(PATCHED) $(GO_TEST) --packages "$(addprefix ./,$(LONG)) \
		$$($(GO) list ./... | grep -vxF -e "$$($(GO) list ./hack/scenario $(PURE) $(addprefix ./,$(LONG)))" | tr '\n' ' ')" \
		-- -count=1 -timeout 30m -p $(AT_ONCE) -parallel $(PARALLEL)

# The stories wait half of their time, for kubelets and for timers. What only computes takes what they leave.
.PHONY: test-source
test-source: third-party ## lint, known vulnerabilities, fuzzers in short
	nice -n 19 $(MAKE) --no-print-directory lint vuln fuzz

OF_GOBGP := ./internal/pkg/netutils ./pkg/packet/bgp ./pkg/server

# What the tests of GoBGP import is fetched first: they run without network.
.PHONY: test-gobgp test-release
test-gobgp: test-release third-party ## and GoBGP's own tests of the patched packages, but for table, whose tests need a C compiler
	cd third_party/gobgp/patched && $(GO) list -deps -test $(OF_GOBGP) >/dev/null && unshare --net sh -ec 'ip link set lo up; exec "$$@"' sh \
		$(GO_TEST) --packages '$(OF_GOBGP)' -- -count=1 -timeout 15m
test-release: ## the tests of bgp/gobgp with GoBGP's release
	$(GO_TEST) --packages ./bgp/gobgp -- -count=1 -timeout 30m -parallel $(PARALLEL) -skip '$(PATCHED_ONLY)'

.PHONY: test-stories
test-stories: deps third-party ## the stories of hack/scenario, each on a cluster of its own
	@$(MAKE) --no-print-directory -j2 test-long-stories test-other-stories

.PHONY: test-long-stories test-other-stories
test-long-stories:
	$(PATCHED) $(GO_TEST) --packages ./hack/scenario -- -count=1 -timeout 60m -parallel 5 -run '^($(LONG_STORIES))$$'
test-other-stories:
	$(PATCHED) $(GO_TEST) --packages ./hack/scenario -- -count=1 -timeout 60m -parallel $(STORIES) -skip '^($(LONG_STORIES))$$'

.PHONY: vuln
vuln: ## known vulnerabilities of what the programs import, by the newest database that can be had
	$(GO) run ./hack/vuln/cmd/vuln

.PHONY: cover
cover: deps ## coverage of the pure rooms, at least 85 % each
	@$(GO) test -count=1 -cover $(PURE) | tee /dev/stderr | awk -v min=$(MIN_COVER) -v want=$(words $(PURE)) \
		'/^ok/ && match($$0, /coverage: [0-9]+/) { n++; if (substr($$0, RSTART+10, RLENGTH-10)+0 < min) { print $$2 ": coverage is below " min " %"; bad = 1 } } \
		END { if (n != want) print n+0 " of " want " packages passed"; exit bad || n != want }'

.PHONY: fuzz
fuzz: third-party ## every quick fuzzer looks for new inputs, FUZZTIME each; one that fails is kept in testdata/fuzz
	@fuzzers=$$(grep -roE --include='*_test.go' --exclude-dir=third_party '^func Fuzz\w+' . | sed -E 's|^(.*)/[^/]+:func (.*)|\1 \2|' | grep -vE '$(or $(FUZZ_SLOW),^$$)' | sort); \
	[ -n "$$fuzzers" ] || { echo "no fuzzer was found"; exit 1; }; \
	while read -r dir name; do \
		echo "$$dir $$name"; \
		$(GO_PATCHED) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$dir" </dev/null || exit 1; \
	done <<<"$$fuzzers"

.PHONY: soak
soak: deps third-party ## long runs: hours of faults, not part of make test
	$(MAKE) fuzz FUZZTIME=$(SOAK_FUZZTIME) FUZZ_SLOW=
	$(GO_PATCHED) test -tags soak -count=1 -timeout 12h -run 'Soak' ./...
	$(GO_PATCHED) test -count=1 -timeout 12h -run '^TestChaos$$' ./hack/scenario -args -seed $(CHAOS_SEED) -duration $(CHAOS)
	$(MAKE) skew

.PHONY: skew
skew: deps third-party previous ## programs of the release before, by pairs beside those of this tree, and its chart upgraded: nine minutes
	MUSLIN_PREVIOUS=$(CURDIR)/dist/previous $(GO_PATCHED) test -tags skew -count=1 -timeout 60m ./hack/skew

.PHONY: previous
previous: ## the chart and the programs of the release before into dist/previous, from the history
	@git cat-file -e '$(PREVIOUS)^{commit}' 2>/dev/null || \
		{ echo "$(PREVIOUS) is not in this copy of the repository: git fetch --tags --unshallow, or name another by PREVIOUS="; exit 1; }
	@rm -rf dist/previous && mkdir -p dist/previous && src=$$(mktemp -d) && trap 'rm -rf "$$src"' EXIT && \
	git archive '$(PREVIOUS)' | tar -x -C "$$src" && cp "$$src/manifests/muslin.yaml" dist/previous/ && \
	cp -rL "$$src/manifests/charts" dist/previous/ && find dist/previous -name '*.go' -delete && cd "$$src" && \
	$(GO) run ./hack/thirdparty/cmd/thirdparty >/dev/null && \
	$(GO) build -buildvcs=false -modfile="$$src/third_party/gobgp/patched/go.alt.mod" -ldflags '-s -w -X main.version=previous' \
		-o '$(CURDIR)/dist/previous/' ./cmd/agent ./cmd/cni ./cmd/controller

.PHONY: conformance
conformance: PACKAGES += bash bind9-dnsutils curl netcat-openbsd
conformance: deps third-party ## Kubernetes' own suites of network policy and sig-network's Conformance, ClusterNetworkPolicy's and cyclonus, on a lab: an hour
	$(GO_PATCHED) run ./hack/conformance/cmd/conformance -topology $(TOPOLOGY)

.PHONY: bench
bench: PACKAGES += iptables ipset
bench: deps third-party ## benchmarks beside peers, with ratios
	$(GO_PATCHED) test -run '^$$' -bench . -benchtime 1x ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist coverage.out third_party/gobgp/patched*

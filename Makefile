# SPDX-License-Identifier: Apache-2.0

SHELL   := /bin/bash
VERSION ?= $(shell test/release/version)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOL    := -trimpath -ldflags '-s -w'
LINT    := go tool -modfile=test/tools/lint/go.mod golangci-lint
FUZZTIME ?= 1m
SOAKTIME ?= 10m
SEED     ?= 0

export CGO_ENABLED = 0

.DEFAULT_GOAL := help
.PHONY: help build ctl docs chart-docs test check fmt format lint size vuln fuzz demo e2e migrate-test page-test chart-test chart-tools long-test image publish image-test release-test systemd-test soak bench storm clean matrix

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the static binary bin/trousseau
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/trousseau ./cmd/trousseau

ctl: ## build the operator's command-line tool bin/trousseauctl
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/trousseauctl ./cmd/trousseauctl

docs: ## generate docs/cli.md and docs/schema from trousseauctl's commands
	go test ./cmd/trousseauctl -run '^(TestDocumented|TestSchemas)$$' -update

chart-docs: ## generate the chart's README.md from values.yaml
	cd test/tools/helmdocs && go build $(TOOL) -o $(CURDIR)/bin/tools/helm-docs github.com/norwoodj/helm-docs/cmd/helm-docs
	bin/tools/helm-docs --chart-search-root=charts --sort-values-order=file --log-level=warning

test: ## run all tests with the race detector; no network beyond Go modules
	CGO_ENABLED=1 go test -race -timeout 20m ./...
	cd test && CGO_ENABLED=1 go test -race -timeout 20m ./...

check: format lint test ## all checks for a change: format, vet, lint, tests

fmt: ## format the code
	$(LINT) fmt ./...
	cd test && go tool -modfile=tools/lint/go.mod golangci-lint fmt --config ../.golangci.yml ./...

format:
	@out=$$(gofmt -l cmd internal test); test -z "$$out" || { echo "not formatted, run make fmt:"; echo "$$out"; exit 1; }

lint: ## vet, golangci-lint, package borders, workflows, commit subjects
	@! go list -deps ./cmd/trousseau | grep -E '^(k8s\.io/(client-go|apiserver|kubernetes)|go\.etcd\.io|github\.com/hashicorp/vault)(/|$$)' || \
	  { echo 'the daemon links no Kubernetes client, etcd client or Vault server'; exit 1; }
	go vet ./...
	$(LINT) run ./...
	go tool -modfile=test/tools/actionlint/go.mod actionlint
	cd test && go vet ./... && go tool -modfile=tools/lint/go.mod golangci-lint run --config ../.golangci.yml ./...
	cd test && TROUSSEAU_LINT=$$(go tool -modfile=tools/lint/go.mod -n golangci-lint) go test ./lint
	@git log --since='2026-11-29 15:00 +0000' --format=%s | awk 'length > 72 { print "commit subject over 72 characters: " $$0; bad = 1 } END { exit bad }'

size: ## count the lines of code, without tests: the daemon with the foundation, and trousseauctl without it
	@lines() { git ls-files "$$@" | grep '\.go$$' | grep -v '_test\.go$$' | xargs cat | wc -l; }; \
	  echo "daemon $$(lines cmd/trousseau internal/daemon internal/config internal/endpoint internal/fault internal/keyid internal/seed internal/upstream internal/vault)"; \
	  echo "trousseauctl $$(lines cmd/trousseauctl internal/ctl)"

vuln: ## check for known vulnerabilities; needs network to vuln.go.dev
	go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...

fuzz: ## run every fuzz target for FUZZTIME (1m)
	@set -e; for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' internal cmd | xargs -n1 dirname | sort -u); do \
	  for target in $$(grep -rhoE '^func Fuzz[A-Za-z]+' $$dir/*_test.go | sed 's/func //'); do \
	    echo "== $$dir $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$dir; \
	  done; \
	done

demo: build ## show Trousseau at work; the first run downloads and compiles for some minutes
	@echo "Compiling the demo with kube-apiserver's KMS code (minutes at first, seconds later) ..."
	cd test && go build -o ../bin/demo ./demo
	bin/demo -trousseau bin/trousseau

e2e: build ## run the scenarios and the fake Vault's suite on real servers (KUBE=1.36, VAULT=path); the first run builds them for 25 min
	@tools=$$(test/tools/build) && cd test && \
	TROUSSEAU_E2E=$$tools TROUSSEAU_BINARY=$(CURDIR)/bin/trousseau go test -count=1 -p 1 -timeout 40m -v -skip '$(LONG)' ./audit ./ctl ./e2e

migrate-test: build ## walk through the pages in docs/migrate on real servers
	@tools=$$(test/tools/build) && cd test && \
	TROUSSEAU_E2E=$$tools TROUSSEAU_BINARY=$(CURDIR)/bin/trousseau go test -count=1 -timeout 40m -v ./migrate
matrix: build ## run the core scenarios on every supported version (one column: KUBE=1.34 or VAULT=path; with OpenBao: OPENBAO=path)
	cd test && go build -o ../bin/matrix ./matrix && TROUSSEAU_BINARY=$(CURDIR)/bin/trousseau ../bin/matrix

page-test: ## look at the audit's HTML report in Chromium (CHROMIUM=path); with UPDATE=1 draw the picture in README.md
	cd test && TROUSSEAU_CHROMIUM=$${CHROMIUM:-$$(command -v chromium || echo chromium)} go test -count=1 -v ./page $(if $(UPDATE),-update)

chart-tools:
	cd test/tools/helm && go build $(TOOL) -o $(CURDIR)/bin/tools/helm3 helm.sh/helm/v3/cmd/helm && \
	go build $(TOOL) -o $(CURDIR)/bin/tools/helm4 helm.sh/helm/v4/cmd/helm
	cd test/tools/helmdocs && go build $(TOOL) -o $(CURDIR)/bin/tools/helm-docs github.com/norwoodj/helm-docs/cmd/helm-docs
	cd test/tools/kubeadm && go build $(TOOL) -o $(CURDIR)/bin/tools/kubeadm k8s.io/kubernetes/cmd/kubeadm
	cd test/tools/prometheus && go build $(TOOL) -tags remove_all_sd -o $(CURDIR)/bin/tools/promtool github.com/prometheus/prometheus/cmd/promtool

# What a test of the chart finds its tools by.
CHART = TROUSSEAU_E2E=$$tools TROUSSEAU_BINARY=$(CURDIR)/bin/trousseau \
	TROUSSEAU_HELM=$(CURDIR)/bin/tools TROUSSEAU_PROMTOOL=$(CURDIR)/bin/tools/promtool

chart-test: build chart-tools ## run the Helm chart, its manifests and its alert rules; builds the servers too
	@tools=$$(test/tools/build) && cd test && $(CHART) go test -count=1 -p 1 -timeout 60m -v -skip '$(LONG)' ./chart/...

# Each takes four minutes or more.
LONG = ^(TestColdStart|TestCronJobs|TestInstaller|TestReencryptRefused|TestScheduledRotation)$$

long-test: build chart-tools ## run the scenarios that e2e and chart-test leave out because they take long
	@tools=$$(test/tools/build) && cd test && $(CHART) go test -count=1 -p 1 -timeout 60m -v -run '$(LONG)' ./ctl ./chart

image: ## build the image for both platforms, plain and FIPS
	VERSION=$(VERSION) test/image/build

publish: ## build image and chart, and push them to REGISTRY; needs helm
	test/release/publish '$(REGISTRY)'

image-test: ## build the image twice, compare, and run it; needs podman
	test/image/check

release-test: ## make a release, sign it, push it to a registry on loopback, and install it from there
	test/release/check

systemd-test: ## check the systemd units; needs systemd-analyze
	test/systemd/check

soak: build ## run random faults for SOAKTIME (10m); SEED reproduces a run
	cd test && go build -o ../bin/soak ./soak
	bin/soak -trousseau bin/trousseau -duration $(SOAKTIME) -seed $(SEED)

bench: build ## compare with direct calls to Vault, and with PEERS; SVG names a picture to write
	cd test && go build -o ../bin/bench ./bench
	bin/bench -trousseau bin/trousseau -peers '$(PEERS)' -svg '$(SVG)'

storm: build ## let 5, 20 and 40 clusters come back at once against one real Vault; STORM holds flags
	@tools=$$(test/tools/build) && (cd test && go build -o ../bin/storm ./storm) && \
	TROUSSEAU_E2E=$$tools bin/storm -trousseau bin/trousseau $(STORM)

clean: ## remove built files
	rm -rf bin dist

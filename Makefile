# make install | demo | test | lint | docs | doctor    all in .venv
#   PYTHON=python3.12    Python 3.10 to 3.13; the newest found by default
#   OPS=compiled         compile mmcv's own operators; torchvision's by default
#   STACK=onedl          the OneDL forks, in .venv-onedl
# make matrix            a part of the tests on every Python, torch and stack
STACK ?= upstream
ifeq ($(STACK),upstream)
VENV ?= .venv
OPENMMLAB := requirements/mminstall.txt
MMCV := mmcv
else ifeq ($(STACK),onedl)
VENV ?= .venv-onedl
OPENMMLAB := requirements/onedl.txt
MMCV := onedl-mmcv
else
$(error STACK=$(STACK) must be upstream or onedl)
endif
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
STAMP := $(VENV)/.installed
CONSTRAINTS ?= requirements/constraints.txt
REQUIREMENTS := $(wildcard requirements/*.txt) setup.py

# What is installed stays, unless something else is asked for.
INSTALLED := $(shell cat $(STAMP) 2>/dev/null)
OPS ?= $(or $(INSTALLED),torchvision)
ifeq ($(filter torchvision compiled,$(OPS)),)
$(error OPS=$(OPS) must be torchvision or compiled)
endif
# Neither `make clean` nor `make doctor` depends on it.
ifneq ($(and $(INSTALLED),$(filter-out clean doctor,$(or $(MAKECMDGOALS),install))),)
ifneq ($(OPS),$(INSTALLED))
$(error OPS=$(OPS), but $(VENV) has OPS=$(INSTALLED): run make clean first)
endif
ifneq ($(and $(PYTHON),$(shell "$(PYTHON)" -V)),)
ifneq ($(shell "$(PYTHON)" -V),$(shell $(BIN)/python -V))
$(error PYTHON=$(PYTHON) is $(shell "$(PYTHON)" -V), but $(VENV) has \
$(shell $(BIN)/python -V): run make clean first)
endif
endif
endif

# With venv and pip, and of a supported version.
SUITABLE := import sys, ensurepip, venv; \
	sys.exit(not (3, 10) <= sys.version_info < (3, 14))
PYTHONS = $(if $(PYTHON),"$(PYTHON)",$(foreach minor,13 12 11 10,python3.$(minor)) python3)

.PHONY: install demo doctor test matrix lint format docs clean

install: $(STAMP)

# Wheels and what comes out of them take 9.5 GB while pip installs torch, which
# would stop it half-way. A compiled mmcv comes before the rest; pip's cached
# wheel of it may be for another torch.
$(STAMP): $(REQUIREMENTS)
	@free=$$(df -Pm . | awk 'NR == 2 {print $$4}'); \
	test "$$free" -ge 10000 || { \
		echo "$@: $$free MB are free in $(CURDIR), 10000 are needed:" \
			'free some, or clone to another disk' >&2; \
		exit 1; \
	}
	@for python in $(PYTHONS); do \
		"$$python" -c '$(SUITABLE)' 2>/dev/null || continue; \
		echo "$$python -m venv $(VENV)"; \
		exec "$$python" -m venv $(VENV); \
	done; \
	echo 'No Python 3.10 to 3.13 with venv and pip among: $(subst ",,$(PYTHONS)).' \
		'Install one (Debian, Ubuntu: python3-venv), or name it:' \
		'make install PYTHON=/path/to/python3.12' >&2; \
	exit 1
ifeq ($(OPS),compiled)
	$(PIP) -qq uninstall -y mmcv-lite
	$(PIP) install -c $(CONSTRAINTS) -r requirements/build.txt ninja psutil
	MMCV_WITH_OPS=1 $(PIP) install -c $(CONSTRAINTS) --no-build-isolation \
		--no-cache-dir $(MMCV)
	grep -v '^mmcv-lite' $(OPENMMLAB) >$(VENV)/openmmlab.txt
else
	$(PIP) -qq uninstall -y mmcv
	cp $(OPENMMLAB) $(VENV)/openmmlab.txt
endif
	$(PIP) install -c $(CONSTRAINTS) \
		-r requirements/build.txt -r $(VENV)/openmmlab.txt \
		-r requirements/runtime.txt -r requirements/optional.txt \
		-r requirements/tests.txt -r requirements/docs.txt
	$(PIP) install --no-build-isolation --no-deps -e .
	echo $(OPS) >$@

demo: $(STAMP)
	$(BIN)/python tools/demo.py $(ARGS)

# Before an installation too: it says what is missing.
doctor:
	$(or $(wildcard $(BIN)/python),$(PYTHON),python3) tools/doctor.py $(ARGS)

# The run report's pages are opened in a browser. conftest.py orders the files.
test: $(STAMP)
	tests/install_browser.sh $(BIN)/python
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder \
		$(ARGS)

matrix: $(STAMP)
	$(BIN)/python tests/matrix.py $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/python -m sphinx -nW --keep-going docs/en docs/_build
	@echo 'open docs/_build/index.html'

clean:
	rm -rf .venv .venv-onedl build docs/_build mmscfs/.mim .mypy_cache *.egg-info .pytest_cache .ruff_cache

# make install | demo | test | lint | docs | doctor    all in .venv
# make test STACK=onedl                                the same in .venv-onedl
PYTHON ?= python3
STACK ?= upstream
ifeq ($(STACK),upstream)
VENV := .venv
OPENMMLAB := requirements/mminstall.txt
else ifeq ($(STACK),onedl)
VENV := .venv-onedl
OPENMMLAB := requirements/onedl.txt
# Their metadata are of a newer form than the one that comes with Python reads.
SETUPTOOLS := 'setuptools>=77,<81'
else
$(error STACK=$(STACK) must be upstream or onedl)
endif
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REQUIREMENTS := $(wildcard requirements/*.txt) setup.py

.PHONY: install demo doctor test lint format docs clean

install: $(STAMP)

# torch first, then mmcv's ops compiled against it (8 minutes on 2 cores the
# first time; pip keeps the wheel), then the rest. Wheels and what comes out of
# them take 6.5 GB while pip installs torch, which would stop it half-way.
$(STAMP): $(REQUIREMENTS)
	@free=$$(df -Pm . | awk 'NR == 2 {print $$4}'); \
	test "$$free" -ge 7000 || { \
		echo "$@: $$free MB are free in $(CURDIR), 7000 are needed:" \
			'free some, or clone to another disk' >&2; \
		exit 1; \
	}
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade 'pip<27'
	$(BIN)/python -m pip install -r requirements/build.txt $(SETUPTOOLS)
	MMCV_WITH_OPS=1 $(BIN)/python -m pip install --no-build-isolation \
		-r $(OPENMMLAB)
	$(BIN)/python -m pip install -r requirements/runtime.txt \
		-r requirements/optional.txt -r requirements/tests.txt \
		-r requirements/docs.txt
	$(BIN)/python -m pip install --no-build-isolation --no-deps -e .
	touch $@

demo: $(STAMP)
	$(BIN)/python tools/demo.py $(ARGS)

# Before an installation too: it says what is missing.
doctor:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) \
		tools/doctor.py $(ARGS)

# The run report's pages are opened in a browser.
test: $(STAMP)
	tests/install_browser.sh $(BIN)/python
	$(BIN)/python -m pytest tests $(ARGS)

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

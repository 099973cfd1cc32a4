# The whole project in a few verbs. Everything happens in .venv and in pandastack's own data and cache directories.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := python3-venv gcc musl-tools linux-libc-dev qemu-system-x86 e2fsprogs xfsprogs mmdebstrap lz4 zstd cpio iproute2 nftables skopeo umoci kmod util-linux openssh-client git libnss3-tools
# What only tests need: a real browser, reverse proxies, a registry of images, and PostgreSQL with its clients.
TEST_SERVICES := nginx haproxy docker-registry postgresql
TEST_PACKAGES := chromium busybox-static apache2-utils $(TEST_SERVICES)
WORKERS ?= 2
PYTEST = $(BIN)/pytest -n $(WORKERS)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# Tests start the command line hundreds of times: it is compiled once, whatever the caller's environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo quick test test-kvm accept check soak bench docs setup system system-dev clean
.DEFAULT_GOAL := help

help:            ## show this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: system $(VENV)/.server  ## build the templates, start the server, draw a chart inside a microVM
	$(BIN)/pandastack template build
	$(BIN)/pandastack up --detach
	$(BIN)/python examples/chart.py
	@echo "The chart is at $(CURDIR)/chart.png"

quick: $(VENV)/.installed  ## run the tests that need neither root nor machines nor a network: a minute
	$(PYTEST) -m "not vm and not root and not network"

test: setup      ## run every test that does not take long, real machines included
	$(PYTEST)

accept: setup    ## run what takes long, without a limit, and keep its log in accept.log
	set -o pipefail; { \
	  $(BIN)/pytest -s -m slow -o faulthandler_timeout=0; slow=$$?; \
	  $(PYTEST) -m "hypothesis and not vm" --hypothesis-profile=thorough --timeout=0 -o faulthandler_timeout=0 && exit $$slow; \
	} 2>&1 | tee accept.log

test-kvm: setup  ## run machines with KVM in a host in a box, whose CPU is emulated with AMD-V
	$(BIN)/pytest -s -m slow -o faulthandler_timeout=0 tests/kvm

check: setup     ## formatting, lint, types and layers
	$(BIN)/ruff format --check src tests scripts
	$(BIN)/ruff check src tests scripts
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: setup      ## live through SOAK_OPERATIONS (300) random operations, killed servers and reboots; SOAK_SEED repeats a run
	$(BIN)/pytest -s -m slow -o faulthandler_timeout=0 tests/soak

bench: setup     ## measure creates and lifecycles against the bare restore floor
	$(BIN)/pandastack template build
	$(BIN)/pandastack up --detach
	$(BIN)/pandastack bench create --json bench-create.json
	$(BIN)/pandastack bench lifecycle --json bench-lifecycle.json

docs: setup      ## run every command and snippet of the documentation
	$(BIN)/pytest tests/docs

setup: system-dev $(VENV)/.installed

system:          ## install the Debian packages that are missing
	@$(call install,$(PACKAGES))

system-dev:      ## install those that only tests need, too
	@# Tests start these programs themselves: where they are new, their services must not take the host's ports.
	@test ! -d /run/systemd/system || for each in $(TEST_SERVICES); do \
	  dpkg-query -W $$each >/dev/null 2>&1 || $(SUDO) systemctl mask --quiet $$each; done
	@$(call install,$(PACKAGES) $(TEST_PACKAGES))

define install
	missing="$$(dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $(1) 2>/dev/null | awk '$$2=="installed"{print $$1}' \
	  | sort | comm -13 - <(tr ' ' '\n' <<<'$(1)' | sort) | xargs)"; \
	if [ -n "$$missing" ]; then echo "installing $$missing"; \
	  $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; fi
endef

# What a server needs is installed first: the first chart does not wait for what only tests need.
$(VENV)/.server: pyproject.toml
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[server]'
	touch $@

$(VENV)/.installed: $(VENV)/.server
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:           ## remove the virtual environment and build results (templates and caches stay)
	rm -rf $(VENV) build dist src/pandastack/guest/agent/bin src/pandastack/vmm/qemu/bin

# fleetctl: `make` alone lists what there is. Everything happens in .venv, made by make/environment.py.
# Variables: PYTHON=/path/to/python3   TORCH_INDEX=URL   HASHES=0   VERBOSE=1   QUICK=1   JOBS=N   T="pytest arguments"

SHELL := /bin/sh
.DEFAULT_GOAL := help
BIN := .venv/bin
# Tests wait for processes more than they compute: two at a time on two cores.
JOBS := auto
TOOLS_OF_TESTS := sshd ssh-keygen ssh-keyscan cron ip virsh libvirtd ipmitool ipmi_sim curl ps sudo ensurepip haproxy
TOOLS_OF_VMS := libvirt-qemu qemu-system-x86_64 qemu-img mmdebstrap mkfs.ext4 ssh

# Found by the tests: what Debian keeps out of a user's PATH (sshd, cron, ip), and what make/unpack.sh unpacked.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:$(CURDIR)/.venv/debian/run

environment = @python=$$(make/python.sh) && "$$python" make/environment.py

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

.PHONY: up
up: ## install, start the fleet of fleet.yaml, send one real request
	$(environment) agent balancer examples
	@$(BIN)/fleetctl -f fleet.yaml up
	@$(BIN)/python make/first_request.py

.PHONY: down
down: ## drain and stop everything `up` started
	@if [ -x $(BIN)/fleetctl ]; then $(BIN)/fleetctl -f fleet.yaml down --yes; else echo "nothing to stop: no .venv here"; fi

.PHONY: environment
environment: ## .venv with everything for working on the code
	$(environment) agent balancer examples dev

.PHONY: test-tools
test-tools: environment
	@make/packages.sh $(TOOLS_OF_TESTS)

.PHONY: test
test: environment test-tools ## the tests (T="-k drain" picks some)
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow and not netns" $(T)

.PHONY: test-slow
test-slow: environment test-tools ## the tests that take long
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "slow and not netns and not long" $(T)

.PHONY: test-failpoints
test-failpoints: environment test-tools ## controllers and installations killed, failing or hung at every step (FLEETCTL_POINTS=text)
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m long tests/controller tests/hosts $(T)

.PHONY: test-agent-proofs
test-agent-proofs: environment test-tools ## the agent's promises at full length: a million requests, a minute of overload
	@$(BIN)/python -m pytest -m long -rA tests/agent $(T)

.PHONY: test-gpu
test-gpu: environment ## what only a real GPU shows: memory figures against nvidia-smi's, a real out-of-memory, streams and graphs
	@$(BIN)/python -m pytest -m gpu -rA tests/agent $(T)

.PHONY: test-netns test-netns-all
test-netns: MACHINES := machine and not slow
test-netns: ## what depends on a host's own cable, boot or processes, each host a network namespace (root)
test-netns-all: MACHINES := not long
test-netns-all: ## all tests of hosts and fleets on such hosts
test-netns test-netns-all: environment test-tools
	@$(BIN)/python tests/lab/netns.py run -- $(CURDIR)/$(BIN)/python -m pytest --hosts netns \
	    -n $(JOBS) --dist worksteal -m "$(MACHINES)" $(if $(T),$(T),tests/hosts tests/fleet)

.PHONY: test-systemd
test-systemd: environment test-tools ## the agent as a unit of a real systemd, in containers (root; makes .venv/rootfs; four minutes)
	@make/packages.sh debootstrap systemd-nspawn
	@$(BIN)/python tests/lab/rootfs.py
	@$(BIN)/python -m pytest -m systemd -rA $(if $(T),$(T),tests/hosts/run tests/fleet)

.PHONY: test-vm
test-vm: environment test-tools ## bare Debian VMs of a real libvirt: installed offline, serving, scaled, switched off (root, half an hour)
	@make/packages.sh $(TOOLS_OF_VMS)
	@$(BIN)/python tests/lab/netns.py run -- $(CURDIR)/$(BIN)/python -m pytest -m vm -rA $(if $(T),$(T),tests/vm)

.PHONY: fuzz
fuzz: environment ## random HTTP against the balancer's framing and h11 (MINUTES=10)
	@$(BIN)/python tests/fuzz/framing.py --minutes $(or $(MINUTES),10)

.PHONY: check
check: environment ## format, lint, types, and which room may import which
	@make/check.sh

.PHONY: format
format: environment ## write the format that `check` wants
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix-only --quiet .

.PHONY: bench
bench: bench-agent bench-balancer bench-routing bench-scaling bench-hosts ## all benchmarks (QUICK=1: a minute each)

.PHONY: bench-agent bench-balancer bench-routing bench-scaling bench-hosts
bench-agent: environment ## one host's server against its peers -> bench/out/agent.json
	@QUICK=$(QUICK) $(BIN)/python -m bench.agent
bench-balancer: environment ## the front door against its peers -> bench/out/balancer.json
	@QUICK=$(QUICK) $(BIN)/python -m bench.balancer
bench-routing: environment ## routing policies on a mixed fleet, and what a pick costs -> bench/out/routing.json
	@QUICK=$(QUICK) $(BIN)/python -m bench.routing
bench-hosts: environment test-tools ## `up` on fifty SSH hosts, ten of them dark -> bench/out/hosts.json
	@QUICK=$(QUICK) $(BIN)/python -m bench.hosts
bench-scaling: ## autoscalers on real traffic -> bench/out/scaling.json (ARGS="--traces DIR")
	$(environment) agent balancer examples dev simulate
	@QUICK=$(QUICK) nice -n 10 $(BIN)/python -m bench.scaling $(ARGS)

.PHONY: lock
lock: ## choose newer versions of the dependencies (KEEP=1: only what must change)
	@make/lock.sh

.PHONY: clean
clean: ## stop the fleet, then remove .venv, state and caches
	@make/clean.sh

# Thin: the work is in compose.yaml, and in the programs of host/ and ops/.
.DEFAULT_GOAL := help
# What is given as NAME=value is text, whatever stands in it, and reaches programs as their
# environment: neither make nor a shell looks for $(…) in it.
$(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),\
	$(eval override export $(name) := $$(value $(name)))$(eval export GIVEN += $(name))))
.PHONY: help new setup up down dev trust untrust revision run shell psql logs deploy image rollback doctor advise status maintenance backup verify-backup restore import upgrade-db rotate-secrets sbom swarm-deploy swarm-rollback swarm-doctor swarm-down test test-swarm chaos bench check

ifneq ($(and $(HOST),$(filter-out help setup,$(MAKECMDGOALS))),)
# On another machine, by SSH.
$(MAKECMDGOALS):
	@python3 -m ops.remote $@
else

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

new: ## Start a project of your own from the example: make new DIR=../shop
	@python3 -m ops.new

setup: ## Prepare a bare server (Debian, Ubuntu) by SSH: make setup HOST=root@shop.example.org
	@python3 -m ops.setup

up: ## Start everything, installing Docker first if need be
	@python3 -m host
	@python3 -m ops.up

down: ## Stop everything; data and certificates stay
	docker compose down

dev revision: export COMPOSE_FILE = $(shell python3 -m ops.dev files)

dev: ## Start for development: reload on save, a database port, debug logs
	@COMPOSE_PROFILES=metrics python3 -m host
	@COMPOSE_PROFILES=metrics python3 -m ops.dev

trust: ## Have this machine and its browsers trust https://localhost, and names that end so
	@python3 -m ops.trust

untrust: ## Take that out of them again
	@python3 -m ops.trust none

revision: ## Write the next migration from the models: make revision MESSAGE="add prices"
	docker compose run --rm --user "$$(id -u):$$(id -g)" migrate \
		python -m _berth.run alembic revision --autogenerate --message "$$MESSAGE"

run: ## Run a command with the app's image and environment: make run CMD="python -m shop.report"
	@docker compose run --rm --no-deps api python -m _berth.run sh -c "$$CMD"

shell: ## Open a shell with the app's image and environment
	@docker compose run --rm --no-deps api python -m _berth.run bash

psql: ## Open a prompt in the app's database, or run SQL="select 1", as the schema's owner
	@python3 -m ops.psql

logs: ## Follow what all say, or SERVICE=api, of the last ten minutes on or SINCE=2h
	@docker compose logs --follow --since="$${SINCE:-10m}" -- $${SERVICE:+"$$SERVICE"}

deploy: ## Build this tree, or pull IMAGE=…, and roll it out without losing a request
	@python3 -m host
	@python3 -m ops.deploy

image: ## Build this tree's image and push it: make image PUSH=registry.example.org/shop:1
	@python3 -m host build
	@python3 -m ops.image

rollback: ## Go back to the version before
	@python3 -m ops.rollback

doctor: ## Say what is wrong, and the way out; JSON=1 for programs
	@python3 -m ops.doctor $(if $(JSON),--json)

advise: ## Say how the machine is used and what to change, of the last hour or SECONDS=30
	@python3 -m ops.advise

status: ## Print the status page's address, user and password
	@python3 -m ops.status

maintenance: ## Answer 503 with a page: ON=1, ALLOW="192.0.2.7" for who may pass; OFF=1 ends it
	@python3 -m ops.maintenance

backup: ## Take a base backup now (the schedule does, too)
	@python3 -m ops.backup base

verify-backup: ## Prove that the newest backup can be restored
	@python3 -m ops.backup verify

restore: ## Restore the database: the latest, TO="2026-11-21 20:00:00+00", or INTO=scratch
	@python3 -m host
	@python3 -m ops.restore

import: ## Bring another database's data into a fresh stack: make import FILE=shop.dump
	@python3 -m ops.import_dump

upgrade-db: ## Bring the database to the version of POSTGRES_IMAGE
	@python3 -m host
	@python3 -m ops.upgrade_db

rotate-secrets: ## Change the database's passwords without losing a request
	@python3 -m ops.rotate_secrets

swarm-deploy: ## On three machines: bring IMAGE=…, or the present settings, into service
	@python3 -m ops.swarm_deploy

swarm-rollback: ## On three machines: go back to the release before, or TO=3
	@python3 -m ops.swarm_rollback

swarm-doctor: ## On three machines: say what is wrong, and the way out
	@python3 -m ops.swarm_doctor $(if $(JSON),--json)

swarm-down: ## On three machines: stop everything
	@python3 -m ops.swarm_down

sbom: ## List what is in the image, as CycloneDX: make sbom > sbom.json
	@python3 -m ops.sbom

test: ## Run the tests, on real stacks with real certificates, or TESTS=tests/app
	@python3 -m host
	@python3 -m host.venv
	PYTEST_ADDOPTS="$$PYTEST_ADDOPTS $$TESTS" .venv/bin/pytest $(if $(TESTS),,--numprocesses=2)

test-swarm: ## Run all tests of three machines, each an engine in a container; PLAIN=1 compares
	@python3 -m host
	@python3 -m host.venv
	PYTEST_ADDOPTS="$$PYTEST_ADDOPTS $${TESTS:-tests/swarm}" .venv/bin/pytest

chaos: ## Measure what events under load cost, beside plain Compose
	@python3 -m host
	@python3 -m host.venv
	PLAIN=1 .venv/bin/pytest tests/stack/test_no_request_lost.py

bench: ## Measure it beside its peers: make bench PEERS="template bare" ROUNDS=1, or SCALING=1
	@python3 -m host
	@python3 -m benchmarks

check: ## Run the checks that a commit and CI run
	@python3 -m host
	@python3 -m host.venv
	.venv/bin/pre-commit run --all-files
endif

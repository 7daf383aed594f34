# What scripts/test and the workflow run, one recipe at a time. `scripts/setup test` installs just
# into .tools and everything else that the recipes need.

set shell := ["bash", "-euo", "pipefail", "-c"]

export PATH := justfile_directory() / ".tools/node/bin" + ":" + justfile_directory() / ".tools" + ":" + env("PATH")

# Without the programs of loadtest/peers: their dependencies enable more features of shared crates.
ours := "-p hookgate -p atomics -p model -p testkit"

# Lists the recipes.
default:
    @just --list --unsorted

# Installs what is missing for the tests, the demo or the load tests.
setup what="test":
    scripts/setup {{ what }}

# Checks the format of the code.
fmt:
    cargo fmt --check --all

# Runs the lints. A stale Cargo.lock fails here.
lint:
    cargo clippy --locked {{ ours }} --all-targets -- -D warnings

# Builds the documentation of the code without warnings.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc {{ ours }} --no-deps --document-private-items

# Checks the pages and the words in comments.
pages:
    scripts/check-pages
    scripts/check-words

# Checks the scripts of every language.
scripts:
    shellcheck -x $(git grep -Il '^#!/usr/bin/env bash') $(git ls-files '*.sh')
    for module in $(git ls-files '*.mjs' 'config/compose/*.js'); do node --check "$module"; done
    node --test loadtest/k6/reading.test.mjs
    node tests/workflows/lint.mjs .github/workflows/*.yml
    for module in $(git grep -Il '^#!/usr/bin/env python3' -- . ; git ls-files '*.py'); do python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$module"; done

# Checks the units, manifests, chart and Dockerfiles.
deploy:
    scripts/check-deploy

# Runs the unit tests.
unit:
    cargo test {{ ours }} --lib --bins --no-fail-fast

# Runs what threads share without a lock in every interleaving.
interleavings:
    RUSTFLAGS="--cfg loom" cargo test -p atomics --lib --target-dir target/loom

# Runs the integration tests whose names contain NAME, against real servers: `just it queue::outage`.
# Seven at a time, because most of them wait more than they compute.
it name="":
    RUST_TEST_THREADS=7 cargo test --test it --no-fail-fast -- {{ name }}

# Follows docs/start.md as it is printed, with the program that the tests have built.
start:
    scripts/check-start

# Runs the demo with the optimized program, because that is what people run.
demo:
    scripts/demo --once --release

# Counts the instructions of a request in the program that the demo has built.
instructions:
    scripts/instructions

# Runs the quick load tests.
load:
    loadtest/run smoke
    DURATION=5s loadtest/run landed

# Runs the long forms of the tests: hours.
long:
    FLOOD=1000000 SLOW_CALLERS=10000 cargo test --test it -- --nocapture http::floods::a_ http::slow_callers
    OVERLOAD_SECONDS=60 CHAOS_WEBHOOKS=100000 CHAOS_CUTS=1000 cargo test --test it -- --nocapture queue::overload queue::chaos
    NETWORKS_ROUNDS=10 cargo test --test it -- --nocapture networks::
    DEAREST=target/release/hookgate cargo test --test it -- --nocapture http::floods::dearest
    SCRIPT_HISTORIES=5000 cargo test --test it -- --nocapture queue::script_model
    MODEL_SIZE=long cargo test -p model --lib -- --nocapture every_property
    FOLLOWING_SEEDS=100000 cargo test --lib -- --nocapture mirror::mongo::simulation::search::every
    SOAK_SECONDS=3600 cargo test --test it -- --nocapture process::soak
    SIMULATION_SEEDS=3000000 cargo test --lib -- --nocapture queue::simulation::tests::no_seed

# Tries the archive, the checksums and the SBOM of a release, with the program that the demo has
# built. Without what `scripts/setup package` installs there are no notices and no SBOM in it.
release:
    deploy/release/try target/release/hookgate

# Tries the same with notices and SBOM, and the Debian package on a Debian 12 that boots systemd. As
# root, with what `scripts/setup package` installs.
package:
    scripts/setup package
    FOR_OTHERS=1 deploy/release/try target/release/hookgate
    deploy/debian/try-package "$(FOR_OTHERS=1 deploy/debian/build target/release/hookgate | tail -n 1)" \
      target/release-trial/dist/hookgate-*.tar.gz

# Runs the steps of the Dockerfile with the program that the demo has built in place of its build. As
# root, with buildah, which `scripts/setup image` installs. Half an hour.
image:
    scripts/setup image
    deploy/try-image target/release/hookgate

# Runs one benchmark: `just bench index`.
bench name:
    cargo bench --bench {{ name }}

# Runs every check and every test.
test:
    scripts/test

# syntax=docker/dockerfile:1.7
# Hookgate in an image of Debian's libraries and nothing else of ours.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg COMMIT=$(git rev-parse --short=12 HEAD) --tag hookgate .
#   docker build --target symbols --output symbols .     # hookgate.debug, for gdb and perf
#
# It needs BuildKit: DOCKER_BUILDKIT=1 with the Docker of Debian 12.
# Bases are named by exact version. To pin what they contain too, put the digest behind the tag, as
# "docker buildx imagetools inspect debian:13.8-slim" prints it: debian:13.8-slim@sha256:….

FROM rust:1.95.0-slim-trixie AS build
# What scripts/optimize needs; the C compiler is there.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 redis-server wrk \
    && rm -rf /var/lib/apt/lists/* \
    && rustup component add llvm-tools
WORKDIR /build
COPY . .
ARG COMMIT=unknown
# Crates and what was built of them stay in caches between builds; they are no part of any image.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    HOOKGATE_COMMIT=$COMMIT scripts/optimize \
    && deploy/split-symbols target/optimized/hookgate /split \
    && mkdir /state

# The debug symbols of the same program, which are no part of the image.
FROM scratch AS symbols
COPY --from=build /split/hookgate.debug /

# What is linked into the program: its licences and its SBOM. `--fail`: a licence that about.toml does not accept stops the
# build. `--offline`: texts are those in the crates.
FROM rust:1.95.0-slim-trixie AS notices
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo install --locked --version 0.9.3 --features cli cargo-about \
    && cargo install --locked --version 0.5.9 cargo-cyclonedx
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo fetch --locked \
    && cargo about generate --locked --offline --fail --output-file /THIRD-PARTY-NOTICES about.hbs \
    && deploy/sbom /hookgate.cdx.json

FROM debian:13.8-slim
# The authorities by which TLS to Redis and MongoDB is checked.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /split/hookgate /usr/local/bin/hookgate
COPY --from=notices /THIRD-PARTY-NOTICES /hookgate.cdx.json /build/LICENSE /usr/share/doc/hookgate/
# Snapshots of the index go there, if triggers.snapshot_file says so; a volume keeps the owner.
COPY --from=build --chown=65532:65532 /state /var/lib/hookgate
ARG COMMIT=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.title="hookgate" \
      org.opencontainers.image.description="Webhook ingress for workflow engines that run on BullMQ" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
# A number, so that Kubernetes' runAsNonRoot can see that it is not root's.
USER 65532:65532
WORKDIR /etc/hookgate
ENV HOOKGATE_CONFIG=/etc/hookgate/hookgate.toml
EXPOSE 2212 9464
# Whether it lives, not whether it is ready: that is /readyz, for load balancers. It does not read the configuration, which may be
# edited while the container runs: to move the admin port, set HOOKGATE__ADMIN__LISTEN, which both read.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["hookgate", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["hookgate"]
CMD ["serve"]

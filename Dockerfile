# syntax=docker/dockerfile:1
#
#   docker build -t acta .
#   docker run -d --name acta --read-only --cap-drop ALL --security-opt no-new-privileges \
#     --tmpfs /tmp -v acta-data:/var/lib/acta -v "$PWD/manifest.json:/app/manifest.json:ro" \
#     -p 127.0.0.1:8080:8080 acta
#   docker exec acta acta status
#
# The workers' programs run in the same container: build an image FROM this one that has them.

FROM rust:1.95-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG FEATURES=""
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin acta --features "$FEATURES" \
 && install -D -m 0755 target/release/acta /out/acta

FROM debian:bookworm-slim
# tini reaps what the children of workers leave behind, which PID 1 has to.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/acta --shell /usr/sbin/nologin acta \
 && install -d -o acta -g acta -m 0700 /var/lib/acta
COPY --from=build /out/acta /usr/local/bin/acta
USER 10001:10001
WORKDIR /var/lib/acta
ENV ACTA_DATA=/var/lib/acta/data \
    ACTA_LISTEN=0.0.0.0:8080 \
    ACTA_LOG_FORMAT=json
VOLUME /var/lib/acta
EXPOSE 8080
# Longer than stop-grace-ms: `docker stop --time 60 acta`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["acta", "status", "--url", "http://127.0.0.1:8080", "-o", "json"]
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/acta"]
CMD ["serve"]

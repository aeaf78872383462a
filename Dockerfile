# The image of all roles. Which bases it stands on, and from where they come, is for whoever builds it to say:
#
#   BUILD_BASE    a Debian with the Rust toolchain of rust-toolchain.toml; as root, `./x` installs with apt what else it needs
#   RUNTIME_BASE  a base with glibc, not older than that of BUILD_BASE, and nothing else that one would miss: no shell is needed
#
# Settings of the machine (mirrors, authorities, proxies) come in as secrets, all optional, and stay in no layer. docs/kubernetes.md, "Building the image".
ARG BUILD_BASE
ARG RUNTIME_BASE

FROM ${BUILD_BASE} AS build
# `release`, or `dev` for a quicker build.
ARG PROFILE=release
WORKDIR /src
COPY . .
# The cache holds crates, packages and what was compiled. Sources are touched because cargo goes by time, and a cache may have seen newer ones of another clone.
# The library is linked from where the image has it, so that the binary names no folder of the build.
RUN --mount=type=cache,id=millrace-build,target=/cache,sharing=locked \
    --mount=type=secret,id=env,target=/run/secrets/env \
    --mount=type=secret,id=authorities,target=/run/secrets/authorities \
    --mount=type=secret,id=cargo,target=/.cargo/config.toml \
    --mount=type=secret,id=npm,target=/root/.npmrc \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    set -eu; \
    if [ -s /run/secrets/env ]; then set -a; . /run/secrets/env; set +a; fi; \
    if [ -s /run/secrets/authorities ]; then \
        authorities=/run/secrets/authorities; \
        export CARGO_HTTP_CAINFO=$authorities SSL_CERT_FILE=$authorities NODE_EXTRA_CA_CERTS=$authorities PIP_CERT=$authorities; \
    fi; \
    export CARGO_HOME=/cache/cargo CARGO_TARGET_DIR=/cache/target MILLRACE_CACHE=/cache/millrace; \
    case "$PROFILE" in release) option=--release; folder=release ;; dev) option=; folder=debug ;; \
        *) echo "there is no profile \`$PROFILE\`; there are \`release\` and \`dev\`" >&2; exit 1 ;; esac; \
    find . -type f -exec touch {} +; \
    ./x deps --build-only; \
    mkdir -p /usr/lib/millrace; \
    cp -L .deps/duckdb/libduckdb.so .deps/duckdb/*.duckdb_extension /usr/lib/millrace/; \
    DUCKDB_LIB_DIR=/usr/lib/millrace ./x build $option; \
    mkdir -p /image/usr/bin /image/usr/lib /image/etc/ssl/certs /image/tmp; \
    chmod 1777 /image/tmp; \
    strip -o /image/usr/bin/millrace "$CARGO_TARGET_DIR/$folder/millrace"; \
    cp -r /usr/lib/millrace /image/usr/lib/; \
    cp -L /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    printf 'hosts: files dns\n' > /image/etc/nsswitch.conf; \
    ldd /image/usr/bin/millrace > /linked; \
    if grep 'not found' /linked >&2; then exit 1; fi; \
    sed -n 's|.*=> \(/[^ ]*\) .*|\1|p' /linked | while read -r library; do \
        case "$library" in */libc.so.*|*/libm.so.*|*/libdl.so.*|*/libpthread.so.*|*/librt.so.*|/usr/lib/millrace/*) ;; \
            *) cp -L "$library" /image/usr/lib/ ;; esac; \
    done

FROM ${RUNTIME_BASE}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="Millrace" \
      org.opencontainers.image.description="Moves data between databases: controller, REST API, query tier and workers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /image/ /
ENV MILLRACE_EXTENSION_DIR=/usr/lib/millrace \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["/usr/bin/millrace"]

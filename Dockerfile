# SPDX-License-Identifier: Apache-2.0
#
# Wraps up what test/image/build has compiled; its context is the directory with
# the file trees, one for each platform and variant. Nothing is run in here, so
# that every platform can be built on every other.
FROM scratch

ARG TARGETARCH
ARG VARIANT=""
COPY ${TARGETARCH}${VARIANT}/ /

# No entry in /etc/passwd: there is none. kubelet wants a number for runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/trousseau"]

ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="trousseau" \
      org.opencontainers.image.description="Kubernetes KMS v2 plugin for HashiCorp Vault's transit engine" \
      org.opencontainers.image.source="https://github.com/trousseau-io/trousseau" \
      org.opencontainers.image.documentation="https://github.com/trousseau-io/trousseau/blob/main/docs/install.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

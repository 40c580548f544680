# SPDX-License-Identifier: Apache-2.0
#
# Packages the binaries compiled by test/image/build. The context is the directory
# with one file tree for each platform and variant. There is no RUN, so that any
# platform can build the images of all.
FROM scratch

ARG TARGETARCH
ARG VARIANT=""
COPY ${TARGETARCH}${VARIANT}/ /

# A number, because there is no /etc/passwd and kubelet's runAsNonRoot needs one.
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

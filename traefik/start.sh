#!/bin/sh
# Starts Traefik with what Compose cannot put together: the networks of TRUSTED_PROXIES, names among
# them spelt out. What others say of a request's origin is dropped; without any, what everybody says.
set -eu

networks=
IFS=,
for one in ${TRUSTED_PROXIES:-}; do
    [ "$one" != cloudflare ] || one=$TRUSTED_PROXIES_CLOUDFLARE
    networks=$networks${networks:+,}$one
done
export TRUSTED_PROXIES="$networks"
if [ -n "$networks" ]; then
    export TRAEFIK_ENTRYPOINTS_WEBSECURE_FORWARDEDHEADERS_TRUSTEDIPS="$networks"
fi
exec traefik

#!/bin/sh
# Starts Traefik with what Compose cannot put together.
set -eu

# The networks of TRUSTED_PROXIES, names among them spelt out. What others say of a request's origin
# is dropped; without any, what everybody says.
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

# Certificates by DNS-01 instead of HTTP-01; Traefik finds the variables of the DNS provider in its
# environment, and nobody else does.
if [ -n "${ACME_DNS_PROVIDER:-}" ]; then
    unset TRAEFIK_CERTIFICATESRESOLVERS_ACME_ACME_HTTPCHALLENGE_ENTRYPOINT
    export TRAEFIK_CERTIFICATESRESOLVERS_ACME_ACME_DNSCHALLENGE_PROVIDER="$ACME_DNS_PROVIDER"
    for file in /run/dns/*; do
        name=${file##*/}
        case $name in
            [!A-Z]* | *[!A-Z0-9_]*) ;;
            *) export "$name=$(cat "$file")" ;;
        esac
    done
# Or by TLS-ALPN-01, where only port 443 leads here.
elif [ -n "${BEHIND:-}" ]; then
    unset TRAEFIK_CERTIFICATESRESOLVERS_ACME_ACME_HTTPCHALLENGE_ENTRYPOINT
    export TRAEFIK_CERTIFICATESRESOLVERS_ACME_ACME_TLSCHALLENGE=true
fi
exec traefik

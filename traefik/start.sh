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
# begins: how all addresses of an IPv6 network begin. Others may begin so, too: that harms less.
begins() {
    case $1 in */*) bits=${1#*/} ;; *) bits=128 ;; esac
    rest=${1%/*}:
    start=
    while [ "$bits" -ge 16 ] && [ "${rest#:}" = "$rest" ] && [ -n "${rest#*:}" ]; do
        start=$start${rest%%:*}:
        rest=${rest#*:}
        bits=$((bits - 16))
    done
    group=${rest%%:*}
    case $1 in ::*) start=: ;; esac
    [ ${#group} != 4 ] || start=$start$(printf "%.$((bits / 4))s" "$group")
    echo "$start"
}
proxies=
for one in $networks; do
    case $one in *:*) proxies="$proxies|$(begins "$one")" ;; esac
done
export TRUSTED_PROXIES_IPV6="${proxies#|}"
if [ -n "$networks" ]; then
    export TRAEFIK_ENTRYPOINTS_WEBSECURE_FORWARDEDHEADERS_TRUSTEDIPS="$networks"
fi
# Those who pass connections on say by the PROXY protocol whose they are.
if [ -n "${PROXY_PROTOCOL:-}" ]; then
    export TRAEFIK_ENTRYPOINTS_WEB_PROXYPROTOCOL_TRUSTEDIPS="$PROXY_PROTOCOL"
    export TRAEFIK_ENTRYPOINTS_WEBSECURE_PROXYPROTOCOL_TRUSTEDIPS="$PROXY_PROTOCOL"
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

# What `make trust` made, certificate and key in one.
certificate=/certificates/localhost.pem
if [ -s "$certificate" ]; then
    export LOCALHOST_CERTIFICATE="$certificate"
fi
exec traefik

#!/bin/sh
# Starts a Traefik that orders no certificates, but has those that the service `acme` has ordered: the
# last ones that it was given are in a volume of this machine's.
set -eu

follow() {
    while sleep 2; do
        timeout 10 nc -w 5 acme 8079 < /dev/null > new || continue
        # A store that is there to its end, and has certificates.
        [ "$(tail -n 1 new)" = "}" ] && grep -q '"certificate":' new || continue
        if cmp -s new copy.json && [ -f certificates.yaml ]; then continue; fi
        mv new copy.json
        { echo tls: && echo "  certificates:"; } > certificates.new
        sed -n 's/^ *"\(certificate\|key\)": "\(.*\)",*$/\1 \2/p' copy.json | while read -r what text; do
            case $what in
                certificate) echo "    - certFile: |" ;;
                key) echo "      keyFile: |" ;;
            esac
            echo "$text" | base64 -d | sed 's/^/        /'
        done >> certificates.new
        mv certificates.new certificates.yaml
        until traefik healthcheck > /dev/null 2>&1; do sleep 1; done # before, a signal would end it
        kill -HUP $$ # Traefik, which has taken this shell's place: it reads its files again
    done
}

cd /etc/traefik/dynamic/certificates
umask 077
if [ -n "${TLS_CERTIFICATE:-}" ]; then
    rm -f certificates.yaml
else
    follow 2> /dev/null &
fi
exec sh /start.sh

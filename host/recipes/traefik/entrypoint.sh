#!/bin/sh
set -e

# Flags, and Traefik's own commands, need no program named before them.
case ${1:-} in
    -* | healthcheck | version) set -- traefik "$@" ;;
esac
exec "$@"

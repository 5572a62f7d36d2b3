#!/bin/sh
set -e

# Flags need no program named before them, and haproxy stays in the foreground with a master.
case ${1:-} in
    -*) set -- haproxy "$@" ;;
esac
if [ "${1:-}" = haproxy ]; then
    shift
    set -- haproxy -W -db "$@"
fi
exec "$@"

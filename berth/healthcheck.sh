#!/usr/bin/env bash
# The container's health check, without an interpreter to start: 0 when this replica is ready.
#
# A server that accepts a connection and then says nothing for so long is hung (its loop is blocked,
# its GIL is held, or it is frozen), and nothing inside it can help: it is killed and the restart
# policy brings it back. SIGABRT comes first, at which it logs a traceback of every thread.
exec 2> /dev/null

silence_seconds=12

# Docker asks often until this replica was ready once: less so if that takes over a minute.
rest() {
    read -r now _ < /proc/uptime
    read -ra first < /proc/1/stat
    ((${now%.*} - first[21] / 100 < 60)) || sleep 7
}
trap '(($? == 0)) || rest' EXIT

exec {server}<> /dev/tcp/127.0.0.1/8000 || exit 1 # it does not listen yet, or no more
printf 'GET /readyz HTTP/1.0\r\n\r\n' >&"$server"
if read -r -t $silence_seconds -u "$server" _ status _; then
    [[ $status == 200 ]] && exit 0
    tail -n 1 <&"$server" # the reason, for `docker inspect`
elif (($? > 128)); then # nothing came, not even an end
    kill -s ABRT -- -1 # every process of this container but its init
    sleep 1
    kill -s KILL -- -1
fi
exit 1

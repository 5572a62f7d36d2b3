#!/usr/bin/env bash
# The container's health check, without an interpreter to start: 0 when this replica is ready.
#
# A server that accepts a connection and then says nothing is hung (its loop is blocked, its GIL is
# held, or it is frozen), and nothing inside it can help. The third time running, it is killed and
# the restart policy brings it back: SIGABRT first, at which it logs a traceback of every thread.
exec 2> /dev/null

unanswered=/tmp/unanswered-checks
times=$(<$unanswered)
echo $((times + 1)) > $unanswered # before asking: Docker may end this check at its time-out

if exec {server}<> /dev/tcp/127.0.0.1/8000; then
    printf 'GET /readyz HTTP/1.0\r\n\r\n' >&"$server"
    if read -r -t 3 -u "$server" _ status _; then
        rm $unanswered
        [[ $status == 200 ]] && exit 0
        tail -n 1 <&"$server" # the reason, for `docker inspect`
        exit 1
    fi
    if ((times >= 2)); then
        kill -s ABRT -- -1 # every process of this container but its init
        sleep 1
        kill -s KILL -- -1
    fi
else
    rm $unanswered # it does not listen yet, or no more
fi
exit 1

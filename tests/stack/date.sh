#!/bin/sh
# date, of a clock that is wrong by as many seconds as /tmp/wrong says.
if [ "$*" = +%s ]; then
    echo $(($(/usr/bin/date +%s) + $(cat /tmp/wrong 2> /dev/null || echo 0)))
else
    exec /usr/bin/date "$@"
fi

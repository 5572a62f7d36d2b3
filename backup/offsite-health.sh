#!/bin/sh
# The health check of the offsite service: one sentence, and a failure when copies do not arrive.
if [ -s /tmp/alarm ]; then
    echo "the copy off the host fails: $(cut -c 1-500 /tmp/alarm)"
    exit 1
fi
if [ ! -s /tmp/copied ]; then
    echo 'the first copy off the host is under way'
    exit 0
fi
age=$(($(date +%s) - $(cat /tmp/copied)))
if [ "$age" -lt -600 ] || [ "$age" -gt $((EVERY_SECONDS * 3 + 3600)) ]; then
    echo "the last copy off the host is $((age / 60)) min old"
    exit 1
fi
echo "copied off the host $((age / 60)) min ago"

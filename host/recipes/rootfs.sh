#!/bin/sh
# Lays out in /rootfs what busybox and Alpine images have: busybox, certificates, time zones, and the
# given programs with the libraries that they load. No bash, no Python, no package manager.
set -eu

# put FOLDER FILE...: copy what links lead to, under the names that they have here.
put() {
    folder=$1
    shift
    mkdir -p "/rootfs/$folder"
    cp --dereference "$@" "/rootfs/$folder/"
}

mkdir -p /rootfs/bin /rootfs/etc /rootfs/home /rootfs/root /rootfs/run /rootfs/usr/share/berth /rootfs/var/tmp
ln -s ../bin /rootfs/usr/bin
ln -s bin /rootfs/sbin
ln -s ../run /rootfs/var/run
mkdir -m 1777 /rootfs/tmp

put bin /bin/busybox "$@"
for applet in $(busybox --list); do
    [ -e "/rootfs/bin/$applet" ] || ln -s busybox "/rootfs/bin/$applet"
done
# Also what getaddrinfo loads by itself.
for library in $(ldd "$@" 2> /dev/null | grep --only-matching '/[^ ]*' | grep -v ':$') \
    /lib/*-linux-gnu/libnss_dns.so.2 /lib/*-linux-gnu/libnss_files.so.2; do
    put "$(dirname "$library")" "$library"
done

put etc /etc/services /etc/protocols
echo 'hosts: files dns' > /rootfs/etc/nsswitch.conf
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' > /rootfs/etc/passwd
printf 'root:x:0:\nnobody:x:65534:\n' > /rootfs/etc/group
put etc/ssl/certs /etc/ssl/certs/ca-certificates.crt
ln -s certs/ca-certificates.crt /rootfs/etc/ssl/cert.pem
cp -r /usr/share/zoneinfo /rootfs/usr/share/

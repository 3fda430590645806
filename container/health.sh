#!/bin/bash
# Exit code 0 if the server of this container is ready. It runs every 30 seconds and starts no Python,
# unless the server speaks TLS or a file has its settings, which bash cannot read.
if [ -n "${DRAGOMAN_TLS_CERTIFICATE:-}${DRAGOMAN_CONFIG:-}" ] || [ -e dragoman.toml ]; then
    exec dragoman health
fi
host=${DRAGOMAN_HOST:-127.0.0.1}
case $host in
    0.0.0.0) host=127.0.0.1 ;;
    ::) host=::1 ;;
esac
exec 3<> "/dev/tcp/$host/${DRAGOMAN_PORT:-8000}" || exit 1
printf 'GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r -t 5 _ status _ <&3
[ "$status" = 200 ]

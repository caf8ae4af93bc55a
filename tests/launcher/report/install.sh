#!/bin/sh
# Installs a browser for the tests of pages, where none is and this user may; otherwise says what to do and goes on.
set -u
for program in chromium chromium-browser google-chrome; do
    command -v "$program" >/dev/null 2>&1 && exit 0
done

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "No Chromium is installed, and the tests of pages are skipped: apt-get install chromium (Debian, Ubuntu)"
    exit 0
fi

echo "installing chromium: the tests look at pages as a reader does"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install --yes --no-install-recommends chromium fonts-dejavu-core >"$log" 2>&1; }
install || { apt-get update >"$log" 2>&1 && install; } || {
    tail -n 5 "$log"
    echo "could not install chromium; the tests that need it are skipped"
}
exit 0

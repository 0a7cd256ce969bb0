# shellcheck shell=bash
# An emulated machine built from Debian packages, for tests that need another kernel or other hardware.
# Sourced by tests/ktls/run, tests/numa/run and tests/router/run, which set
#
#   work          the folder for unpacked packages: $work/root
#   tree          the folder that becomes the machine's only file system, as $tree.gz
#   log           the file for the output of the console
#   seconds_max   the time limit in seconds
: "${work:?}" "${tree:?}" "${log:?}" "${seconds_max:?}"

# require HOW PROGRAM...: exits if one of these programs is missing, with the command that builds
# it.
require() {
    local program
    for program in "${@:2}"; do
        [[ -x $program ]] || { echo "$program is missing: run $1"; exit 2; }
    done
}

# unpack PACKAGE...: downloads these and their dependencies. Unpacks without installing, so that the
# programs of this machine, such as its own qemu, stay unchanged.
unpack() {
    mkdir -p "$work"/{packages/partial,root}
    apt-get install -qq -y --no-install-recommends --download-only --reinstall \
        -o Dir::Cache::archives="$work/packages" "$@" >/dev/null
    local package
    for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work/root"; done
}

# begin_tree BUSYBOX: starts a new file system with what every init needs.
begin_tree() {
    rm -rf "$tree"
    mkdir -p "$tree"/{bin,proc,sys,dev}
    cp "$1" "$tree/bin/"
}

# copy_libraries PROGRAM...: adds the libraries of these programs.
copy_libraries() {
    local library
    for library in $(ldd "$@" | grep -o '\s/[^ ]*' | sort -u); do
        mkdir -p "$tree$(dirname "$library")"
        cp -L "$library" "$tree$library"
    done
}

# end_tree INIT: adds the init program, and packs the file system.
end_tree() {
    cp "$1" "$tree/init"
    chmod +x "$tree/init"
    (cd "$tree" && find . | "$work/root/bin/busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$tree.gz"
}

# exec_machine QEMU OPTION...: replaces the process by the machine. Called as `(exec_machine …)` or
# in the background, where $! is then the machine's process.
exec_machine() {
    LD_LIBRARY_PATH="$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu" \
        exec timeout "$seconds_max" "$work/root/usr/bin/$1" \
        -L "$work/root/usr/share/qemu" -L "$work/root/usr/share/seabios" \
        -nodefaults -no-reboot -display none -serial stdio -initrd "$tree.gz" "${@:2}" \
        </dev/null >"$log" 2>&1
}

# show_verdict: prints the output of init from its first line with `==`; exits with an error if init
# did not report success.
show_verdict() {
    sed -n '/^== /,$p' "$log" | tr -d '\r'
    grep -q '^== all passed' "$log" || { echo "see $log"; exit 1; }
}

# shellcheck shell=bash
# An emulated machine from Debian's packages, for tests that need another kernel or other hardware than
# they run on. tests/ktls/run, tests/numa/run and tests/router/run source this, having said
#
#   work          the folder for what is unpacked: $work/root
#   tree          what becomes the machine's only file system, as $tree.gz
#   log           where its console goes
#   seconds_max   after how many seconds it is ended
: "${work:?}" "${tree:?}" "${log:?}" "${seconds_max:?}"

# require HOW PROGRAM...: ends the test where one of these is not there, and says how to make it.
require() {
    local program
    for program in "${@:2}"; do
        [[ -x $program ]] || { echo "$program is missing: $1"; exit 2; }
    done
}

# unpack PACKAGE...: gets these and what they need. Unpacked, not installed: what this machine has, such
# as a qemu of its own, stays as it is.
unpack() {
    mkdir -p "$work"/{packages/partial,root}
    apt-get install -qq -y --no-install-recommends --download-only --reinstall \
        -o Dir::Cache::archives="$work/packages" "$@" >/dev/null
    local package
    for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work/root"; done
}

# begin_tree BUSYBOX: the file system anew, with what every init needs.
begin_tree() {
    rm -rf "$tree"
    mkdir -p "$tree"/{bin,proc,sys,dev}
    cp "$1" "$tree/bin/"
}

# copy_libraries PROGRAM...: adds the libraries that these programs name.
copy_libraries() {
    local library
    for library in $(ldd "$@" | grep -o '\s/[^ ]*' | sort -u); do
        mkdir -p "$tree$(dirname "$library")"
        cp -L "$library" "$tree$library"
    done
}

# end_tree INIT: adds the program that the kernel starts, and packs the file system.
end_tree() {
    cp "$1" "$tree/init"
    chmod +x "$tree/init"
    (cd "$tree" && find . | "$work/root/bin/busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$tree.gz"
}

# exec_machine QEMU OPTION...: becomes the machine. It is called as `(exec_machine …)` or in the
# background, where $! is then the machine's own process.
exec_machine() {
    LD_LIBRARY_PATH="$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu" \
        exec timeout "$seconds_max" "$work/root/usr/bin/$1" \
        -L "$work/root/usr/share/qemu" -L "$work/root/usr/share/seabios" \
        -nodefaults -no-reboot -display none -serial stdio -initrd "$tree.gz" "${@:2}" \
        </dev/null >"$log" 2>&1
}

# show_verdict: what the init said from its first line with `==` on; ends the test where it did not come
# to say that all is well.
show_verdict() {
    sed -n '/^== /,$p' "$log" | tr -d '\r'
    grep -q '^== all as it should be' "$log" || { echo "see $log"; exit 1; }
}

#!/usr/bin/env bash
# Makes the disk that every machine starts from, base.img in target/vm, or below it for another architecture, and its kernel
# and initrd: a Debian with systemd and containerd, from the mirror of this machine's apt sources, or MIRROR. Kept while this
# script is the same. Nothing stays mounted here, and no loop device is used.
set -eu -o pipefail
cd "$(dirname "$0")/../.."

fail() {
    echo "vm: $*" >&2
    exit 1
}

. tests/vm/architecture.sh
suite=bookworm
packages=systemd,systemd-sysv,dbus,containerd,runc,crun,containernetworking-plugins,apparmor,iproute2,iptables,procps,kmod
packages+=,sudo,docker-registry,busybox-static,linux-image-cloud-$architecture,initramfs-tools
# A disk, the tree that it is made of, and packages: 2 GB, and some air.
needed_megabytes=3000

stamp=$(cat "$0" tests/vm/architecture.sh | sha256sum; echo "${MIRROR:-}")
[ "$(cat "$out/base.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
mkdir -p "$out"
free=$(df --output=avail -m "$out" | tail -1)
[ "$free" -ge $needed_megabytes ] || fail "$((free)) MB are free in $out, the disk takes $needed_megabytes: make room"
mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' 2>/dev/null |
    awk -v suite=$suite '$2 == suite && $3 == "main" { print $1; exit }')}
mirror=${mirror:-http://deb.debian.org/debian/}

tree=$out/tree
clean_up() {
    rm -rf --one-file-system "$tree" "$out"/*.new
}
trap clean_up EXIT
trap 'exit 130' INT TERM
clean_up
rm -f "$out/base.stamp"

echo "vm: a Debian $suite for $architecture from $mirror, once"
# A foreign one is finished by its own programs, which QEMU runs: the kernel hears so, unless it knows, and forgets it with the
# mount.
bootstrap='debootstrap ${0:+--foreign} --variant=minbase --arch "$1" --include "$2" "$3" "$4" "$5"
[ -n "$0" ] || exit 0
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
[ -e "/proc/sys/fs/binfmt_misc/$0" ] || cat "/usr/lib/binfmt.d/$0.conf" >/proc/sys/fs/binfmt_misc/register
chroot "$4" /debootstrap/debootstrap --second-stage'
# Its mounts and processes end with it, also when it is interrupted.
timeout --kill-after=10 $((1200 * slowness)) unshare --mount --pid --fork --kill-child sh -ec "$bootstrap" \
    "$foreign" $architecture "$packages" $suite "$tree" "$mirror" >"$out/debootstrap.log" 2>&1 || {
    tail -5 "$out/debootstrap.log" "$tree/debootstrap/debootstrap.log" 2>/dev/null || true
    fail "debootstrap failed: $out/debootstrap.log; MIRROR=URL takes another mirror"
}

cp "$tree"/boot/vmlinuz-* "$out/vmlinuz.new"
cp "$tree"/boot/initrd.img-* "$out/initrd.new"
rm -rf "$tree"/boot/* "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/usr/share/{doc,man,locale}

# A host name that sudo can resolve, or it complains on stderr.
echo node >"$tree/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 node\n' >"$tree/etc/hosts"
cat >"$tree/etc/fstab" <<'TAB'
/dev/vda / ext4 defaults 0 0
/dev/vdb /vm ext4 defaults 0 0
TAB
mkdir -p "$tree/vm" "$tree/var/log/journal" "$tree/etc/systemd/journald.conf.d"
# To a terminal of its own as well, where it gets out of a machine that hangs.
printf '[Journal]\nStorage=persistent\nForwardToConsole=yes\nTTYPath=/dev/%s\nMaxLevelConsole=info\n' $journal \
    >"$tree/etc/systemd/journald.conf.d/vm.conf"
cat >"$tree/etc/systemd/system/scenario.service" <<UNIT
[Unit]
Description=the scenario of this machine
RequiresMountsFor=/vm
After=multi-user.target
[Service]
Type=exec
ExecStart=/vm/begin
StandardOutput=tty
StandardError=tty
TTYPath=/dev/$console
UNIT
units=$tree/etc/systemd/system
mkdir -p "$units/default.target.wants"
ln -s /lib/systemd/system/multi-user.target "$units/default.target"
ln -s ../scenario.service "$units/default.target.wants/scenario.service"
# The console is the scenario's, who starts containerd is too, and nothing runs by the clock.
rm "$units/multi-user.target.wants/containerd.service"
for unit in "serial-getty@$console.service" "serial-getty@$journal.service" getty@tty1.service docker-registry.service \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer dpkg-db-backup.timer \
    logrotate.timer man-db.timer; do
    ln -sf /dev/null "$units/$unit"
done

mke2fs -q -t ext4 -d "$tree" "$out/base.img.new" 4G >>"$out/debootstrap.log" 2>&1
mv "$out/vmlinuz.new" "$out/vmlinuz"
mv "$out/initrd.new" "$out/initrd"
mv "$out/base.img.new" "$out/base.img"
echo "$stamp" >"$out/base.stamp"

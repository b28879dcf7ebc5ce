# cricket under its systemd unit on Debian's containerd: the self-test with both cgroup drivers and with crun, and the unit
# itself.
. /vm/node.sh
install_node
expect "the unit" "$(systemctl show --property Type,ActiveState,SubState --value cricket | xargs)" "notify active running"

# What the unit says must not give cricket a mount namespace of its own, where nobody would see what it mounts.
pid=$(systemctl show --property MainPID --value cricket)
expect "cricket's mount namespace" "$(readlink "/proc/$pid/ns/mnt")" "$(readlink /proc/1/ns/mnt)"

until_true 60 "the AppArmor profile is there before the first container" \
    grep -q '^cricket-default ' /sys/kernel/security/apparmor/profiles
cricket selftest
# systemd's own word for it: on cgroup v2 below systemd, the driver is systemd's without being told.
journalctl --boot --output cat --no-pager | grep -q 'cri-containerd-.*\.scope\|libcontainer container' ||
    fail "systemd knows of no scope"
before=$(journalctl --boot --output cat --no-pager | grep -c 'libcontainer container')

mkdir -p /etc/cricket
echo 'cgroup_driver = "cgroupfs"' >/etc/cricket/config.toml
systemctl restart cricket
cricket selftest
after=$(journalctl --boot --output cat --no-pager | grep -c 'libcontainer container')
expect "the number of systemd's messages on containers" "$after" "$before"

# crun, and a word for each time that it is called.
printf '#!/bin/sh\necho "$@" >>/tmp/crun\nexec /usr/bin/crun "$@"\n' >/usr/local/bin/crun
chmod +x /usr/local/bin/crun
for driver in systemd cgroupfs; do
    printf 'cgroup_driver = "%s"\n[runtime.runc]\nbinary = "/usr/local/bin/crun"\n' $driver >/etc/cricket/config.toml
    systemctl restart cricket
    cricket selftest
    expect "the containers that crun made with the driver $driver" "$(grep -c ' create ' /tmp/crun)" 1
    rm /tmp/crun
done

systemctl stop cricket
expect "how it ended" "$(systemctl show --property Result,ExecMainStatus --value cricket | xargs)" "success 0"
nothing_failed

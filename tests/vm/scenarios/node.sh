# Tests of the node ring that read the kernel's files, on cgroup v2.
. /vm/node.sh
expect "the file system of /sys/fs/cgroup" "$(stat -fc %T /sys/fs/cgroup)" cgroup2fs
CRICKET_BIN=/vm/cricket node-tests --test-threads 2 metrics:: stats::
nothing_failed

# Tests of the node ring on cgroup v2, by parts of their names.
. /vm/node.sh
expect "the file system of /sys/fs/cgroup" "$(stat -fc %T /sys/fs/cgroup)" cgroup2fs
CRICKET_BIN=/vm/cricket node-tests --test-threads 2 $(cat /vm/node-tests)
nothing_failed

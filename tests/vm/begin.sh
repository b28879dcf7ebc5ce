#!/bin/bash
# Runs inside the machine, as the only unit of ours that its disk knows: runs the scenario, writes the verdict, and powers
# off. A scenario that ends with 100 wants a reboot, and is run again after it with the number of the boot.
set -u
boot=$(cat /vm/out/boots 2>/dev/null || echo 0)
boot=$((boot + 1))
echo $boot >/vm/out/boots
sync /vm/out/boots
status=0
/bin/bash -eu -o pipefail /vm/scenario.sh $boot || status=$?
journalctl --unit cricket --output cat --no-pager >/vm/out/cricket.log
journalctl --unit containerd --output cat --no-pager >/vm/out/containerd.log
case $status in
0) echo passed >/vm/out/verdict ;;
100) ;;
*) echo "failed with $status" >/vm/out/verdict ;;
esac
sync
if [ $status = 100 ]; then
    systemctl --no-block reboot
else
    systemctl --no-block poweroff
fi

# critest in full, cgroups made by the OCI runtime, AppArmor on.
driver=cgroupfs
. /vm/critest.sh

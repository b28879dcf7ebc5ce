# critest in full, cgroups made by systemd, AppArmor on.
driver=systemd
. /vm/critest.sh

# What a machine is, by its architecture, which is $TARGET's: sourced. Sets $architecture as Debian calls it, $out, the command
# $qemu, the terminals of the machine ($console says how far it is, $journal is the journal's), and $foreign, the emulator of
# its programs where this machine cannot run them.
case ${TARGET:?is set by make} in
x86_64-*)
    architecture=amd64 console=ttyS0 journal=ttyS1 slowness=1
    qemu=(qemu-system-x86_64 -cpu max)
    ;;
aarch64-*)
    # One serial port is all that this board has.
    architecture=arm64 console=ttyAMA0 journal=hvc0 slowness=3
    qemu=(qemu-system-aarch64 -machine virt -cpu cortex-a72)
    ;;
*)
    fail "no machine for TARGET=$TARGET: x86_64 or aarch64"
    ;;
esac
foreign=
[ "$(dpkg --print-architecture)" = $architecture ] || foreign=qemu-${TARGET%%-*}
out=$PWD/target/vm
[ $architecture = amd64 ] || out=$out/$architecture

# ports CONSOLE JOURNAL: the arguments that bring both terminals out into files.
ports() {
    ports=(-serial "file:$1")
    case $journal in
    ttyS1) ports+=(-serial "file:$2") ;;
    hvc0) ports+=(-device virtio-serial-pci -chardev "file,id=journal,path=$2" -device virtconsole,chardev=journal) ;;
    esac
}

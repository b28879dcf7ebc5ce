#!/usr/bin/env bash
# Builds the images that critest asks for, from Debian's sources and packages, into target/conformance/images: one archive
# for `cricket import` and `ctr images import`, and the blobs that are pushed to the registry on loopback. What was built
# by the same files is kept. What each image must contain is in the table of modules/conform/table.go.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$here/../.." && pwd)/target/conformance
images=$out/images
conform=$out/bin/conform

# Packs the trees, if that was not done; the end of this script.
pack() {
    local stamp
    stamp=$(cat "$images/trees.stamp" "$here"/modules/conform/{images,table}.go | sha256sum)
    [ "$(cat "$images/stamp" 2>/dev/null)" = "$stamp" ] && exit 0
    rm -rf "$images/blobs"
    "$conform" images "$images/trees" "$images"
    echo "$stamp" >"$images/stamp"
    exit 0
}

stamp=$(cat "$here/images.sh" "$here"/images/* | sha256sum)
[ "$(cat "$images/trees.stamp" 2>/dev/null)" = "$stamp" ] && pack
echo "conformance: building the images"
rm -rf "$images"
mkdir -p "$images/trees" "$images/work/sources.d" "$images/work/lists/partial"
cd "$images/work"
trees=$images/trees
log=$images/log

fail() {
    cat "$log"
    echo "conformance: $*" >&2
    exit 1
}

# Debian's sources, from wherever this machine takes its packages.
fetch_source() {
    apt-get indextargets --format 'deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
        grep ' main$' >sources.list
    options=(-o "Dir::Etc::SourceList=$PWD/sources.list" -o "Dir::Etc::SourceParts=$PWD/sources.d"
        -o "Dir::State::Lists=$PWD/lists" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    apt-get "${options[@]}" source "$1"
}

# busybox with the applets that are listed, static, each a hard link of its own: a path that is masked masks no other. Its
# shell starts programs instead of running applets inside itself, and its users come from the files of the image.
busybox() {
    cd busybox-*/
    make defconfig
    grep -rhoE '^//applet:IF_[A-Z0-9_]+\(APPLET[A-Z_]*\([a-z0-9_-]+' --include='*.c' . |
        sed -E 's,^//applet:IF_([A-Z0-9_]+)\(APPLET[A-Z_]*\((.*),\1 \2,' >../known
    awk 'NR == FNR { for (i = 1; i <= NF; i++) wanted[$i]; next }
        { all[$1]; if ($2 in wanted) keep[$1] }
        END { for (name in all) if (!(name in keep)) print "s/^CONFIG_" name "=y/# CONFIG_" name " is not set/" }' \
        "$here/images/applets" ../known >../off.sed
    printf 's/^# CONFIG_%s is not set/CONFIG_%s=y/\n' STATIC STATIC USE_BB_PWD_GRP USE_BB_PWD_GRP >>../off.sed
    sed -i -f ../off.sed .config
    # `yes` ends by SIGPIPE.
    { yes '' || true; } | make oldconfig
    grep -q '^# CONFIG_FEATURE_SH_STANDALONE is not set' .config
    make -j"$(nproc)" busybox
    tree=$trees/busybox
    mkdir -p $tree/{bin,etc,home,root,proc,sys,dev,var/run,usr/bin,tmp,www}
    chmod 1777 $tree/tmp
    install -m 755 busybox $tree/bin/busybox
    for applet in '[' $(./busybox --list); do
        ln -f $tree/bin/busybox "$tree/bin/$applet"
    done
    cd ..
    printf '%s\n' root:x:0:0:root:/root:/bin/sh www-data:x:33:33:www-data:/var/www:/bin/false \
        nobody:x:65534:65534:nobody:/nonexistent:/bin/false >$trees/busybox/etc/passwd
    printf '%s\n' root:x:0: www-data:x:33: nogroup:x:65534: >$trees/busybox/etc/group
    echo '<html><body>It works</body></html>' >$trees/busybox/www/index.html
}

# Debian's nginx with its libraries; one tree on port 80, one on port 12003.
nginx() {
    mkdir -p debs "$trees"/nginx
    (cd debs && apt-get -o APT::Sandbox::User=root download nginx nginx-common libc6 libcrypt1 libpcre2-8-0 libssl3 zlib1g)
    for package in debs/*.deb; do
        dpkg-deb -x "$package" "$trees"/nginx
    done
    # Only what it needs to run.
    rm -rf "$trees"/nginx/usr/share/{doc,man,lintian,locale,i18n} "$trees"/nginx/etc/{init.d,logrotate.d,ufw,default}
    rm -rf "$trees"/nginx/{,usr/}lib/*/gconv "$trees"/nginx/usr/lib/locale
    mkdir -p "$trees"/nginx/var/{run,log/nginx,lib/nginx}
    cat >$trees/nginx/etc/nginx/nginx.conf <<'CONF'
user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 64; }
http {
    access_log /dev/stdout;
    server { listen PORT; root /usr/share/nginx/html; }
}
CONF
    cp -a "$trees"/nginx "$trees"/hostnet-nginx
    sed -i 's/PORT/80/' "$trees"/nginx/etc/nginx/nginx.conf
    sed -i 's/PORT/12003/' "$trees"/hostnet-nginx/etc/nginx/nginx.conf
}

small() {
    mkdir -p "$trees"/{pause,nonewprivs,predefined-group/etc}
    gcc -Os -s -static -o "$trees"/pause/pause "$here/images/pause.c"
    gcc -Os -s -static -o "$trees"/nonewprivs/nnp "$here/images/nonewprivs.c"
    chmod 4755 "$trees"/nonewprivs/nnp
    cp "$trees"/busybox/etc/{passwd,group} "$trees"/predefined-group/etc/
    echo default-user:x:1000:1000:default-user:/home:/bin/sh >>$trees/predefined-group/etc/passwd
    printf '%s\n' default-user:x:1000: group-defined-in-image:x:50000:default-user >>$trees/predefined-group/etc/group
}

fetch_source busybox >"$log" 2>&1 ||
    fail "the source of busybox cannot be had; as root: apt-get install --no-install-recommends -y dpkg-dev"
# In a shell of its own each: `set -e` does not hold on the left of `||`.
for part in busybox nginx small; do
    export here trees; export -f "$part"
    bash -eu -o pipefail -c "$part" >>"$log" 2>&1 || fail "the images did not build ($part)"
done
rm -rf "$images/work"
echo "$stamp" >"$images/trees.stamp"
pack

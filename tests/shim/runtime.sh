#!/bin/sh
# An OCI runtime for tests: what is a process here is a shell script. A file `<verb>.fail` or `<verb>.hang` beside the
# state makes that verb do so; `<verb>.wait` holds it up as long as it is there; `<verb>.rubbish` makes it succeed without
# having done anything.
set -eu
while :; do
    case $1 in
        --root) root=$2; shift 2 ;;
        --log) log=$2; shift 2 ;;
        --log-format) shift 2 ;;
        *) break ;;
    esac
done
verb=$1
shift
pid_file= bundle= process=
while [ $# -gt 1 ]; do
    case $1 in
        --pid-file) pid_file=$2; shift 2 ;;
        --bundle) bundle=$2; shift 2 ;;
        --process) process=$2; shift 2 ;;
        --resources) resources=$2; shift 2 ;;
        *) shift ;;
    esac
done
id=$1
state=$root/$id
if [ -e "$root/$verb.hang" ]; then
    echo "$verb is thinking" >>"$log"
    exec sleep 1000
fi
while [ -e "$root/$verb.wait" ]; do sleep 0.01; done
if [ -e "$root/$verb.fail" ]; then
    echo '{"level":"error","msg":"told to fail"}' >>"$log"
    exit 1
fi
[ ! -e "$root/$verb.rubbish" ] || exit 0
case $verb in
    create)
        mkdir "$state"
        mkfifo "$state/start"
        # A shell gives what it starts in the background no input, unless it is told where that is.
        exec 3<&0
        sh -c 'read go <"$1/start"; exec sh "$2/config.json"' sh "$state" "$bundle" <&3 3<&- &
        echo $! >"$state/pid"
        printf %s $! >"$pid_file"
        ;;
    start) echo go >"$state/start" ;;
    exec)
        # Read now: the file goes when we are done.
        script=$(cat "$process")
        sh -c "$script" &
        printf %s $! >"$pid_file"
        ;;
    delete)
        kill -9 "$(cat "$state/pid")" 2>/dev/null || :
        rm -r "$state"
        ;;
    update) cp "$resources" "$state/resources" ;;
    pause | resume) echo "$verb" >>"$state/frozen" ;;
esac

#!/bin/sh
# refuse_serialized_wgmma.sh COMPILER ARGS...: a compiler launcher. ptxas reports only as "info" that it serialized wgmma
# (C7510 to C7520: a thirtieth of the speed) or ignored setmaxnreg (C7508), and -Werror ignores an info. This script
# fails the build in these cases.
output=$("$@" 2>&1)
status=$?
[ -z "$output" ] || printf '%s\n' "$output" >&2
case "$output" in
*"(C75"*)
  echo "error: the message (C75..) above is an error here" >&2
  while [ $# -gt 0 ]; do
    [ "$1" = -o ] && rm -f "$2"
    shift
  done
  exit 1
  ;;
esac
exit $status

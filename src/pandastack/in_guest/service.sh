# Keeps a template's service running: starts its command again whenever it ends, after 1, 2, 4, ... 30 seconds.
# It gives up after ten ends in a row that came within a minute of their start. Its words go to the service's log.
# usage: service.sh COMMAND. A signal that ends it reaches the command too: both are in one process group.
trap : HUP USR1 USR2 # those are for the program
seconds() { read -r up _ </proc/uptime; now=${up%%.*}; }
pause=1 quick=0
while :; do
  seconds; began=$now
  sh -c "$1"; status=$?
  seconds
  if [ $((now - began)) -ge 60 ]; then pause=1 quick=0; fi
  quick=$((quick + 1))
  if [ $quick -ge 10 ]; then
    echo "[service ended with status $status; given up: $quick ends in a row, each within a minute]" >&2
    exit $((status ? status : 1))
  fi
  echo "[service ended with status $status; it is started again in $pause s]" >&2
  sleep $pause
  pause=$((pause < 15 ? pause * 2 : 30))
done

# Starts the kernels' server unless it runs, and waits until it serves. Exit status 3: this template has no Python.
cd / && command -v python3 >/dev/null || exit 3
exec 9>/run/pandastack/kernels.lock && flock 9 || exit 1
socket=/run/pandastack/kernels.sock server=/usr/lib/pandastack/kernels/server.py
if ! python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' $socket 2>/dev/null; then
  rm -f $socket
  setsid python3 $server </dev/null >/run/pandastack/kernels.log 2>&1 9>&- &
  until [ -S $socket ]; do
    kill -0 $! 2>/dev/null || { cat /run/pandastack/kernels.log >&2; exit 1; }
    sleep 0.1
  done
fi

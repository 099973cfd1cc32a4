# Runs the server, as the user postgres, in the foreground. Makes an empty cluster first where there is none.
# usage: start.sh MEMORY_MB, which a new cluster's settings are for
set -eu
memory=$1
here=/usr/lib/pandastack/postgres
root=/var/lib/postgresql
data=$root/16/main
bin=/usr/lib/postgresql/16/bin
socket=/run/postgresql
as_postgres="setpriv --reuid=5432 --regid=5432 --clear-groups --no-new-privs"

make_cluster() {
  new=$data.new # renamed when it is complete: a boot in between begins again
  rm -rf "$new"
  $as_postgres $bin/initdb -D "$new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 --data-checksums \
    --auth-local=trust --auth-host=scram-sha-256
  sh /usr/lib/pandastack/postgres-control write-settings "$memory" "$new/pandastack.conf"
  cat $here/postgresql.conf > "$new/postgresql.conf"
  cat $here/pg_hba.conf > "$new/pg_hba.conf"
  $as_postgres $bin/postgres --single -D "$new" postgres < $here/cluster.sql
  sync
  mv "$new" "$data"
}

cd /
# The directory of the socket is closed to all but root and postgres: whoever opens it is trusted.
install -d -m 750 -o postgres -g postgres $socket
install -d -m 755 -o postgres -g postgres $root $root/16
[ -e $data/PG_VERSION ] || make_cluster
rm -f $socket/restart

# The server itself is the last that a full memory ends; what it does for clients is not spared.
echo -900 > /proc/self/oom_score_adj
export PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj PG_OOM_ADJUST_VALUE=0 LANG=C.UTF-8
while :; do
  # restore.py puts another database in the place of this one.
  while [ -e $socket/hold ]; do sleep 0.05; done
  status=0
  $as_postgres $bin/postgres -D $data || status=$?
  # postgres-control ends it when settings need that: no pause, as there is after an end that nobody wanted.
  [ -e $socket/restart ] || [ -e $socket/hold ] || exit $status
  rm -f $socket/restart
done

# Runs the server, as the user postgres, in the foreground. Makes an empty cluster first where there is none.
# usage: start.sh MEMORY_MB, which a new cluster's settings are for
set -eu
memory=$1
here=/usr/lib/pandastack/postgres
root=/var/lib/postgresql
data=$root/16/main
bin=/usr/lib/postgresql/16/bin
socket=/run/postgresql
spare=$root/spare
full=$socket/full.conf # PostgreSQL reads it, if it is there
spare_mb=128 least_mb=48 # room for eight files of the log; a disk with less than three of them counts as full
watcher=
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

free_mb() {
  set -- $(stat -f -c '%a %S' $root)
  echo $(($1 * $2 / 1048576))
}

take_spare() { # reserve the room, where there is enough
  [ ! -e $spare ] || return 0
  [ "$(free_mb)" -ge $((spare_mb + least_mb)) ] || return 1
  rm -f $spare.new
  fallocate -l ${spare_mb}M $spare.new && chmod 600 $spare.new && mv $spare.new $spare
}

watch_room() { # clients that know nothing of it write nothing until there is room again
  until take_spare; do sleep 2; done
  rm -f $full
  if read -r pid < $data/postmaster.pid; then kill -HUP "$pid"; fi
}

prepare_room() { # before each start of the server
  if take_spare; then rm -f $full; return; fi
  echo 'default_transaction_read_only = on' > $full.new
  chmod 644 $full.new
  mv $full.new $full
  [ -z "$watcher" ] || return 0
  watch_room 2> /dev/null &
  watcher=$!
}

give_spare() { # to a server that could not write its log: it needs room to recover
  [ $status -ne 0 ] && [ -e $spare ] && [ "$(free_mb)" -lt $least_mb ] || return 1
  rm -f $spare
  watcher=
  echo "start.sh: the disk is full: the server gets the last $spare_mb MiB, and is read-only until there is room" >&2
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
  prepare_room
  status=0
  $as_postgres $bin/postgres -D $data || status=$?
  # postgres-control ends it when settings need that: no pause, as there is after an end that nobody wanted.
  if [ -e $socket/restart ] || [ -e $socket/hold ] || give_spare; then
    rm -f $socket/restart
    continue
  fi
  [ -z "$watcher" ] || kill $watcher 2> /dev/null || true
  exit $status
done

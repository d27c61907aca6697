-- The roles and the database of one service. To be run by an operator, as often as wanted, with nothing but
-- CREATEROLE and CREATEDB (a managed PostgreSQL gives no more):
--
--   psql postgresql://operator@host/postgres -f roles.sql \
--     -v service=app -v database=app \
--     -v migrator_password=... -v service_password=... -v system_password=... \
--     -v provisioner_password=... -v backup_password=...
--
-- No password has a default. `provisioner_password` is for services that make schemas and databases of tenants;
-- without it there is no such role. Without `backup_password` the backup role cannot log in.
--
--   <service>_owner        owns every object, cannot log in
--   <service>_migrator     member of the owner, runs the migrations
--   <service>_provisioner  member of the owner with CREATEDB, makes schemas and databases of tenants
--   <service>_service      serves requests, under row level security
--   <service>_system       relays, workers of many tenants, purge: policies of its own, a connection of its own
--   tenantry_backup        reads everything, shared by all services
--
-- tenantry.database.create_service_database() executes this same file; it understands \set, \gset, \gexec, \if, \else,
-- \endif, \connect and \ir, and one statement ends with a semicolon at the end of a line.
\set ON_ERROR_STOP on

SELECT :'service' || '_owner' AS owner,
       :'service' || '_migrator' AS migrator,
       :'service' || '_provisioner' AS provisioner,
       :'service' || '_service' AS service_role,
       :'service' || '_system' AS system_role,
       'tenantry_backup' AS backup \gset

-- Two operators at once would fail on the same role; the second waits. The lock goes with the connection.
SELECT pg_advisory_lock(hashtextextended('tenantry.roles', 0));

SELECT format('CREATE ROLE %I NOLOGIN', name)
  FROM unnest(ARRAY[:'owner', :'migrator', :'service_role', :'system_role', :'backup']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

GRANT :"owner" TO :"migrator";
ALTER ROLE :"migrator" LOGIN PASSWORD :'migrator_password';
-- A migration that cannot get its lock gives way instead of queueing every request behind itself.
ALTER ROLE :"migrator" SET lock_timeout = '10s';

ALTER ROLE :"service_role" LOGIN PASSWORD :'service_password';
ALTER ROLE :"service_role" SET statement_timeout = '30s';
ALTER ROLE :"service_role" SET idle_in_transaction_session_timeout = '30s';
-- No path before a tenant is bound: an unqualified name then fails instead of finding some schema's table.
ALTER ROLE :"service_role" SET search_path = '';

ALTER ROLE :"system_role" LOGIN PASSWORD :'system_password';
ALTER ROLE :"system_role" SET statement_timeout = '10min';
ALTER ROLE :"system_role" SET idle_in_transaction_session_timeout = '2min';
ALTER ROLE :"system_role" SET search_path = pool;

\if :{?provisioner_password}
SELECT format('CREATE ROLE %I NOLOGIN', :'provisioner')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'provisioner') \gexec
GRANT :"owner" TO :"provisioner";
ALTER ROLE :"provisioner" LOGIN CREATEDB PASSWORD :'provisioner_password';
ALTER ROLE :"provisioner" SET lock_timeout = '10s';
\endif

\if :{?backup_password}
ALTER ROLE :"backup" LOGIN PASSWORD :'backup_password';
\endif
-- Once and not each time: another service's operator may have made this role, and only its maker may change it.
SELECT format('ALTER ROLE %I SET default_transaction_read_only = on', :'backup')
 WHERE NOT EXISTS (SELECT FROM pg_db_role_setting
                    WHERE setrole = CAST(:'backup' AS regrole) AND setdatabase = 0
                      AND 'default_transaction_read_only=on' = ANY (setconfig)) \gexec

-- Only a member of the owner may make a database of the owner.
GRANT :"owner" TO CURRENT_USER;
SELECT format('CREATE DATABASE %I OWNER %I TEMPLATE template0 ENCODING ''UTF8''', :'database', :'owner')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec

\ir database.sql

-- What every database of a service allows and to whom: included by roles.sql for the service's own database, executed
-- by the provisioner for the database of a tenant. It expects the variables `database`, `owner`, `migrator`,
-- `service_role`, `system_role` and `backup`, and a member of the owner.
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"migrator", :"service_role", :"system_role", :"backup";
-- Bulk writes go through temporary tables, because COPY into a table under row level security is refused.
GRANT TEMPORARY ON DATABASE :"database" TO :"service_role", :"system_role";
\if :{?provisioner_password}
GRANT CONNECT ON DATABASE :"database" TO :"provisioner";
\endif

\connect :"database"
SET ROLE :"owner";
REVOKE ALL ON SCHEMA public FROM PUBLIC;
RESET ROLE;

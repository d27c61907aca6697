-- As it should be: nothing is to be found.
CREATE ROLE {p}owner NOLOGIN;
CREATE ROLE {p}migrator LOGIN PASSWORD 'only-for-tests' IN ROLE {p}owner;
CREATE ROLE {p}app LOGIN PASSWORD 'only-for-tests';
ALTER ROLE {p}app SET statement_timeout = '30s';
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO {p}owner;
GRANT USAGE ON SCHEMA public TO {p}app;
SET ROLE {p}migrator;
SET ROLE {p}owner;
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
CREATE TABLE account (id uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE country (code char(2) PRIMARY KEY);
GRANT SELECT ON country TO {p}app;
CREATE TABLE person (
    account_id uuid NOT NULL REFERENCES account, id uuid NOT NULL, email text NOT NULL,
    country char(2) NOT NULL REFERENCES country, manager_id uuid,
    PRIMARY KEY (account_id, id), UNIQUE (account_id, email),
    FOREIGN KEY (account_id, manager_id) REFERENCES person (account_id, id)
);
CREATE INDEX ON person (account_id, country);
CREATE TABLE visit (
    account_id uuid NOT NULL, id uuid NOT NULL, person_id uuid NOT NULL, at timestamptz NOT NULL,
    PRIMARY KEY (account_id, id, at), FOREIGN KEY (account_id, person_id) REFERENCES person ON DELETE CASCADE
) PARTITION BY RANGE (at);
CREATE TABLE visit_2026 PARTITION OF visit FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX ON visit (account_id, at);
CREATE TABLE mark (account_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (account_id, id));
ALTER TABLE mark ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON mark TO {p}app
    USING (NOT (account_id IS DISTINCT FROM (SELECT NULLIF(current_setting('app.account_id', true), '')::uuid)));
CREATE POLICY listed ON mark FOR SELECT TO {p}app
    USING (account_id = ANY (string_to_array(NULLIF(current_setting('app.accounts', true), ''), ',')::uuid[]));
GRANT SELECT, INSERT, UPDATE, DELETE ON mark TO {p}app;
CREATE VIEW recent_visit WITH (security_invoker = true) AS SELECT * FROM visit;
DO $$
DECLARE
    name text;
    tenant text := $q$account_id = (SELECT NULLIF(current_setting('app.account_id', true), '')::uuid)$q$;
BEGIN
    FOREACH name IN ARRAY ARRAY['person', 'visit'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY tenant ON %I TO {p}app USING (%s) WITH CHECK (%s)', name, tenant, tenant);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO {p}app', name);
    END LOOP;
END $$;
CREATE POLICY adults ON person AS RESTRICTIVE TO {p}app USING (email <> '');
GRANT SELECT ON recent_visit TO {p}app;
CREATE FUNCTION people() RETURNS bigint LANGUAGE sql SECURITY DEFINER
    SET search_path = public, pg_temp AS 'SELECT count(*) FROM public.person';
CREATE FUNCTION nowhere() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = '' AS 'SELECT 1';
RESET ROLE;
INSERT INTO account VALUES ('00000000-0000-0000-0000-00000000000a', 'a');
INSERT INTO country VALUES ('NO');
INSERT INTO person SELECT id, gen_random_uuid(), 'p' || n, 'NO' FROM account, generate_series(1, 20000) AS n;
ANALYZE person;

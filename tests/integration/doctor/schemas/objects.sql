-- Partitions, views, functions: the ways around policies that are right by themselves.
CREATE ROLE {p}owner NOLOGIN;
CREATE ROLE {p}app LOGIN PASSWORD 'only-for-tests';
CREATE ROLE {p}batch NOLOGIN BYPASSRLS;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {p}owner', current_database()); END $$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO {p}owner, {p}batch;
CREATE SCHEMA playground;
GRANT ALL ON SCHEMA playground TO PUBLIC;
SET ROLE {p}owner;

CREATE TABLE reading (
    tenant_id uuid NOT NULL, id uuid NOT NULL, at date NOT NULL, PRIMARY KEY (tenant_id, id, at)
) PARTITION BY RANGE (at);
CREATE TABLE reading_old PARTITION OF reading FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE reading_open PARTITION OF reading FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE reading_closed PARTITION OF reading FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
ALTER TABLE reading ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON reading
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT ON reading TO {p}app;
GRANT SELECT ON reading_open TO {p}app;  -- TD303
-- Granted as well, but with a policy of its own.
ALTER TABLE reading_closed ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON reading_closed
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT ON reading_closed TO {p}app;

CREATE TABLE device (tenant_id uuid NOT NULL, id uuid NOT NULL, name text, PRIMARY KEY (tenant_id, id));
ALTER TABLE device ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- Everything is permitted, and then taken away but for the tenant's own: this holds.
CREATE POLICY everything ON device USING (true);
CREATE POLICY tenant_isolation ON device AS RESTRICTIVE
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT ON device TO {p}app;
CREATE TABLE old_device (retired date) INHERITS (device);
GRANT SELECT ON old_device TO {p}app;  -- TD303

CREATE TABLE secret (tenant_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE secret ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;  -- TD203
CREATE TABLE vault (tenant_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE vault ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY only_less ON vault AS RESTRICTIVE USING (tenant_id IS NOT NULL);  -- TD203

CREATE VIEW all_readings AS SELECT * FROM reading;
CREATE VIEW device_names AS SELECT name FROM device;  -- TD301
CREATE VIEW reading_of_view WITH (security_invoker = on) AS SELECT id FROM all_readings;  -- its inner view is the way
CREATE VIEW days AS SELECT at FROM all_readings;  -- TD301
CREATE VIEW own_devices WITH (security_invoker = true) AS SELECT * FROM device;
CREATE MATERIALIZED VIEW device_count AS SELECT tenant_id, count(*) FROM device GROUP BY tenant_id;  -- TD302
CREATE MATERIALIZED VIEW for_the_owner AS SELECT count(*) FROM device;
GRANT SELECT ON device_names, reading_of_view, days, own_devices, device_count TO {p}app;

CREATE FUNCTION harmless() RETURNS int LANGUAGE sql SECURITY DEFINER
    SET search_path = public, pg_temp AS 'SELECT 1';
CREATE FUNCTION no_path(n int) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT n';  -- TD306
CREATE FUNCTION temporary_first() RETURNS int LANGUAGE sql SECURITY DEFINER
    SET search_path = public AS 'SELECT 1';  -- TD306
CREATE FUNCTION open_path() RETURNS int LANGUAGE sql SECURITY DEFINER
    SET search_path = playground, pg_temp AS 'SELECT 1';  -- TD306
CREATE FUNCTION mine() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
REVOKE EXECUTE ON FUNCTION mine() FROM PUBLIC;
CREATE FUNCTION held() RETURNS bigint LANGUAGE sql SECURITY DEFINER
    SET search_path = public, pg_temp AS 'SELECT count(*) FROM device';
RESET ROLE;
GRANT SELECT ON secret TO {p}batch;
CREATE FUNCTION count_secrets() RETURNS bigint LANGUAGE sql SECURITY DEFINER
    SET search_path = public, pg_temp BEGIN ATOMIC SELECT count(*) FROM secret; END;  -- TD305
ALTER FUNCTION count_secrets() OWNER TO {p}batch;
CREATE PUBLICATION {p}outside FOR TABLE device;  -- TD310
-- What an extension brings is not the application's.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

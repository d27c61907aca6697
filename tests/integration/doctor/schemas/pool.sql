-- A pool of tenants under row level security, as it is when it has grown for three years.
CREATE ROLE {p}owner NOLOGIN;
CREATE ROLE {p}app LOGIN PASSWORD 'only-for-tests' CREATEROLE;  -- TD104
CREATE ROLE {p}worker LOGIN PASSWORD 'only-for-tests';
CREATE ROLE {p}report LOGIN BYPASSRLS PASSWORD 'only-for-tests';  -- TD105
CREATE ROLE {p}stranger LOGIN BYPASSRLS PASSWORD 'only-for-tests';  -- has no right on a tenant table
DO $$ BEGIN
    EXECUTE format('ALTER ROLE {p}worker IN DATABASE %I SET app.tenant_id = %L', current_database(), 'c0ffee');
    EXECUTE format('ALTER ROLE {p}worker IN DATABASE %I SET statement_timeout = %L', current_database(), '1min');
    EXECUTE format('GRANT CREATE ON DATABASE %I TO {p}owner', current_database());
END $$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO {p}owner;
SET ROLE {p}owner;

CREATE TABLE tenant (id uuid PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE currency (code text PRIMARY KEY);

-- As it should be, but for two grants and a worker's policy.
CREATE TABLE customer (
    tenant_id uuid NOT NULL REFERENCES tenant, id uuid NOT NULL, email text NOT NULL, currency text REFERENCES currency,
    PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, email)
);
ALTER TABLE customer ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON customer TO {p}app
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY worker ON customer TO {p}worker USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON customer TO {p}app, {p}worker;
GRANT SELECT ON customer TO {p}report;
GRANT TRUNCATE ON customer TO {p}worker;  -- TD307
CREATE INDEX customer_email_lower ON customer (tenant_id, lower(email));  -- TD503

-- Not forced; keys over all tenants.
CREATE TABLE invoice (
    tenant_id uuid NOT NULL REFERENCES tenant, id uuid NOT NULL UNIQUE, number text NOT NULL UNIQUE,
    customer_id uuid, tags text[],
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, customer_id) REFERENCES customer ON DELETE SET NULL (customer_id)
);
ALTER TABLE invoice ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON invoice TO {p}app
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY worker ON invoice TO {p}worker USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON invoice TO {p}app, {p}worker;
CREATE INDEX invoice_tags ON invoice USING gin (tags);  -- TD503

-- Forgotten altogether.
CREATE TABLE invoice_line (
    tenant_id uuid NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY, invoice_id uuid NOT NULL REFERENCES invoice (id),
    PRIMARY KEY (tenant_id, id)
);
GRANT SELECT, INSERT ON invoice_line TO {p}app;
GRANT SELECT ON invoice_line TO PUBLIC;  -- TD308

CREATE TABLE payment (tenant_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE payment ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON payment
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY while_debugging ON payment USING (true);  -- TD204
GRANT SELECT ON payment TO {p}app;

CREATE TABLE note (tenant_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE note ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON note USING (tenant_id = current_setting('app.tenant_id')::uuid);  -- TD210, TD211
GRANT SELECT ON note TO {p}app;

CREATE TABLE attachment (tenant_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE attachment ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON attachment USING (  -- TD207
    current_setting('app.is_admin', true) = 'on'
    OR tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid)
);
GRANT SELECT ON attachment TO {p}app;

CREATE TABLE preference (tenant_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE preference ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON preference USING (tenant_id = COALESCE(  -- TD206
    NULLIF(current_setting('app.tenant_id', true), ''), '11111111-1111-1111-1111-111111111111')::uuid);
GRANT SELECT ON preference TO {p}app;

CREATE TABLE history (tenant_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE history ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON history USING (  -- TD205
    NULLIF(current_setting('app.tenant_id', true), '') IS NULL
    OR tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid
);
GRANT SELECT ON history TO {p}app;

-- May be without a tenant, and then everybody's.
CREATE TABLE template (tenant_id uuid, id uuid NOT NULL PRIMARY KEY);  -- TD216, TD601
ALTER TABLE template ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON template USING (  -- TD209
    tenant_id IS NULL OR tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid
);
GRANT SELECT, INSERT ON template TO {p}app;

CREATE TABLE message (tenant_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE message ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY reading ON message FOR SELECT
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT ON message TO {p}app;  -- TD215

-- Large, and written for anybody.
CREATE TABLE event (tenant_id uuid NOT NULL, id bigint NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE event ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid)) WITH CHECK (true);  -- TD209
CREATE INDEX event_at ON event (at);  -- TD502
GRANT SELECT, INSERT ON event TO {p}app;

-- The column has another type, and the index comes too late.
CREATE TABLE sample (tenant_id text NOT NULL, id bigint PRIMARY KEY);  -- TD501, TD601, TD607
ALTER TABLE sample ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON sample USING (tenant_id = (SELECT current_setting('app.tenant_id', true)));
GRANT SELECT ON sample TO {p}app;

CREATE TABLE ticket (tenant_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE ticket ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON ticket USING (tenant_id::text = current_setting('app.tenant_id', true));  -- TD213
GRANT SELECT ON ticket TO {p}app;

-- Also, or only, somebody else's.
CREATE TABLE folder (tenant_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE folder ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY with_the_examples ON folder USING (tenant_id IN (  -- TD207
    NULLIF(current_setting('app.tenant_id', true), '')::uuid, '00000000-0000-0000-0000-000000000000'));
CREATE POLICY one_tenant ON folder FOR SELECT USING (tenant_id = '11111111-1111-1111-1111-111111111111');  -- TD208
CREATE POLICY not_below ON folder FOR SELECT USING (tenant_id = greatest(  -- TD208
    NULLIF(current_setting('app.tenant_id', true), '')::uuid, '11111111-1111-1111-1111-111111111111'));
CREATE POLICY one_of_two ON folder FOR SELECT USING (tenant_id IN (  -- TD208
    '11111111-1111-1111-1111-111111111111', '22222222-2222-2222-2222-222222222222'));
GRANT SELECT ON folder TO {p}app;

-- A worker's: no request reads it.
CREATE TABLE queue (id bigserial PRIMARY KEY, tenant_id uuid);  -- TD218, TD601
GRANT SELECT, DELETE ON queue TO {p}worker;
GRANT INSERT ON queue TO {p}app;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON ticket FOR EACH ROW EXECUTE FUNCTION touch();  -- TD604

ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {p}app;  -- TD309
RESET ROLE;
INSERT INTO event SELECT gen_random_uuid(), n, now() FROM generate_series(1, 20000) AS n;
INSERT INTO sample SELECT n % 7, n FROM generate_series(1, 20000) AS n;
ANALYZE event, sample;

-- A schema for each tenant, as django-tenants lays them out; the one login owns them all.
CREATE ROLE {p}app LOGIN PASSWORD 'only-for-tests';
CREATE ROLE {p}backup LOGIN PASSWORD 'only-for-tests';  -- reads only
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {p}app', current_database()); END $$;
GRANT ALL ON SCHEMA public TO {p}app;
SET ROLE {p}app;
CREATE TABLE public.client (id bigserial PRIMARY KEY, schema_name varchar(63) NOT NULL UNIQUE);
CREATE TABLE public.domain (id bigserial PRIMARY KEY, tenant_id bigint NOT NULL REFERENCES client, name text UNIQUE);
DO $$
BEGIN
    FOR n IN 1..30 LOOP
        EXECUTE format('CREATE SCHEMA tenant_%s', n);
        EXECUTE format('CREATE TABLE tenant_%s.django_migrations (id bigserial PRIMARY KEY)', n);
        EXECUTE format('CREATE TABLE tenant_%s.customer (id bigserial PRIMARY KEY, email text UNIQUE)', n);
        EXECUTE format('CREATE TABLE tenant_%s.purchase (id bigserial PRIMARY KEY,
                            customer_id bigint NOT NULL REFERENCES tenant_%s.customer)', n, n);
        EXECUTE format('CREATE VIEW tenant_%s.mail AS SELECT email FROM tenant_%s.customer', n, n);
        EXECUTE format('GRANT SELECT ON tenant_%s.customer TO {p}backup', n);
    END LOOP;
END $$;
GRANT SELECT ON tenant_17.purchase TO PUBLIC;  -- TD308, in one of them
GRANT TRUNCATE ON tenant_23.purchase TO {p}backup;  -- TD307, in another
ALTER TABLE tenant_29.customer ENABLE ROW LEVEL SECURITY;  -- TD202, TD203, in a third

-- An application with org_id and no row level security, whose one role owns everything.
CREATE ROLE {p}app LOGIN PASSWORD 'only-for-tests';
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO {p}app', current_database()); END $$;
GRANT ALL ON SCHEMA public TO {p}app;
SET ROLE {p}app;

CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
CREATE TABLE organizations (id bigserial PRIMARY KEY, name text NOT NULL);
CREATE TABLE currencies (code char(3) PRIMARY KEY);
CREATE TABLE feature_flags (name text PRIMARY KEY, enabled boolean NOT NULL);  -- TD701
CREATE TABLE users (
    id bigserial PRIMARY KEY, org_id bigint NOT NULL REFERENCES organizations, email text NOT NULL UNIQUE
);
CREATE INDEX ON users (org_id);
-- A customer here is the org's own: the name is no tenant's.
CREATE TABLE customers (id bigserial PRIMARY KEY, org_id bigint NOT NULL REFERENCES organizations, name text);
CREATE TABLE orders (
    id bigserial PRIMARY KEY, org_id bigint NOT NULL REFERENCES organizations,
    customer_id bigint NOT NULL REFERENCES customers, currency char(3) NOT NULL REFERENCES currencies
);
-- Tenancy by way of foreign keys alone, one step and two.
CREATE TABLE order_items (id bigserial PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders, quantity int NOT NULL);
CREATE TABLE item_notes (id bigserial PRIMARY KEY, item_id bigint NOT NULL REFERENCES order_items, note text NOT NULL);
-- Named otherwise, but it points at the organisations.
CREATE TABLE invites (id uuid PRIMARY KEY, organization bigint NOT NULL REFERENCES organizations, email text NOT NULL);
-- Between two tenants: whose is it?
CREATE TABLE partnerships (
    id bigserial PRIMARY KEY, seller bigint NOT NULL REFERENCES organizations, buyer bigint NOT NULL REFERENCES organizations
);
-- Perhaps of an order, perhaps of none.
CREATE TABLE reminders (id bigserial PRIMARY KEY, order_id bigint REFERENCES orders, at timestamptz NOT NULL);
CREATE VIEW order_totals AS SELECT order_id, sum(quantity) FROM order_items GROUP BY order_id;

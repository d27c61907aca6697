-- Policies by the functions of a backend as a service, with the mistakes that its users make.
CREATE ROLE {p}owner NOLOGIN;
CREATE ROLE {p}anon NOLOGIN;
CREATE ROLE {p}authenticated NOLOGIN;
CREATE ROLE {p}service NOLOGIN BYPASSRLS;
CREATE ROLE {p}authenticator LOGIN NOINHERIT PASSWORD 'only-for-tests';  -- TD101: it may become the service
GRANT {p}anon, {p}authenticated, {p}service TO {p}authenticator;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO PUBLIC;
CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE
    AS $$ SELECT NULLIF(current_setting('request.jwt.claims', true), '')::jsonb $$;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT (auth.jwt() ->> 'sub')::uuid $$;
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$ SELECT auth.jwt() ->> 'role' $$;
GRANT CREATE, USAGE ON SCHEMA public TO {p}owner;
GRANT USAGE ON SCHEMA public TO {p}authenticated;
SET ROLE {p}owner;

CREATE TABLE organizations (id uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE members (
    organization_id uuid NOT NULL REFERENCES organizations, user_id uuid NOT NULL, PRIMARY KEY (organization_id, user_id)
);
ALTER TABLE members ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON members USING (user_id = (SELECT auth.uid()));  -- TD208
CREATE FUNCTION is_member(organization uuid) RETURNS boolean LANGUAGE sql STABLE SECURITY INVOKER
    AS $$ SELECT EXISTS (SELECT FROM public.members m WHERE m.organization_id = organization) $$;

-- Right, and as fast as it gets: the claim, once a statement.
CREATE TABLE projects (organization_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (organization_id, id));
ALTER TABLE projects ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY by_claim ON projects
    USING (organization_id = (SELECT (auth.jwt() ->> 'organization_id')::uuid));

CREATE TABLE documents (organization_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (organization_id, id));
ALTER TABLE documents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY by_membership ON documents USING (organization_id IN (  -- TD212
    SELECT m.organization_id FROM members m WHERE m.user_id = (SELECT auth.uid())));

CREATE TABLE folders (organization_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (organization_id, id));
ALTER TABLE folders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY by_membership ON folders USING (EXISTS (  -- TD212
    SELECT FROM members m WHERE m.organization_id = folders.organization_id AND m.user_id = (SELECT auth.uid())));

CREATE TABLE files (organization_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (organization_id, id));
ALTER TABLE files ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY by_membership ON files USING (EXISTS (  -- TD208 (it forgot to join), TD212
    SELECT FROM members m WHERE m.user_id = (SELECT auth.uid())));

CREATE TABLE tasks (organization_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (organization_id, id));
ALTER TABLE tasks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY by_function ON tasks USING (is_member(organization_id));  -- TD214

CREATE TABLE posts (
    organization_id uuid NOT NULL, id uuid NOT NULL, published boolean, PRIMARY KEY (organization_id, id)
);
ALTER TABLE posts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON posts FOR SELECT USING (auth.uid() IS NOT NULL);  -- TD208, TD214
CREATE POLICY published ON posts FOR SELECT TO {p}anon USING (published);  -- TD208
CREATE POLICY writing ON posts FOR INSERT WITH CHECK ((SELECT auth.role()) = 'authenticated');  -- TD209

CREATE TABLE comments (organization_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (organization_id, id));
ALTER TABLE comments ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY reading ON comments FOR SELECT USING (  -- TD205, TD207
    (SELECT auth.uid()) IS NULL OR (SELECT auth.role()) = 'service_role'
    OR organization_id = (SELECT (auth.jwt() ->> 'organization_id')::uuid)
);
CREATE POLICY changing ON comments FOR UPDATE  -- nothing more is allowed than USING says
    USING (organization_id = (SELECT (auth.jwt() ->> 'organization_id')::uuid));

CREATE TABLE likes (organization_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (organization_id, id));
ALTER TABLE likes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY anybody ON likes TO {p}authenticated USING (true);  -- TD204: requests are served as this role
GRANT SELECT ON likes TO {p}authenticated;

-- Its claims are cast as they come.
CREATE TABLE alerts (organization_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (organization_id, id));
ALTER TABLE alerts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY by_claim ON alerts USING (  -- TD211
    organization_id = (SELECT (current_setting('request.jwt.claims', true)::json ->> 'organization_id')::uuid));
CREATE TABLE badges (organization_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (organization_id, id));
ALTER TABLE badges ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY by_claim ON badges USING (  -- TD205
    organization_id = COALESCE((SELECT (auth.jwt() ->> 'organization_id')::uuid), organization_id));
CREATE TABLE ranks (organization_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (organization_id, id));
ALTER TABLE ranks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY by_case ON ranks USING (CASE  -- TD207
    WHEN (SELECT auth.role()) = 'admin' THEN true
    ELSE organization_id = (SELECT (auth.jwt() ->> 'organization_id')::uuid) END);

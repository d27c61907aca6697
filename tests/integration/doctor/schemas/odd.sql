-- Names that need quotes, another schema, foreign tables, and a login that may take the owner's place.
CREATE ROLE "{p}The Owner" NOLOGIN;
CREATE ROLE "{p}app's" LOGIN PASSWORD 'only-for-tests' IN ROLE "{p}The Owner";  -- TD103
CREATE SCHEMA "My Shop" AUTHORIZATION "{p}The Owner";
GRANT USAGE ON SCHEMA "My Shop" TO "{p}app's";
SET ROLE "{p}The Owner";
CREATE TABLE "My Shop"."Tenant" ("Id" uuid PRIMARY KEY);
CREATE TABLE "My Shop"."Order's ""Line""" (
    "Tenant ID" uuid NOT NULL REFERENCES "My Shop"."Tenant", "Id" uuid NOT NULL, "select" text,
    PRIMARY KEY ("Tenant ID", "Id"), CONSTRAINT "it's one" UNIQUE ("select")  -- TD402, TD602
);
ALTER TABLE "My Shop"."Order's ""Line""" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY "it's mine" ON "My Shop"."Order's ""Line""" TO "{p}app's"
    USING ("Tenant ID" = (SELECT NULLIF(current_setting('app."Tenant"', true), '')::uuid));
CREATE POLICY "or all" ON "My Shop"."Order's ""Line""" TO "{p}app's"
    USING ("select" = 'all' OR "Tenant ID" IS NOT NULL);  -- TD204, TD208
CREATE TABLE "My Shop"."ταμείο" ("Tenant ID" uuid NOT NULL, "№" int NOT NULL, PRIMARY KEY ("Tenant ID", "№"));  -- TD201
CREATE TABLE "My Shop"."no columns" ();  -- TD701
RESET ROLE;
CREATE FOREIGN DATA WRAPPER {p}nowhere;
CREATE SERVER {p}elsewhere FOREIGN DATA WRAPPER {p}nowhere;
CREATE FOREIGN TABLE "My Shop"."Archive" ("Tenant ID" uuid, body text) SERVER {p}elsewhere;
GRANT SELECT ON "My Shop"."Archive" TO "{p}app's";  -- TD304
CREATE FOREIGN TABLE "My Shop"."Rates" (code text) SERVER {p}elsewhere;
GRANT SELECT ON "My Shop"."Rates" TO "{p}app's";

"""What the catalogues are asked. Each query is of a set, so that their number does not grow with the database."""
# ruff: noqa: S608 - the queries are put together from constants of this module

from typing import Final

SERVER: Final = """
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
           current_database()::text AS database, (SELECT oid FROM pg_roles WHERE rolname = current_user) AS role,
           EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS g
                    WHERE d.datname = current_database() AND g.grantee = 0 AND g.privilege_type = 'TEMPORARY')
           AS temporary
"""
ROLES: Final = """
    SELECT oid, rolname::text AS name, rolcanlogin, rolsuper, rolbypassrls, rolcreaterole FROM pg_roles
"""
# A membership WITH INHERIT FALSE, SET FALSE (16 and later) gives nothing; before 16 there are no such columns.
MEMBERSHIPS: Final = """
    SELECT member, roleid FROM pg_auth_members AS m
     WHERE coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true)
        OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)
"""
SESSIONS: Final = """
    SELECT usesysid, count(*) AS sessions FROM pg_stat_activity
     WHERE datname = current_database() AND usesysid IS NOT NULL AND pid <> pg_backend_pid()
       AND coalesce(backend_type, 'client backend') = 'client backend'
       AND coalesce(application_name, '') <> $1
     GROUP BY usesysid
"""
SETTINGS: Final = """
    SELECT r.rolname::text AS role, d.datname::text AS database, o.option_name AS name, o.option_value AS value
      FROM pg_db_role_setting s
      LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase,
           pg_options_to_table(s.setconfig) AS o
     WHERE (s.setdatabase = 0 OR d.datname = current_database())
"""
SCHEMAS: Final = r"""
    SELECT n.oid, n.nspname::text AS name, f.shape, f.variant,
           EXISTS (SELECT FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS g
                    WHERE g.grantee = 0 AND g.privilege_type = 'CREATE') AS open
      FROM pg_namespace n
      LEFT JOIN (
            SELECT c.relnamespace,
                   md5(string_agg(c.relname || c.relkind::text, ',' ORDER BY c.relname)) AS shape,
                   md5(string_agg(concat_ws('|', c.relname, replace(pg_get_userbyid(c.relowner), s.nspname, '~'),
                                            c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relnatts,
                                            replace(c.relacl::text, s.nspname, '~')), ',' ORDER BY c.relname))
                   AS variant
              FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
             GROUP BY c.relnamespace
           HAVING bool_or(c.relkind IN ('r', 'p'))
           ) AS f ON f.relnamespace = n.oid
     WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
WRITERS: Final = """
    SELECT s.shape, w.role
      FROM unnest($1::oid[], $2::text[]) AS s (schema, shape)
      JOIN pg_class c ON c.relnamespace = s.schema AND c.relkind IN ('r', 'p'),
           LATERAL (SELECT c.relowner UNION SELECT g.grantee FROM aclexplode(c.relacl) AS g
                     WHERE g.privilege_type IN ('INSERT', 'UPDATE', 'DELETE')) AS w (role)
     GROUP BY s.shape, w.role HAVING count(DISTINCT s.schema) > 1
"""
_OURS: Final = """
    c.relnamespace = ANY ($1::oid[]) AND c.relpersistence <> 't'
    AND NOT EXISTS (SELECT FROM pg_depend e
                     WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
"""
RELATIONS: Final = f"""
    SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind, c.relowner AS owner,
           c.relrowsecurity AS secured, c.relforcerowsecurity AS forced, i.inhparent AS parent,
           c.relispartition AS partition, greatest(c.reltuples, 0)::bigint AS rows,
           EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o
                    WHERE o.option_name = 'security_invoker' AND o.option_value::boolean) AS invoker
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhseqno = 1
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_OURS}
     ORDER BY n.nspname, c.relname
"""
GRANTS: Final = f"""
    SELECT c.oid, g.grantee, array_agg(DISTINCT g.privilege_type) AS privileges
      FROM pg_class c,
           LATERAL (SELECT * FROM aclexplode(c.relacl) UNION ALL
                    SELECT x.* FROM pg_attribute a, aclexplode(a.attacl) AS x
                     WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL) AS g
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_OURS}
     GROUP BY c.oid, g.grantee
"""
COLUMNS: Final = f"""
    SELECT a.attrelid AS oid, a.attnum AS number, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
           a.attnotnull AS not_null, a.attidentity <> '' AS identity
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm', 'f') AND {_OURS}
     ORDER BY a.attrelid, a.attnum
"""
POLICIES: Final = f"""
    SELECT p.polrelid AS oid, p.polname::text AS name, p.polpermissive AS permissive, p.polcmd::text AS command,
           p.polroles AS roles, pg_get_expr(p.polqual, p.polrelid) AS using,
           pg_get_expr(p.polwithcheck, p.polrelid) AS "check"
      FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE {_OURS} ORDER BY p.polname
"""
FOREIGN_KEYS: Final = f"""
    SELECT k.conrelid AS oid, k.conname::text AS name, k.confrelid AS target, k.conkey AS columns,
           k.confkey AS target_columns, k.confdeltype::text AS on_delete
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
     WHERE k.contype = 'f' AND k.conparentid = 0 AND {_OURS} ORDER BY k.conname
"""
INDEXES: Final = f"""
    WITH leakproof AS (
        SELECT DISTINCT o.amopfamily AS family
          FROM pg_amop o JOIN pg_operator r ON r.oid = o.amopopr JOIN pg_proc p ON p.oid = r.oprcode
         WHERE o.amoppurpose = 's' AND p.proleakproof
    )
    SELECT i.indrelid AS oid, x.relname::text AS name, i.indkey::int2[] AS columns, i.indnkeyatts AS keys,
           i.indisunique AS unique, i.indisprimary AS primary, i.indisexclusion AS exclusion, m.amname::text AS method,
           EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid
                                                 AND k.contype IN ('p', 'u', 'x')) AS constraint,
           (SELECT bool_and(f.opcfamily IN (SELECT family FROM leakproof))
              FROM unnest(i.indclass::oid[]) AS u (class) JOIN pg_opclass f ON f.oid = u.class) AS leakproof,
           pg_get_indexdef(i.indexrelid) AS definition
      FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
      JOIN pg_am m ON m.oid = x.relam
     WHERE i.indislive AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND {_OURS} ORDER BY x.relname
"""
TRIGGERS: Final = f"""
    SELECT t.tgrelid AS oid, t.tgname::text AS name FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
     WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND {_OURS} ORDER BY t.tgname
"""
READS: Final = f"""
    SELECT DISTINCT w.ev_class AS oid, d.refobjid AS target
      FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                      AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> w.ev_class
     WHERE c.relkind IN ('v', 'm') AND {_OURS}
"""
FUNCTIONS: Final = """
    SELECT n.nspname::text AS schema, p.proname::text AS name, pg_get_function_identity_arguments(p.oid) AS arguments,
           p.proowner AS owner, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS body,
           (SELECT o.option_value FROM pg_options_to_table(p.proconfig) AS o WHERE o.option_name = 'search_path')
           AS search_path,
           (SELECT array_agg(g.grantee) FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS g
             WHERE g.privilege_type = 'EXECUTE') AS grantees
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE p.prosecdef AND p.pronamespace = ANY ($1::oid[])
       AND NOT EXISTS (SELECT FROM pg_depend e
                        WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
     ORDER BY n.nspname, p.proname
"""
LEAKPROOF: Final = "SELECT DISTINCT proname::text AS name FROM pg_proc WHERE proleakproof"
DEFAULT_PRIVILEGES: Final = """
    SELECT d.defaclrole AS maker, n.nspname::text AS schema, g.grantee, array_agg(g.privilege_type) AS privileges
      FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) AS g
     WHERE d.defaclobjtype = 'r' AND g.grantee <> d.defaclrole
     GROUP BY d.defaclrole, n.nspname, g.grantee
"""
PUBLICATIONS: Final = """
    SELECT p.pubname::text AS name, p.puballtables AS all_tables,
           ARRAY (SELECT r.prrelid FROM pg_publication_rel r WHERE r.prpubid = p.oid
                   UNION SELECT c.oid FROM pg_publication_namespace s JOIN pg_class c ON c.relnamespace = s.pnnspid
                          WHERE s.pnpubid = p.oid AND c.relkind IN ('r', 'p')) AS tables
      FROM pg_publication p
"""

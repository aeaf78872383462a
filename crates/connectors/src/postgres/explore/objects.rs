//! What the catalog says about relations, as few queries as there are kinds of things: each takes the numbers of all relations that are wanted.

use std::collections::HashMap;

use millrace_core::Result;
use millrace_core::explore::ObjectFilter;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::PgExplorer;
use super::names::scoped;
use super::table::IS_COMPARABLE;

/// Partitions of a wanted relation belong to it.
const RELATIONS: &str = "WITH RECURSIVE tree AS (SELECT $3::oid AS oid UNION ALL
        SELECT h.inhrelid FROM pg_inherits h JOIN tree ON h.inhparent = tree.oid JOIN pg_class k ON k.oid = h.inhrelid AND k.relispartition)
    SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, greatest(c.reltuples, 0)::float8,
        CASE WHEN c.relkind IN ('r', 'm') THEN pg_total_relation_size(c.oid) ELSE 0 END::int8, d.description,
        CASE WHEN c.relispartition THEN (SELECT h.inhparent FROM pg_inherits h WHERE h.inhrelid = c.oid) END,
        pg_get_expr(c.relpartbound, c.oid), CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END, p.partstrat::text,
        coalesce(c.reloptions, '{}')::text[], CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END, c.relispopulated, s.srvname::text,
        coalesce(f.ftoptions, '{}')::text[],
        ARRAY(SELECT format('%I.%I', hn.nspname, hc.relname) FROM pg_inherits h JOIN pg_class hc ON hc.oid = h.inhparent
            JOIN pg_namespace hn ON hn.oid = hc.relnamespace WHERE h.inhrelid = c.oid ORDER BY h.inhseqno)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
        LEFT JOIN pg_foreign_table f ON f.ftrelid = c.oid LEFT JOIN pg_foreign_server s ON s.oid = f.ftserver
        LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND CASE WHEN $3::oid <> 0 THEN c.oid IN (SELECT oid FROM tree) ELSE IN_SCOPE END
    ORDER BY n.nspname, c.relname";

const COLUMNS: &str = "SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, format_type(a.atttypid, a.atttypmod), a.atttypmod,
        CASE WHEN e.typname IS NOT NULL AND en.nspname <> 'pg_catalog' THEN e.typname || '[]' WHEN tn.nspname <> 'pg_catalog' THEN t.typname::text
            ELSE format_type(a.atttypid, NULL) END,
        t.typname::text, CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END, NOT a.attnotnull, a.attidentity::text,
        a.attgenerated::text, pg_get_expr(v.adbin, v.adrelid), d.description,
        CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation THEN format('%I.%I', cn.nspname, c.collname) END, a.attislocal,
        CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage::text END, coalesce(a.attfdwoptions, '{}')::text[]
    FROM unnest($1::oid[]) w (oid) JOIN pg_attribute a ON a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace tn ON tn.oid = t.typnamespace
        LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typlen = -1 AND t.typcategory = 'A' LEFT JOIN pg_namespace en ON en.oid = e.typnamespace
        LEFT JOIN pg_attrdef v ON v.adrelid = a.attrelid AND v.adnum = a.attnum
        LEFT JOIN pg_description d ON d.objoid = a.attrelid AND d.classoid = 'pg_class'::regclass AND d.objsubid = a.attnum
        LEFT JOIN pg_collation c ON c.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
    ORDER BY a.attrelid, a.attnum";

const TYPES: &str = "WITH RECURSIVE base AS (SELECT w.oid AS type, w.oid, -1 AS modifier FROM unnest($1::oid[]) w (oid)
        UNION ALL SELECT base.type, t.typbasetype, t.typtypmod FROM base JOIN pg_type t ON t.oid = base.oid WHERE t.typtype = 'd')
    SELECT base.type, b.oid, base.modifier, IS_COMPARABLE,
        CASE WHEN b.typtype = 'e' THEN ARRAY(SELECT l.enumlabel::text FROM pg_enum l WHERE l.enumtypid = b.oid ORDER BY l.enumsortorder) END
    FROM base JOIN pg_type b ON b.oid = base.oid AND b.typtype <> 'd'";

const CONSTRAINTS: &str =
    "SELECT k.conrelid, k.conname::text, k.contype::text, coalesce(k.conkey, '{}'), rn.nspname::text, rc.relname::text,
        ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY r (attnum, place)
            JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = r.attnum ORDER BY r.place),
        k.confupdtype::text, k.confdeltype::text, k.convalidated, k.conislocal AND k.conparentid = 0, pg_get_constraintdef(k.oid),
        pg_get_expr(k.conbin, k.conrelid), d.description
    FROM unnest($1::oid[]) w (oid) JOIN pg_constraint k ON k.conrelid = w.oid AND k.contype IN ('p', 'u', 'c', 'x', 'f')
        LEFT JOIN pg_class rc ON rc.oid = k.confrelid LEFT JOIN pg_namespace rn ON rn.oid = rc.relnamespace
        LEFT JOIN pg_description d ON d.objoid = k.oid AND d.classoid = 'pg_constraint'::regclass
    ORDER BY k.conrelid, position(k.contype::text IN 'puxcf'), k.conname";

const INDEXES: &str = "SELECT i.indrelid, x.relname::text, m.amname::text, i.indisunique, i.indisprimary, i.indpred IS NOT NULL, i.indexprs IS NOT NULL,
        i.indimmediate AND i.indisvalid, (i.indkey::int2[])[0:i.indnkeyatts - 1], pg_get_indexdef(i.indexrelid),
        ARRAY(SELECT coalesce(a.attname::text, pg_get_indexdef(i.indexrelid, c.place::int, true))
            FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY c (attnum, place)
            LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = c.attnum ORDER BY c.place),
        k.oid IS NOT NULL, EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid), d.description, i.indexrelid
    FROM unnest($1::oid[]) w (oid) JOIN pg_index i ON i.indrelid = w.oid JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
        LEFT JOIN pg_constraint k ON k.conrelid = i.indrelid AND k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
        LEFT JOIN pg_description d ON d.objoid = i.indexrelid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
    ORDER BY i.indrelid, i.indisprimary DESC, x.relname";

/// Sequences that belong to columns.
const SEQUENCES: &str = "SELECT d.refobjid, d.refobjsubid::int2, d.deptype::text, n.nspname::text, c.relname::text, format_type(s.seqtypid, NULL),
        s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle
    FROM unnest($1::oid[]) w (oid) JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = w.oid AND d.refobjsubid > 0
        AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S' JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence s ON s.seqrelid = c.oid
    ORDER BY 1, 2, 4, 5";

/// A relation with everything that belongs to it.
#[derive(Debug, Default)]
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// `pg_class.relkind`
    pub(super) kind: String,
    pub(super) is_unlogged: bool,
    pub(super) estimated_rows: f64,
    pub(super) size_bytes: i64,
    pub(super) comment: Option<String>,
    /// Of a partition, the table that it is one of.
    pub(super) parent: Option<u32>,
    /// `FOR VALUES …` or `DEFAULT`.
    pub(super) bound: Option<String>,
    /// `RANGE (…)`
    pub(super) partition_key: Option<String>,
    pub(super) strategy: Option<String>,
    pub(super) options: Vec<String>,
    /// Of a view.
    pub(super) query: Option<String>,
    pub(super) is_populated: bool,
    pub(super) server: Option<String>,
    pub(super) server_options: Vec<String>,
    /// Quoted names of the tables that it inherits from, or is a partition of.
    pub(super) inherits: Vec<String>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) constraints: Vec<Constraint>,
    pub(super) indexes: Vec<Index>,
    pub(super) sequences: Vec<OwnedSequence>,
}

#[derive(Debug, Default)]
pub(super) struct Attribute {
    pub(super) attnum: i16,
    pub(super) name: String,
    /// With length and precision.
    pub(super) full_type: String,
    /// Without.
    pub(super) data_type: String,
    pub(super) udt_name: String,
    pub(super) domain_base_type: Option<String>,
    /// Of the type that a domain is made of.
    pub(super) base_oid: u32,
    pub(super) modifier: i32,
    pub(super) is_comparable: bool,
    pub(super) labels: Option<Vec<String>>,
    pub(super) is_nullable: bool,
    /// `a` always, `d` by default.
    pub(super) identity: String,
    /// `s` stored, `v` virtual.
    pub(super) generated: String,
    /// Default or generation.
    pub(super) expression: Option<String>,
    pub(super) comment: Option<String>,
    pub(super) collation: Option<String>,
    /// Not only inherited.
    pub(super) is_local: bool,
    pub(super) storage: Option<String>,
    pub(super) server_options: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Constraint {
    pub(super) name: String,
    /// `pg_constraint.contype`
    pub(super) kind: String,
    pub(super) attnums: Vec<i16>,
    pub(super) referenced_schema: Option<String>,
    pub(super) referenced_table: Option<String>,
    pub(super) referenced_columns: Vec<String>,
    pub(super) on_update: String,
    pub(super) on_delete: String,
    pub(super) is_validated: bool,
    pub(super) is_local: bool,
    pub(super) definition: String,
    pub(super) clause: Option<String>,
    pub(super) comment: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) method: String,
    pub(super) is_unique: bool,
    pub(super) is_primary: bool,
    pub(super) is_partial: bool,
    pub(super) has_expressions: bool,
    /// Valid and enforced at once.
    pub(super) is_immediate: bool,
    /// 0 for an expression.
    pub(super) attnums: Vec<i16>,
    pub(super) definition: String,
    pub(super) columns: Vec<String>,
    /// Whether a constraint makes it.
    pub(super) backs_constraint: bool,
    /// Whether the parent's index makes it.
    pub(super) is_inherited: bool,
    pub(super) comment: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct OwnedSequence {
    pub(super) attnum: i16,
    /// Of an identity column.
    pub(super) is_identity: bool,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) data_type: String,
    pub(super) start: i64,
    pub(super) increment: i64,
    pub(super) min: i64,
    pub(super) max: i64,
    pub(super) cache: i64,
    pub(super) is_cycled: bool,
}

/// Relations in scope, or one with its partitions, by schema and name.
pub(super) async fn load(explorer: &PgExplorer, wanted: &ObjectFilter, only: u32) -> Result<Vec<Relation>> {
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&wanted.schemas, Type::TEXT_ARRAY), (&wanted.with_system, Type::BOOL), (&only, Type::OID)];
    let mut relations: Vec<Relation> = explorer.ask(&scoped(RELATIONS), &params).await?.iter().map(relation).collect();
    let oids: Vec<u32> = relations.iter().map(|relation| relation.oid).collect();
    let places: HashMap<u32, usize> = oids.iter().enumerate().map(|(place, oid)| (*oid, place)).collect();
    let oids: [(&(dyn ToSql + Sync), Type); 1] = [(&oids, Type::OID_ARRAY)];
    let columns = explorer.ask(COLUMNS, &oids).await?;
    let mut types: Vec<u32> = columns.iter().map(|row| row.get(3)).collect();
    types.sort_unstable();
    types.dedup();
    let types_sql = TYPES.replace("IS_COMPARABLE", IS_COMPARABLE);
    let types: HashMap<u32, Row> =
        explorer.ask(&types_sql, &[(&types, Type::OID_ARRAY)]).await?.into_iter().map(|row| (row.get(0), row)).collect();
    let (constraints, indexes, sequences) =
        futures::try_join!(explorer.ask(CONSTRAINTS, &oids), explorer.ask(INDEXES, &oids), explorer.ask(SEQUENCES, &oids))?;
    let place = |row: &Row| places.get(&row.get::<_, u32>(0)).copied();
    for row in &columns {
        if let Some(place) = place(row) {
            relations[place].attributes.push(attribute(row, types.get(&row.get(3))));
        }
    }
    for row in &constraints {
        if let Some(place) = place(row) {
            relations[place].constraints.push(constraint(row));
        }
    }
    for row in &indexes {
        if let Some(place) = place(row) {
            relations[place].indexes.push(index(row));
        }
    }
    for row in &sequences {
        if let Some(place) = place(row) {
            relations[place].sequences.push(sequence(row));
        }
    }
    Ok(relations)
}

fn relation(row: &Row) -> Relation {
    let persistence: &str = row.get(4);
    Relation {
        oid: row.get(0),
        schema: row.get(1),
        name: row.get(2),
        kind: row.get(3),
        is_unlogged: persistence == "u",
        estimated_rows: row.get(5),
        // A table that is dropped meanwhile has no size.
        size_bytes: row.get::<_, Option<i64>>(6).unwrap_or_default(),
        comment: row.get(7),
        parent: row.get(8),
        bound: row.get(9),
        partition_key: row.get(10),
        strategy: row.get(11),
        options: row.get(12),
        query: row.get(13),
        is_populated: row.get(14),
        server: row.get(15),
        server_options: row.get(16),
        inherits: row.get(17),
        ..Relation::default()
    }
}

fn attribute(row: &Row, base: Option<&Row>) -> Attribute {
    let own_modifier: i32 = row.get(5);
    let base_modifier: i32 = base.map_or(-1, |base| base.get(2));
    Attribute {
        attnum: row.get(1),
        name: row.get(2),
        full_type: row.get(4),
        data_type: row.get(6),
        udt_name: row.get(7),
        domain_base_type: row.get(8),
        base_oid: base.map_or_else(|| row.get(3), |base| base.get(1)),
        modifier: if own_modifier == -1 { base_modifier } else { own_modifier },
        is_comparable: base.is_some_and(|base| base.get(3)),
        labels: base.and_then(|base| base.get(4)),
        is_nullable: row.get(9),
        identity: row.get(10),
        generated: row.get(11),
        expression: row.get(12),
        comment: row.get(13),
        collation: row.get(14),
        is_local: row.get(15),
        storage: row.get(16),
        server_options: row.get(17),
    }
}

fn constraint(row: &Row) -> Constraint {
    Constraint {
        name: row.get(1),
        kind: row.get(2),
        attnums: row.get(3),
        referenced_schema: row.get(4),
        referenced_table: row.get(5),
        referenced_columns: row.get(6),
        on_update: row.get(7),
        on_delete: row.get(8),
        is_validated: row.get(9),
        is_local: row.get(10),
        definition: row.get(11),
        clause: row.get(12),
        comment: row.get(13),
    }
}

fn index(row: &Row) -> Index {
    Index {
        oid: row.get(14),
        name: row.get(1),
        method: row.get(2),
        is_unique: row.get(3),
        is_primary: row.get(4),
        is_partial: row.get(5),
        has_expressions: row.get(6),
        is_immediate: row.get(7),
        attnums: row.get(8),
        definition: row.get(9),
        columns: row.get(10),
        backs_constraint: row.get(11),
        is_inherited: row.get(12),
        comment: row.get(13),
    }
}

fn sequence(row: &Row) -> OwnedSequence {
    let kind: &str = row.get(2);
    OwnedSequence {
        attnum: row.get(1),
        is_identity: kind == "i",
        schema: row.get(3),
        name: row.get(4),
        data_type: row.get(5),
        start: row.get(6),
        increment: row.get(7),
        min: row.get(8),
        max: row.get(9),
        cache: row.get(10),
        is_cycled: row.get(11),
    }
}

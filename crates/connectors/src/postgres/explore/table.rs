//! What reading and editing rows must know of one table or view: its columns, and how its rows are named.

use millrace_core::explore::ResultColumn;
use millrace_core::structure::ObjectName;
use millrace_core::{Error, Kind, Result};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::super::names::qualified;
use super::rows::Form;
use super::{PgExplorer, place};

/// Whether a type has an equality that tells different values apart: a default operator class of a B-tree or of hashes, perhaps of the type that it is stored as.
/// Boxes and circles have a `=` that compares areas.
pub(super) const IS_COMPARABLE: &str = "(b.typtype IN ('e', 'r', 'm') OR EXISTS (SELECT FROM pg_opclass o WHERE o.opcdefault
        AND o.opcmethod IN (403, 405) AND (o.opcintype = coalesce(nullif(CASE WHEN b.typlen = -1 THEN b.typelem ELSE 0 END, 0), b.oid)
            OR o.opcintype IN (SELECT c.casttarget FROM pg_cast c WHERE c.castmethod = 'b' AND c.castcontext = 'i'
                AND c.castsource = coalesce(nullif(CASE WHEN b.typlen = -1 THEN b.typelem ELSE 0 END, 0), b.oid))))
    OR EXISTS (SELECT FROM pg_type e WHERE e.oid = b.typelem AND b.typlen = -1 AND e.typtype IN ('e', 'r', 'm')))";

/// The columns that name a row: of the primary key, else of the narrowest unique index that holds no NULLs.
pub(super) const KEY: &str = "SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1] AS attnums, i.indisprimary, i.indrelid,
        row_number() OVER (PARTITION BY i.indrelid ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid) AS place
    FROM pg_index i WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
        AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND NOT a.attnotnull
            AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1]))";

const RELATION: &str = "SELECT c.oid, c.relkind::text, greatest(c.reltuples, 0)::float8, c.relpages
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'f', 'v', 'm')";

/// A domain counts as what it is made of, however many domains are in between.
const FIELDS: &str = "WITH RECURSIVE base AS (
        SELECT a.attnum, a.atttypid AS oid, a.atttypmod AS modifier FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT base.attnum, t.typbasetype, t.typtypmod FROM base JOIN pg_type t ON t.oid = base.oid WHERE t.typtype = 'd')
    SELECT a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1), b.oid, base.modifier,
        NOT a.attnotnull, a.attgenerated <> '', a.attidentity::text, b.typcategory::text = 'A', b.typtype::text, IS_COMPARABLE,
        format_type(b.oid, base.modifier), CASE b.typcategory WHEN 'A' THEN b.typelem ELSE b.oid END
    FROM pg_attribute a JOIN base ON base.attnum = a.attnum JOIN pg_type b ON b.oid = base.oid AND b.typtype <> 'd'
    WHERE a.attrelid = $1 ORDER BY a.attnum";

/// A column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) attnum: i16,
    pub(super) name: String,
    /// As the engine spells it, with its length.
    pub(super) native_type: String,
    /// As a cast takes it that changes no value.
    pub(super) cast: String,
    /// Of the type that a domain is made of.
    pub(super) base_oid: u32,
    /// That type, or what its arrays hold.
    pub(super) element_oid: u32,
    /// The type that a domain is made of, as the engine spells it.
    pub(super) base_type: String,
    /// Characters or bits that fit.
    pub(super) length: Option<i32>,
    /// Whether the type says how many digits, or which parts, are kept (`pg_attribute.atttypmod`).
    pub(super) has_modifier: bool,
    pub(super) is_nullable: bool,
    pub(super) is_generated: bool,
    /// `GENERATED ALWAYS AS IDENTITY`
    pub(super) is_identity_always: bool,
    pub(super) is_array: bool,
    pub(super) is_enum: bool,
    /// Whether values can be told apart.
    pub(super) is_comparable: bool,
}

impl Field {
    /// `json`, `jsonb`
    pub(super) fn is_json(&self) -> bool {
        matches!(self.base_oid, 114 | 3802)
    }

    /// What its text is on the wire.
    pub(super) fn form(&self) -> Form {
        Form::of(self.base_oid)
    }
}

/// How rows are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    PrimaryKey,
    UniqueIndex,
    FullRow,
}

/// A table or view.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) schema: String,
    pub(super) name: String,
    /// `pg_class.relkind`
    pub(super) kind: char,
    pub(super) estimated_rows: f64,
    pub(super) pages: i32,
    pub(super) fields: Vec<Field>,
    /// Indexes of the fields that name a row: its key, or all that can be compared.
    pub(super) key: Vec<usize>,
    pub(super) key_kind: KeyKind,
}

impl Shape {
    /// Looks a table or view up.
    pub(super) async fn load(explorer: &PgExplorer, object: &ObjectName) -> Result<Self> {
        let (schema, name) = place(object);
        let found = explorer.ask(RELATION, &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await?;
        let Some(relation) = found.first() else { return Err(missing(object)) };
        let oid: u32 = relation.get(0);
        let key_sql = format!("SELECT k.attnums, k.indisprimary FROM ({KEY} AND i.indrelid = $1) k WHERE k.place = 1");
        let fields_sql = FIELDS.replace("IS_COMPARABLE", IS_COMPARABLE);
        let oid_param: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 1] = [(&oid, Type::OID)];
        let (fields, key) = futures::try_join!(explorer.ask(&fields_sql, &oid_param), explorer.ask(&key_sql, &oid_param))?;
        let fields: Vec<Field> = fields.iter().map(field).collect();
        let comparable = || (0..fields.len()).filter(|index| fields[*index].is_comparable).collect();
        let (key, key_kind) = match key.first() {
            Some(row) => {
                let attnums: Vec<i16> = row.get(0);
                let place = |attnum: &i16| fields.iter().position(|field| field.attnum == *attnum);
                let kind = if row.get(1) { KeyKind::PrimaryKey } else { KeyKind::UniqueIndex };
                (attnums.iter().filter_map(place).collect(), kind)
            }
            None => (comparable(), KeyKind::FullRow),
        };
        let kind: String = relation.get(1);
        Ok(Self {
            schema: schema.to_owned(),
            name: name.to_owned(),
            kind: kind.chars().next().unwrap_or_default(),
            estimated_rows: relation.get(2),
            pages: relation.get(3),
            fields,
            key,
            key_kind,
        })
    }

    /// The name as it stands in statements.
    pub(super) fn place(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// The key's columns, if it has a true key.
    pub(super) fn true_key(&self) -> &[usize] {
        if self.key_kind == KeyKind::FullRow { &[] } else { &self.key }
    }

    /// A column by its name.
    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// All names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    /// All forms in order.
    pub(super) fn forms(&self) -> Vec<Form> {
        self.fields.iter().map(Field::form).collect()
    }

    /// The columns as results tell them.
    pub(super) fn columns(&self) -> Vec<ResultColumn> {
        let column = |field: &Field| ResultColumn {
            name: field.name.clone(),
            native_type: field.native_type.clone(),
            nullable: Some(field.is_nullable),
            bits: None,
        };
        self.fields.iter().map(column).collect()
    }
}

/// The error for an object that is not there.
pub(super) fn missing(object: &ObjectName) -> Error {
    Error::new(Kind::ObjectMissing, format!("there is no table or view `{object}`")).with("table", object.name.clone())
}

fn field(row: &Row) -> Field {
    let (base_oid, modifier): (u32, i32) = (row.get(4), row.get(5));
    let length = match base_oid {
        // The modifiers of bpchar and varchar count a header of four bytes.
        1042 | 1043 => modifier.checked_sub(4),
        1560 | 1562 => Some(modifier),
        _ => None,
    };
    Field {
        attnum: row.get(0),
        name: row.get(1),
        native_type: row.get(2),
        cast: row.get(3),
        base_oid,
        element_oid: row.get(13),
        base_type: row.get(12),
        has_modifier: modifier >= 0,
        length: length.filter(|length| *length > 0),
        is_nullable: row.get(6),
        is_generated: row.get(7),
        is_identity_always: row.get::<_, String>(8) == "a",
        is_array: row.get(9),
        is_enum: row.get::<_, String>(10) == "e",
        is_comparable: row.get(11),
    }
}

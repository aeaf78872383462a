//! Statements that make tables and views again, without owners and grants.
//!
//! ```text
//!  create_table    CREATE SEQUENCE (of serial columns); CREATE TABLE with its constraints; CREATE TABLE … PARTITION OF; what only ALTER can say; COMMENT ON
//!  create_indexes  those that no constraint makes, of partitions only their own
//! ```
//!
//! Types and the tables that foreign keys refer to must be there.

use millrace_core::structure::TableDdl;

use super::super::names::{literal, qualified, quote};
use super::objects::{Attribute, Constraint, Index, OwnedSequence, Relation};

/// A table with its partitions, each with the one that it is a part of.
pub(super) fn table(root: &Relation, parts: &[(&Relation, &Relation)]) -> TableDdl {
    let mut statements = Vec::new();
    let all = || std::iter::once(root).chain(parts.iter().map(|(_, part)| *part));
    for sequence in all().flat_map(serial) {
        let name = qualified(&sequence.schema, &sequence.name);
        statements.push(format!("CREATE SEQUENCE {name} AS {}{}", sequence.data_type, sequence_options(sequence)));
    }
    statements.push(create(root));
    statements.extend(parts.iter().map(|(_, part)| create(part)));
    for relation in all() {
        let table = qualified(&relation.schema, &relation.name);
        for sequence in serial(relation) {
            if let Some(column) = relation.attributes.iter().find(|attribute| attribute.attnum == sequence.attnum) {
                let name = qualified(&sequence.schema, &sequence.name);
                statements.push(format!("ALTER SEQUENCE {name} OWNED BY {table}.{}", quote(&column.name)));
            }
        }
    }
    later(root, None, &mut statements);
    for (parent, part) in parts {
        later(part, Some(parent), &mut statements);
    }
    let create_indexes = all().flat_map(indexes).collect();
    TableDdl { create_table: statements.iter().map(|statement| format!("{statement};")).collect::<Vec<_>>().join("\n"), create_indexes }
}

/// A view with its comments, and the indexes of a materialized one.
pub(super) fn view(view: &Relation) -> String {
    let name = qualified(&view.schema, &view.name);
    let query = view.query.as_deref().unwrap_or_default().trim().trim_end_matches(';').trim_end();
    let options = options(&view.options).map(|options| format!(" WITH ({options})")).unwrap_or_default();
    let mut statements = Vec::new();
    if view.kind == "m" {
        let data = if view.is_populated { "WITH DATA" } else { "WITH NO DATA" };
        statements.push(format!("CREATE MATERIALIZED VIEW {name}{options} AS\n{query}\n{data}"));
    } else {
        statements.push(format!("CREATE VIEW {name}{options} AS\n{query}"));
    }
    comments(view, if view.kind == "m" { "MATERIALIZED VIEW" } else { "VIEW" }, &mut statements);
    let statements = statements.iter().map(|statement| format!("{statement};"));
    statements.chain(indexes(view)).collect::<Vec<_>>().join("\n")
}

/// Sequences of columns that are no identity columns.
fn serial(relation: &Relation) -> impl Iterator<Item = &OwnedSequence> {
    relation.sequences.iter().filter(|sequence| !sequence.is_identity)
}

/// The statement that makes a table or partition.
fn create(relation: &Relation) -> String {
    let mut text = match (relation.kind.as_str(), relation.is_unlogged) {
        ("f", _) => "CREATE FOREIGN TABLE ".to_owned(),
        (_, true) => "CREATE UNLOGGED TABLE ".to_owned(),
        (_, false) => "CREATE TABLE ".to_owned(),
    };
    text.push_str(&qualified(&relation.schema, &relation.name));
    let is_partition = relation.bound.is_some();
    let mut lines: Vec<String> = Vec::new();
    if is_partition {
        text.push_str(&format!(" PARTITION OF {}", relation.inherits.join(", ")));
    } else {
        lines.extend(relation.attributes.iter().filter(|attribute| attribute.is_local).map(|attribute| column(relation, attribute)));
    }
    lines.extend(constraints(relation).filter(|constraint| constraint.is_validated).map(constraint_clause));
    if !lines.is_empty() {
        text.push_str(&format!(" (\n    {}\n)", lines.join(",\n    ")));
    } else if !is_partition {
        text.push_str(" ()");
    }
    if let Some(bound) = &relation.bound {
        text.push_str(&format!("\n{bound}"));
    } else if !relation.inherits.is_empty() {
        text.push_str(&format!("\nINHERITS ({})", relation.inherits.join(", ")));
    }
    if let Some(key) = &relation.partition_key {
        text.push_str(&format!("\nPARTITION BY {key}"));
    }
    if let Some(server) = &relation.server {
        text.push_str(&format!("\nSERVER {}{}", quote(server), server_options(&relation.server_options)));
    }
    if let Some(options) = options(&relation.options) {
        text.push_str(&format!("\nWITH ({options})"));
    }
    text
}

/// Constraints of its own, without those that a parent has handed down.
fn constraints(relation: &Relation) -> impl Iterator<Item = &Constraint> {
    relation.constraints.iter().filter(|constraint| constraint.is_local)
}

fn constraint_clause(constraint: &Constraint) -> String {
    format!("CONSTRAINT {} {}", quote(&constraint.name), constraint.definition)
}

fn column(relation: &Relation, attribute: &Attribute) -> String {
    let mut text = format!("{} {}", quote(&attribute.name), attribute.full_type);
    text.push_str(&server_options(&attribute.server_options));
    if let Some(collation) = &attribute.collation {
        text.push_str(&format!(" COLLATE {collation}"));
    }
    if let Some(expression) = &attribute.expression {
        match attribute.generated.as_str() {
            "" => text.push_str(&format!(" DEFAULT {expression}")),
            "v" => text.push_str(&format!(" GENERATED ALWAYS AS ({expression}) VIRTUAL")),
            _ => text.push_str(&format!(" GENERATED ALWAYS AS ({expression}) STORED")),
        }
    }
    if !attribute.identity.is_empty() {
        let when = if attribute.identity == "a" { "ALWAYS" } else { "BY DEFAULT" };
        text.push_str(&format!(" GENERATED {when} AS IDENTITY"));
        let sequence = relation.sequences.iter().find(|sequence| sequence.is_identity && sequence.attnum == attribute.attnum);
        if let Some(sequence) = sequence {
            let name = qualified(&sequence.schema, &sequence.name);
            let is_usual = sequence.schema == relation.schema && sequence.name == format!("{}_{}_seq", relation.name, attribute.name);
            let named = if is_usual { String::new() } else { format!(" SEQUENCE NAME {name}") };
            let options = named + &sequence_options(sequence);
            if !options.is_empty() {
                text.push_str(&format!(" ({})", options.trim_start()));
            }
        }
    }
    if !attribute.is_nullable {
        text.push_str(" NOT NULL");
    }
    text
}

/// What differs from the defaults of the type and direction (manual, `CREATE SEQUENCE`).
fn sequence_options(sequence: &OwnedSequence) -> String {
    let (least, greatest) = match sequence.data_type.as_str() {
        "smallint" => (i64::from(i16::MIN), i64::from(i16::MAX)),
        "integer" => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    let is_rising = sequence.increment > 0;
    let (min, max) = if is_rising { (1, greatest) } else { (least, -1) };
    let start = if is_rising { sequence.min } else { sequence.max };
    let options = [
        (sequence.increment != 1, format!(" INCREMENT BY {}", sequence.increment)),
        (sequence.min != min, format!(" MINVALUE {}", sequence.min)),
        (sequence.max != max, format!(" MAXVALUE {}", sequence.max)),
        (sequence.start != start, format!(" START WITH {}", sequence.start)),
        (sequence.cache != 1, format!(" CACHE {}", sequence.cache)),
        (sequence.is_cycled, " CYCLE".to_owned()),
    ];
    options.into_iter().filter(|(differs, _)| *differs).map(|(_, text)| text).collect()
}

/// What only `ALTER` and `COMMENT ON` can say.
fn later(relation: &Relation, parent: Option<&Relation>, statements: &mut Vec<String>) {
    let foreign = if relation.kind == "f" { "FOREIGN TABLE" } else { "TABLE" };
    let table = qualified(&relation.schema, &relation.name);
    for attribute in &relation.attributes {
        let alter = format!("ALTER {foreign} ONLY {table} ALTER COLUMN {}", quote(&attribute.name));
        let is_inherited = !attribute.is_local || relation.bound.is_some();
        let of_parent = parent.and_then(|parent| parent.attributes.iter().find(|other| other.name == attribute.name));
        if let Some(expression) = attribute.expression.as_ref().filter(|_| is_inherited && attribute.generated.is_empty())
            && of_parent.is_none_or(|other| other.expression.as_ref() != Some(expression))
        {
            statements.push(format!("{alter} SET DEFAULT {expression}"));
        }
        let storage =
            attribute.storage.as_deref().filter(|storage| of_parent.is_none_or(|other| other.storage.as_deref() != Some(storage)));
        let storage = match storage {
            Some("p") => Some("PLAIN"),
            Some("e") => Some("EXTERNAL"),
            Some("m") => Some("MAIN"),
            Some("x") => Some("EXTENDED"),
            _ => None,
        };
        if let Some(storage) = storage {
            statements.push(format!("{alter} SET STORAGE {storage}"));
        }
    }
    // Within `CREATE TABLE` they would count as validated.
    for constraint in constraints(relation).filter(|constraint| !constraint.is_validated) {
        statements.push(format!("ALTER {foreign} {table} ADD {}", constraint_clause(constraint)));
    }
    comments(relation, foreign, statements);
    for constraint in constraints(relation) {
        if let Some(comment) = &constraint.comment {
            statements.push(format!("COMMENT ON CONSTRAINT {} ON {table} IS {}", quote(&constraint.name), literal(comment)));
        }
    }
    for index in relation.indexes.iter().filter(|index| index.backs_constraint && !index.is_inherited) {
        statements.extend(index_comment(relation, index));
    }
}

fn comments(relation: &Relation, kind: &str, statements: &mut Vec<String>) {
    let name = qualified(&relation.schema, &relation.name);
    if let Some(comment) = &relation.comment {
        statements.push(format!("COMMENT ON {kind} {name} IS {}", literal(comment)));
    }
    for attribute in &relation.attributes {
        if let Some(comment) = &attribute.comment {
            statements.push(format!("COMMENT ON COLUMN {name}.{} IS {}", quote(&attribute.name), literal(comment)));
        }
    }
}

fn indexes(relation: &Relation) -> Vec<String> {
    let own = relation.indexes.iter().filter(|index| !index.backs_constraint && !index.is_inherited);
    own.flat_map(|index| {
        let create = if relation.kind == "p" { for_partitions_too(index) } else { index.definition.clone() };
        [Some(create), index_comment(relation, index)].into_iter().flatten().map(|statement| format!("{statement};"))
    })
    .collect()
}

/// The server writes `ON ONLY` for an index of a partitioned table, because a dump makes those of the partitions itself.
fn for_partitions_too(index: &Index) -> String {
    let definition = &index.definition;
    // The name is quoted only where it must be, and may hold anything then.
    let after_name = [quote(&index.name), index.name.clone()].iter().find_map(|name| {
        let head =
            ["CREATE INDEX ", "CREATE UNIQUE INDEX "].iter().find(|head| definition.starts_with(&format!("{head}{name} ON ONLY ")))?;
        Some(head.len() + name.len())
    });
    match after_name {
        Some(at) => format!("{}{}", &definition[..at], definition[at..].replacen(" ON ONLY ", " ON ", 1)),
        None => definition.clone(),
    }
}

fn index_comment(relation: &Relation, index: &Index) -> Option<String> {
    let comment = index.comment.as_ref()?;
    Some(format!("COMMENT ON INDEX {} IS {}", qualified(&relation.schema, &index.name), literal(comment)))
}

/// Storage parameters: `fillfactor=70`.
fn options(options: &[String]) -> Option<String> {
    let each = |option: &String| match option.split_once('=') {
        Some((name, value)) => format!("{name} = {}", literal(value)),
        None => option.clone(),
    };
    (!options.is_empty()).then(|| options.iter().map(each).collect::<Vec<_>>().join(", "))
}

fn server_options(options: &[String]) -> String {
    let each = |option: &String| {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        format!("{} {}", quote(name), literal(value))
    };
    if options.is_empty() { String::new() } else { format!(" OPTIONS ({})", options.iter().map(each).collect::<Vec<_>>().join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(change: impl FnOnce(&mut OwnedSequence)) -> String {
        let mut sequence = OwnedSequence {
            data_type: "integer".to_owned(),
            start: 1,
            increment: 1,
            min: 1,
            max: 2_147_483_647,
            cache: 1,
            ..OwnedSequence::default()
        };
        change(&mut sequence);
        sequence_options(&sequence)
    }

    #[test]
    fn a_sequence_says_only_what_is_unusual() {
        assert_eq!(sequence(|_| ()), "");
        assert_eq!(sequence(|it| (it.start, it.is_cycled) = (5, true)), " START WITH 5 CYCLE");
        let falling = |it: &mut OwnedSequence| (it.increment, it.min, it.max, it.start) = (-1, -2_147_483_648, -1, -1);
        assert_eq!(sequence(falling), " INCREMENT BY -1");
    }

    #[test]
    fn an_index_of_a_partitioned_table_reaches_its_partitions() {
        let index = |name: &str, definition: &str| Index { name: name.to_owned(), definition: definition.to_owned(), ..Index::default() };
        let plain = index("i", "CREATE INDEX i ON ONLY public.t USING btree (a)");
        assert_eq!(for_partitions_too(&plain), "CREATE INDEX i ON public.t USING btree (a)");
        let odd = index("a ON ONLY b", "CREATE UNIQUE INDEX \"a ON ONLY b\" ON ONLY public.t USING btree (a)");
        assert_eq!(for_partitions_too(&odd), "CREATE UNIQUE INDEX \"a ON ONLY b\" ON public.t USING btree (a)");
    }
}

//! What a database contains.

use millrace_core::Kind;
use millrace_core::explore::{Explorer, ObjectFilter};
use millrace_core::structure::DatabaseStructure;
use millrace_tests::database::MySqlDatabase;
use millrace_tests::servers::shared;
use serde_json::{Value, json};

use super::{explored, explorer, object};

const RICH: &[&str] = &[
    "CREATE TABLE parents (a INT UNSIGNED NOT NULL, b VARCHAR(10) COLLATE utf8mb4_bin NOT NULL, PRIMARY KEY (b, a)) COMMENT 'the ''parents'''",
    "CREATE TABLE rich (
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY COMMENT 'the key',
        kind ENUM('a','it''s','ü,v') NOT NULL DEFAULT 'it''s',
        flags SET('x','y'),
        price DECIMAL(10,2) DEFAULT 1.50,
        twice DECIMAL(11,2) GENERATED ALWAYS AS (price * 2) STORED,
        shorter VARCHAR(20) GENERATED ALWAYS AS (LEFT(note, 20)) VIRTUAL,
        note VARCHAR(200) CHARACTER SET latin1,
        code CHAR(8) NOT NULL,
        pb VARCHAR(10) COLLATE utf8mb4_bin,
        pa INT UNSIGNED,
        changed TIMESTAMP(3) NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
        document JSON,
        UNIQUE KEY by_code (code), KEY mixed (kind, note(5)), FULLTEXT KEY words (note),
        CONSTRAINT dear CHECK (price > 0),
        CONSTRAINT to_parent FOREIGN KEY (pb, pa) REFERENCES parents (b, a) ON UPDATE CASCADE ON DELETE SET NULL)",
    "CREATE TABLE parts (id INT NOT NULL, d DATE NOT NULL, PRIMARY KEY (id, d)) PARTITION BY RANGE (YEAR(d))
        (PARTITION old VALUES LESS THAN (2020), PARTITION new VALUES LESS THAN MAXVALUE)",
    "CREATE TABLE unkeyed (a INT, b FLOAT, UNIQUE KEY may_be_null (a))",
    "CREATE TABLE uniquely (a INT NOT NULL, b TEXT, UNIQUE KEY begins (b(4)), UNIQUE KEY by_a (a))",
    "CREATE VIEW cheap AS SELECT id, price FROM rich WHERE price < 5",
    "CREATE SEQUENCE numbers START WITH 5 INCREMENT BY 3 MAXVALUE 1000 CACHE 10 CYCLE",
    "CREATE TRIGGER upper_code BEFORE INSERT ON rich FOR EACH ROW SET NEW.code = UPPER(NEW.code)",
    "CREATE FUNCTION doubled(n INT) RETURNS BIGINT DETERMINISTIC RETURN n * 2",
    "CREATE PROCEDURE lists(IN wanted INT, OUT found INT) BEGIN SELECT wanted; SET found = 1; END",
];

async fn structure(explorer: &mut Box<dyn Explorer>) -> DatabaseStructure {
    explorer.structure(&ObjectFilter::default()).await.unwrap()
}

/// What a comparison of two databases looks at: everything but names of the database and sizes.
fn comparable(structure: &DatabaseStructure, database: &str) -> Value {
    let mut tables = structure.tables.clone();
    for table in &mut tables {
        table.estimated_rows = None;
        table.estimated_size_bytes = None;
        table.partitions.iter_mut().for_each(|partition| (partition.size_bytes, partition.approx_rows) = (0, 0));
    }
    let text = json!({"tables": tables, "views": structure.views}).to_string().replace(database, "the_database");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn the_structure_says_everything_about_a_rich_database() {
    let (database, mut explorer) = explored("rich", RICH).await;
    let found = structure(&mut explorer).await;
    let names: Vec<&str> = found.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["parents", "parts", "rich", "uniquely", "unkeyed"]);
    let [parents, parts, rich, uniquely, unkeyed] = found.tables.as_slice() else { panic!("five tables") };
    assert_eq!((parents.comment.as_str(), &parents.primary_keys), ("the 'parents'", &vec!["b".to_owned(), "a".to_owned()]));
    assert_eq!(parents.columns[0].is_unsigned, Some(true));
    assert_eq!(parents.columns[1].collation.as_deref(), Some("utf8mb4_bin"));
    assert_eq!((rich.schema.as_str(), rich.database.as_str()), (database.name.as_str(), database.name.as_str()));

    let column = |name: &str| rich.columns.iter().find(|column| column.name == name).unwrap();
    let id = column("id");
    assert_eq!(id.column_type.as_deref(), Some("bigint(20) unsigned"));
    assert!(id.auto_increment && id.is_primary_key && id.is_unique && !id.is_nullable);
    assert_eq!((id.comment.as_deref(), id.default_value.as_deref()), (Some("the key"), None));
    assert_eq!(column("kind").enum_values, Some(vec!["a".to_owned(), "it's".to_owned(), "ü,v".to_owned()]));
    assert_eq!(column("flags").enum_values, Some(vec!["x".to_owned(), "y".to_owned()]));
    let price = column("price");
    assert_eq!((price.precision, price.scale, price.default_value.as_deref()), (Some(10), Some(2), Some("1.50")));
    assert_eq!(price.check_constraints.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(), ["dear"]);
    assert_eq!(column("twice").generated.as_deref(), Some("`price` * 2"));
    assert!(column("shorter").generated.is_some());
    assert_eq!((column("note").character_set.as_deref(), column("note").length), (Some("latin1"), Some(200)));
    assert!(column("code").is_unique && !column("pa").is_unique);
    assert_eq!(column("pa").default_value, None);
    assert_eq!(column("changed").default_value.as_deref(), Some("current_timestamp(3)"));

    let index = |name: &str| rich.indexes.iter().find(|index| index.name == name).unwrap();
    assert!(index("words").is_full_text_index && !index("mixed").is_full_text_index);
    assert_eq!(index("mixed").columns, ["kind", "note"]);
    assert!(index("PRIMARY").is_primary && index("by_code").is_unique && !index("mixed").is_unique);
    let keys: Vec<(&str, &str)> =
        rich.foreign_keys.iter().map(|key| (key.source_column.as_str(), key.referenced_column.as_str())).collect();
    assert_eq!(keys, [("pb", "b"), ("pa", "a")]);
    assert_eq!(rich.foreign_keys[0].on_update.as_deref(), Some("CASCADE"));
    assert_eq!(rich.foreign_keys[0].on_delete.as_deref(), Some("SET NULL"));

    assert!(parts.is_partitioned && !rich.is_partitioned);
    assert_eq!(parts.partition_strategy.as_deref(), Some("RANGE"));
    let partitions: Vec<(&str, &str, bool)> =
        parts.partitions.iter().map(|part| (part.name.as_str(), part.values.as_str(), part.is_default)).collect();
    assert_eq!(partitions, [("old", "2020", false), ("new", "MAXVALUE", true)]);

    let key = |table: &millrace_core::structure::TableStructure| (table.edit_key_type.clone().unwrap(), table.edit_key_columns.join(","));
    assert_eq!(key(rich), ("primary_key".into(), "id".into()));
    assert_eq!(key(uniquely), ("unique_index".into(), "a".into()));
    assert_eq!(key(unkeyed), ("full_row".into(), "a,b".into()));
    assert!(unkeyed.editability_reason.is_some() && rich.editability_reason.is_none());
}

#[tokio::test]
async fn views_triggers_routines_and_sequences_are_found() {
    let (_database, mut explorer) = explored("others", RICH).await;
    let found = structure(&mut explorer).await;
    let [view] = found.views.as_slice() else { panic!("one view") };
    assert_eq!(view.name, "cheap");
    assert!(view.definition.contains("< 5"), "{}", view.definition);
    assert_eq!(view.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "price"]);
    let [trigger] = found.triggers.as_slice() else { panic!("one trigger") };
    assert_eq!((trigger.name.as_str(), trigger.table_name.as_str()), ("upper_code", "rich"));
    assert_eq!((trigger.timing.as_deref(), trigger.event.as_deref()), (Some("BEFORE"), Some("INSERT")));
    let [function, procedure] = found.routines.as_slice() else { panic!("two routines") };
    assert_eq!((function.name.as_str(), function.routine_type.as_str()), ("doubled", "function"));
    assert_eq!((function.signature.as_deref(), function.return_type.as_deref()), (Some("n int(11)"), Some("bigint(20)")));
    assert_eq!((procedure.name.as_str(), procedure.routine_type.as_str()), ("lists", "procedure"));
    assert_eq!(procedure.signature.as_deref(), Some("wanted int(11), OUT found int(11)"));
    assert!(procedure.definition.as_deref().is_some_and(|text| text.contains("SELECT wanted")));
    let [sequence] = found.sequences.as_slice() else { panic!("one sequence") };
    assert_eq!((sequence.start_value, sequence.increment, sequence.max_value, sequence.cache_size), (5, 3, 1000, 10));
    assert!(sequence.is_cycled && sequence.last_value.is_none());

    let names = explorer.names(&ObjectFilter::default()).await.unwrap();
    let list = |names: &[millrace_core::structure::ObjectName]| names.iter().map(|name| name.name.clone()).collect::<Vec<_>>().join(",");
    assert_eq!(list(&names.tables), "parents,parts,rich,uniquely,unkeyed");
    assert_eq!((list(&names.views), list(&names.sequences)), ("cheap".into(), "numbers".into()));
    assert_eq!((list(&names.functions), list(&names.procedures)), ("doubled".into(), "lists".into()));
    assert!(names.schemas.is_empty());
}

#[tokio::test]
async fn the_statements_of_a_structure_make_an_equal_one() {
    let (first, mut one) = explored("made_once", RICH).await;
    let found = structure(&mut one).await;
    let second = MySqlDatabase::create(&shared().await.mysql, "made_again").await.unwrap();
    let mut statements = vec!["SET foreign_key_checks = 0".to_owned()];
    statements.extend(found.tables.iter().map(|table| table.ddl.as_ref().unwrap().create_table.clone()));
    statements.extend(found.views.iter().map(|view| view.ddl.as_ref().unwrap().create_view.replace(&first.name, &second.name)));
    second.execute(&statements).await.unwrap();
    let again = structure(&mut explorer(&second.name).await).await;
    assert_eq!(comparable(&again, &second.name), comparable(&found, &first.name));
}

#[tokio::test]
async fn single_objects_are_found_by_their_exact_names() {
    let (database, mut explorer) = explored("single", RICH).await;
    assert_eq!(explorer.table(&object("rich")).await.unwrap().columns.len(), 12);
    assert_eq!(explorer.view(&object("cheap")).await.unwrap().name, "cheap");
    for missing in ["cheap", "RICH", "numbers", "x` y", ""] {
        assert_eq!(explorer.table(&object(missing)).await.unwrap_err().kind(), Kind::ObjectMissing, "{missing}");
    }
    assert_eq!(explorer.view(&object("rich")).await.unwrap_err().kind(), Kind::ObjectMissing);
    database.execute(&["CREATE TABLE `od``d \"n;ame` (`a``b` INT PRIMARY KEY)".into()]).await.unwrap();
    assert_eq!(explorer.table(&object("od`d \"n;ame")).await.unwrap().primary_keys, ["a`b"]);
    assert_eq!(explorer.create_database(&database.name).await.unwrap_err().kind(), Kind::Conflict);
}

#[tokio::test]
async fn an_overview_counts_small_tables_and_gives_advice() {
    let (database, mut explorer) = explored("glance", RICH).await;
    database
        .execute(&["CREATE TABLE plain (a INT PRIMARY KEY) ENGINE=MyISAM".into(), "INSERT INTO unkeyed VALUES (1, 1), (2, 2)".into()])
        .await
        .unwrap();
    let overview = explorer.overview().await.unwrap();
    assert_eq!((overview.counts.tables, overview.counts.views, overview.counts.functions), (6, 1, Some(1)));
    let exact = |name: &str| overview.all_tables_by_rows.iter().find(|table| table.name == name).unwrap().exact_rows;
    assert_eq!((exact("unkeyed"), exact("plain")), (Some(2), Some(0)));
    assert_eq!(overview.all_tables_by_rows[0].name, "unkeyed");
    assert!(overview.size_bytes > 0 && overview.activity.connections.used > 0 && overview.activity.connections.max.is_some());
    assert!(overview.health.binlog.is_some());
    let advice: String = overview.notes.iter().map(|note| note.message.as_str()).collect();
    assert!(advice.contains("`unkeyed`") && advice.contains("`plain`") && !advice.contains("`rich`"), "{advice}");
}

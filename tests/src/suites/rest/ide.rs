//! Looking into databases and editing their rows, on MySQL and PostgreSQL alike.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Mode, Place};
use crate::api::Response;
use crate::database::{MySqlDatabase, PgDatabase};
use crate::servers::shared;

/// One engine's database under test.
struct Side {
    engine: &'static str,
    connection: String,
    database: String,
    /// The base of its paths.
    base: String,
}

const MYSQL: &[&str] = &[
    "CREATE TABLE customers (id BIGINT PRIMARY KEY, name VARCHAR(40) NOT NULL, balance DECIMAL(65,30), note TEXT, photo VARBINARY(10), since DATETIME(6))",
    "CREATE TABLE orders (customer BIGINT NOT NULL, line INT NOT NULL, amount DECIMAL(10,2) NOT NULL DEFAULT 1.50, PRIMARY KEY (customer, line),
        CONSTRAINT of_customer FOREIGN KEY (customer) REFERENCES customers (id))",
    "CREATE TABLE loose (a INT, b VARCHAR(20))",
    "CREATE INDEX by_name ON customers (name)",
    "CREATE VIEW rich AS SELECT id, name FROM customers WHERE balance > 100",
];
const POSTGRES: &[&str] = &[
    "CREATE TABLE customers (id BIGINT PRIMARY KEY, name VARCHAR(40) NOT NULL, balance NUMERIC(65,30), note TEXT, photo BYTEA, since TIMESTAMP(6))",
    "CREATE TABLE orders (customer BIGINT NOT NULL, line INT NOT NULL, amount NUMERIC(10,2) NOT NULL DEFAULT 1.50, PRIMARY KEY (customer, line),
        CONSTRAINT of_customer FOREIGN KEY (customer) REFERENCES customers (id))",
    "CREATE TABLE loose (a INT, b VARCHAR(20))",
    "CREATE INDEX by_name ON customers (name)",
    "CREATE VIEW rich AS SELECT id, name FROM customers WHERE balance > 100",
];

impl Side {
    fn path(&self, rest: &str) -> String {
        format!("{}{rest}", self.base)
    }

    async fn get(&self, place: &Place, rest: &str) -> Value {
        let answer = place.api.get(&self.path(rest)).await.unwrap();
        assert_eq!(answer.status, 200, "{} {rest}: {answer:?}", self.engine);
        answer.body
    }

    async fn call(&self, place: &Place, method: Method, rest: &str, body: Value) -> Response {
        place.api.call(method, &self.path(rest), Some(body)).await.unwrap()
    }

    async fn sql(&self, place: &Place, sql: &str) -> Value {
        let answer = self.call(place, Method::POST, "/query", json!({"query": sql})).await;
        assert_eq!(answer.status, 200, "{} {sql}: {answer:?}", self.engine);
        answer.body
    }

    /// Another connection to the same database, which has sessions of its own.
    async fn beside(&self, place: &Place) -> Self {
        let server = if self.engine == "mysql" { &place.mysql } else { &place.postgres };
        let name = format!("beside-{}", self.connection);
        let connection = place.api.connect(&name, self.engine, server, &self.database).await.unwrap();
        let base = format!("/connections/{connection}/databases/{}", self.database);
        Self { engine: self.engine, connection, database: self.database.clone(), base }
    }

    /// Says which statement waits for a lock that nobody should hold any more.
    async fn sql_at_once(&self, place: &Place, sql: &str) {
        let begun = Instant::now();
        self.sql(place, sql).await;
        assert!(begun.elapsed() < Duration::from_secs(15), "{} {sql}: it took {:?}", self.engine, begun.elapsed());
    }

    fn refusal(&self, answer: &Response) -> (u16, String) {
        (answer.status, answer.body["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// The same tables in both engines, with connections to them.
async fn sides(place: &Place, name: &str) -> [Side; 2] {
    let mysql = MySqlDatabase::create(&shared().await.mysql, name).await.unwrap();
    mysql.execute(&MYSQL.iter().map(|sql| (*sql).to_owned()).collect::<Vec<_>>()).await.unwrap();
    let postgres = PgDatabase::create(&shared().await.postgres, name).await.unwrap();
    postgres.client.batch_execute(&POSTGRES.join(";")).await.unwrap();
    let side = async |engine: &'static str, server, database: &str| {
        let connection = place.api.connect(&format!("{name}-{engine}"), engine, server, database).await.unwrap();
        let base = format!("/connections/{connection}/databases/{database}");
        Side { engine, connection, database: database.to_owned(), base }
    };
    [side("mysql", &place.mysql, &mysql.name).await, side("postgresql", &place.postgres, &postgres.name).await]
}

/// What federated statements can name, and whether they could run.
pub async fn federated_statements_are_validated_and_their_names_are_listed(place: &Place) {
    let sides = sides(place, "names").await;
    let mappings: Vec<Value> =
        sides.iter().map(|side| json!({"alias": side.engine, "connectionId": side.connection, "database": side.database})).collect();
    let listed = place.api.post("/query/federated/schemas", json!({"connections": mappings})).await.unwrap();
    assert_eq!(listed.status, 200, "{listed:?}");
    for (side, names) in sides.iter().zip(listed.body.as_array().unwrap()) {
        let schema = if side.engine == "mysql" { side.database.as_str() } else { "public" };
        assert_eq!(names["alias"], side.engine);
        assert!(names["schemas"].as_array().unwrap().contains(&json!(schema)), "{names}");
        assert_eq!(names["tables"][schema], json!(["customers", "loose", "orders", "rich"]), "{names}");
    }
    for (sql, is_valid) in [
        ("SELECT count(*) FROM postgresql.public.customers", true),
        ("SELECT nothing FROM postgresql.public.customers", false),
        ("SELECT * FROM postgresql.public.nowhere", false),
        ("DROP TABLE postgresql.public.customers", false),
        ("SELEKT 1", false),
    ] {
        let answer = place.api.post("/query/federated/validate", json!({"sql": sql, "connections": mappings})).await.unwrap();
        assert_eq!((answer.status, &answer.body["valid"]), (200, &json!(is_valid)), "{sql}: {answer:?}");
        assert_eq!(answer.body["errors"].is_array(), !is_valid, "{sql}: {answer:?}");
    }
    for path in ["/query/federated/validate", "/query/federated/schemas"] {
        let body = json!({"sql": "SELECT 1", "connections": [{"alias": "1x", "connectionId": sides[0].connection}]});
        let body = if path.ends_with("schemas") { json!({"connections": body["connections"]}) } else { body };
        let answer = place.api.post(path, body).await.unwrap();
        assert_eq!(refusal_of(&answer), (400, "VALIDATION_FAILED"), "{path}: {answer:?}");
    }
}

fn refusal_of(answer: &Response) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

/// What statements leave open, or nobody reads to its end, holds no lock once they have been answered.
pub async fn statements_leave_no_lock_behind(place: &Place) {
    for side in sides(place, "locks").await {
        let other = side.beside(place).await;
        let values: Vec<String> = (1..=250).map(|a| format!("({a}, 'x')")).collect();
        side.sql(place, &format!("INSERT INTO loose (a, b) VALUES {}", values.join(", "))).await;
        side.sql(place, "BEGIN; DELETE FROM loose WHERE a = 1").await;
        other.sql_at_once(place, "UPDATE loose SET b = 'y' WHERE a = 1").await;
        assert_eq!(side.get(place, "/tables/loose/count").await["count"], 250, "{}: what nobody committed is undone", side.engine);
        // Much more than lies on the way.
        let much = json!({"query": "SELECT l.a, repeat('x', 1000) AS x FROM loose l CROSS JOIN loose r", "maxRows": 1});
        let answer = side.call(place, Method::POST, "/query", much).await;
        assert_eq!((answer.status, &answer.body["truncated"], &answer.body["count"]), (200, &json!(true), &json!(1)));
        other.sql_at_once(place, "DROP TABLE loose").await;
    }
}

/// Databases, schemas, tables, views, columns, keys and statements that make them.
pub async fn structure_is_walked_from_databases_to_columns(place: &Place) {
    for side in sides(place, "walk").await {
        let databases = place.api.get(&format!("/connections/{}/databases", side.connection)).await.unwrap().body;
        let databases = databases.as_array().unwrap();
        let own = databases.iter().find(|entry| entry["name"] == *side.database).expect("the database");
        assert_eq!(own["isSystem"], false);
        assert!(databases.iter().any(|entry| entry["isSystem"] == true && entry["systemReason"].is_string()), "{databases:?}");
        let schemas = side.get(place, "/schemas").await;
        let is_postgres = side.engine == "postgresql";
        assert_eq!(schemas.as_array().unwrap().iter().any(|schema| schema["name"] == "public"), is_postgres, "{schemas}");
        assert_eq!(side.get(place, "/tables").await, json!(["customers", "loose", "orders"]));
        assert_eq!(side.get(place, "/views").await, json!(["rich"]));

        let meta = side.get(place, "/meta").await;
        let table = |name: &str| {
            let found = meta["tables"].as_object().unwrap().values().find(|table| table["name"] == name);
            found.unwrap_or_else(|| panic!("{} has no {name}: {meta}", side.engine))
        };
        let orders = table("orders");
        assert_eq!(orders["primaryKeys"], json!(["customer", "line"]));
        assert_eq!((&orders["isEditable"], &orders["editKeyColumns"]), (&json!(true), &json!(["customer", "line"])));
        assert_eq!(orders["foreignKeys"][0]["referencedTable"], "customers");
        assert_eq!(orders["columns"][2]["defaultValue"]["Valid"], true);
        assert_eq!(table("customers")["columns"][1]["isNullable"], false);
        assert_eq!(table("customers")["columns"][3]["defaultValue"]["Valid"], false);
        assert!(table("customers")["indexes"].as_array().unwrap().iter().any(|index| index["name"] == "by_name"));
        assert_eq!(table("loose")["editKeyType"], "full_row");
        let view = meta["views"].as_object().unwrap().values().next().unwrap();
        assert!(view["name"] == "rich" && view["definition"].as_str().unwrap().contains("balance"), "{view}");

        assert_eq!(side.get(place, "/tables/orders/meta").await["primaryKeys"], json!(["customer", "line"]));
        assert_eq!(side.get(place, "/views/rich/meta").await["columns"][1]["name"], "name");
        let ddl = side.get(place, "/tables/orders/ddl").await;
        assert!(ddl["ddl"]["createTable"].as_str().unwrap().contains("of_customer"), "{ddl}");
        let ddl = side.get(place, "/views/rich/ddl").await;
        assert!(ddl["ddl"]["createView"].as_str().unwrap().contains("balance"), "{ddl}");
        let summary = side.get(place, "/meta?summary=true").await;
        assert_eq!((&summary["stats"]["tables"], &summary["stats"]["views"]), (&json!(3), &json!(1)));
        let overview = side.get(place, "/overview").await;
        assert_eq!((&overview["counts"]["tables"], &overview["counts"]["views"]), (&json!(3), &json!(1)), "{overview}");
        assert!(overview["allTablesBySize"].as_array().is_some_and(|list| list.len() == 3), "{overview}");
        let health = if is_postgres { &overview["health"]["wal"]["level"] } else { &overview["health"]["binlog"]["enabled"] };
        assert!(*health == "logical" || *health == true, "{overview}");
        for missing in ["/tables/nowhere/meta", "/views/nowhere/ddl", "/tables/nowhere/data"] {
            let answer = place.api.get(&side.path(missing)).await.unwrap();
            assert_eq!(side.refusal(&answer), (422, "OBJECT_MISSING".into()), "{missing}: {answer:?}");
        }
    }
}

/// Pages by offset and by cursor, conditions, orders, counts.
pub async fn pages_hold_every_row_once_in_the_order_asked_for(place: &Place) {
    for side in sides(place, "pages").await {
        let values: Vec<String> = (1..=250)
            .map(|id| {
                let name = if id % 3 == 0 { "it''s" } else { "plain" };
                let balance = if id % 5 == 0 { "NULL".to_owned() } else { format!("{}.25", id % 7) };
                format!("({id}, '{name}', {balance})")
            })
            .collect();
        side.sql(place, &format!("INSERT INTO customers (id, name, balance) VALUES {}", values.join(", "))).await;
        let first = side.get(place, "/tables/customers/data?limit=10").await;
        assert_eq!((&first["count"], &first["total_count"], &first["rows"][0][0]), (&json!(10), &json!(250), &json!(1)), "{first}");
        assert_eq!(first["columns"][1], "name");
        assert_eq!(first["etags"].as_array().unwrap().len(), 10);
        let skipped = side.get(place, "/tables/customers/data?limit=10&offset=240&skip_count=true&order_by=id&order_dir=DESC").await;
        assert_eq!((&skipped["total_count"], &skipped["rows"][0][0]), (&json!(0), &json!(10)), "{skipped}");
        let capped = side.get(place, "/tables/customers/data?limit=10&offset=15&max_rows=20").await;
        assert_eq!((&capped["count"], &capped["total_count"]), (&json!(5), &json!(20)), "{capped}");
        // By cursor, too, no more rows are reached.
        let (mut reached, mut after) = (0, String::new());
        for (count, has_next) in [(10, true), (10, true), (5, false)] {
            let page = side.get(place, &format!("/tables/customers/data?limit=10&max_rows=25{after}")).await;
            assert_eq!(
                (&page["count"], &page["total_count"], page["nextCursor"].is_string()),
                (&json!(count), &json!(25), has_next),
                "{page}"
            );
            assert_eq!(page["rows"][0][0], json!(reached + 1), "{page}");
            reached += count;
            after = format!("&after={}", page["nextCursor"].as_str().unwrap_or_default());
        }
        // Rows are collected before they are sent, so they have a bound.
        let wide = "repeat('x', 1000000)";
        side.sql(place, &format!("CREATE VIEW wide AS SELECT id, {wide} AS x FROM customers")).await;
        let few = side.get(place, "/views/wide/data?limit=10&skip_count=true").await;
        assert_eq!(few["count"], 10);
        let many = place.api.get(&side.path("/views/wide/data?limit=250&skip_count=true")).await.unwrap();
        let told = (many.status, many.body["code"].as_str(), many.body["details"]["field"].as_str());
        assert_eq!(told, (503, Some("RESOURCE_EXHAUSTED"), Some("limit")), "{}: {}", side.engine, many.body["error"]);
        assert_eq!(side.get(place, "/tables/customers/data?limit=1").await["rows"][0][0], 1);
        // What was refused is over at the server, too, and holds no lock.
        side.beside(place).await.sql_at_once(place, "DROP VIEW wide").await;

        for order in [
            "order_by=name,balance&order_dir=DESC,ASC",
            "order_by=balance&order_nulls=FIRST",
            "order_by=balance&order_dir=DESC&order_nulls=LAST",
            "",
        ] {
            let mut seen = Vec::new();
            let mut after = String::new();
            loop {
                let page = side.get(place, &format!("/tables/customers/data?limit=60&skip_count=true&{order}{after}")).await;
                seen.extend(page["rows"].as_array().unwrap().iter().cloned());
                let Some(cursor) = page["nextCursor"].as_str() else { break };
                after = format!("&after={cursor}");
                assert!(seen.len() <= 250, "{} {order}: the pages do not end", side.engine);
            }
            let ids: BTreeSet<i64> = seen.iter().map(|row| row[0].as_i64().unwrap()).collect();
            assert_eq!((seen.len(), ids.len()), (250, 250), "{} {order}", side.engine);
            let whole = side.get(place, &format!("/tables/customers/data?limit=250&skip_count=true&{order}")).await;
            assert_eq!(whole["rows"].as_array().unwrap(), &seen, "{} {order}", side.engine);
        }
        let nulls = side.get(place, "/tables/customers/data?limit=1&order_by=balance&order_nulls=FIRST").await;
        assert_eq!(nulls["rows"][0][2], Value::Null);

        let condition = "/tables/customers/count?where=name%20%3D%20'it''s'%20AND%20(id%20%3C%2031)";
        assert_eq!(side.get(place, condition).await["count"], 10);
        assert_eq!(side.get(place, "/views/rich/count").await["count"], 0);
        assert_eq!(side.get(place, "/views/rich/data").await["columns"], json!(["id", "name"]));
        let escaping = ["1=1)%20OR%20(1=1", "1=1;DELETE%20FROM%20customers", "1=1--%20x", "1=1%20/*", "name='x"];
        for condition in escaping {
            let answer = place.api.get(&side.path(&format!("/tables/customers/data?where={condition}"))).await.unwrap();
            assert_eq!(side.refusal(&answer), (400, "VALIDATION_FAILED".into()), "{condition}: {answer:?}");
            assert_eq!(answer.body["details"]["field"], "where");
        }
        for (query, status, field) in [
            ("limit=10001", 400, "limit"),
            ("limit=x", 400, "limit"),
            ("order_by=id&order_dir=UP", 400, "order_dir"),
            ("order_by=id&order_dir=ASC,DESC", 400, "order_dir"),
            ("after=nonsense", 400, "after"),
            ("numbers=some", 400, "numbers"),
        ] {
            let answer = place.api.get(&side.path(&format!("/tables/customers/data?{query}"))).await.unwrap();
            assert_eq!((answer.status, answer.body["details"]["field"].as_str()), (status, Some(field)), "{query}: {answer:?}");
        }
        let wrong = place.api.get(&side.path("/tables/customers/data?where=nowhere%20%3D%201")).await.unwrap();
        assert_eq!(wrong.status, 422, "{wrong:?}");
    }
}

/// Inserts, edits, deletions: the right row, or a typed refusal and nothing changed.
pub async fn edits_hit_the_named_row_or_nothing(place: &Place) {
    for side in sides(place, "edits").await {
        let inserted = side
            .call(place, Method::POST, "/tables/customers/rows/insert", json!({"inserts": [
                {"values": {"id": "9223372036854775807", "name": "a\"b\\c 😀", "balance": "0.123456789012345678901234567890", "photo": "\\x00ff", "since": "2024-02-29 12:00:00.5"}},
                {"values": {"id": "9223372036854775806", "name": "neighbour"}},
                {"values": {"id": 7, "name": "x", "balance": 12.5}}]}))
            .await;
        assert_eq!((inserted.status, &inserted.body["inserted"]), (200, &json!(3)), "{} {inserted:?}", side.engine);
        let stored = &inserted.body["rows"][0];
        assert_eq!(stored["id"], "9223372036854775807");
        assert_eq!(stored["balance"], "0.123456789012345678901234567890", "{stored}");
        assert_eq!((&stored["photo"], &stored["name"]), (&json!("\\x00ff"), &json!("a\"b\\c 😀")));
        assert_eq!((&inserted.body["rows"][2]["balance"], &inserted.body["rows"][2]["note"]), (&json!(12.5), &Value::Null));

        let edited = side
            .call(
                place,
                Method::PATCH,
                "/tables/customers/rows/edit",
                json!({"edits": [{"keys": {"id": "9223372036854775807"}, "changes": {"note": "changed"}}]}),
            )
            .await;
        assert_eq!((edited.status, &edited.body["rows"][0]["note"]), (200, &json!("changed")), "{} {edited:?}", side.engine);
        let others = side.get(place, "/tables/customers/count?where=note%20IS%20NULL").await;
        assert_eq!(others["count"], 2, "a neighbour was hit on {}", side.engine);

        // A number that has lost digits before anybody could look at it is refused by its place. It is no `Value` of the client here either.
        let number = "1234567890123.4567891";
        let body = format!("{{\"edits\": [{{\"keys\": {{\"id\": 7}}, \"changes\": {{\"balance\": {number}}}}}]}}");
        let lossy = place.api.call_text(Method::PATCH, &side.path("/tables/customers/rows/edit"), &body, &[]).await.unwrap();
        let told = (lossy.status, lossy.body["code"].as_str(), lossy.body["details"]["field"].as_str());
        assert_eq!(told, (400, Some("VALIDATION_FAILED"), Some("edits[0].changes.balance")), "{lossy:?}");

        // Two editors: the second has seen an older row.
        let page = side.get(place, "/tables/customers/data?order_by=id").await;
        let etag = page["etags"][0].as_str().unwrap().to_owned();
        assert_eq!(page["rows"][0][0], 7);
        let edit = |name: &str, etag: &str| json!({"edits": [{"keys": {"id": 7}, "changes": {"name": name}, "etag": etag}]});
        let one = side.call(place, Method::PATCH, "/tables/customers/rows/edit", edit("first", &etag)).await;
        assert_eq!(one.status, 200, "{one:?}");
        let two = side.call(place, Method::PATCH, "/tables/customers/rows/edit", edit("second", &etag)).await;
        assert_eq!(side.refusal(&two), (412, "PRECONDITION_FAILED".into()), "{two:?}");
        assert_eq!(side.get(place, "/tables/customers/data?where=id=7").await["rows"][0][1], "first");

        // All or none.
        let half = json!({"edits": [{"keys": {"id": 7}, "changes": {"name": "half"}}, {"keys": {"id": 8}, "changes": {"name": "half"}}]});
        let answer = side.call(place, Method::PATCH, "/tables/customers/rows/edit", half).await;
        assert_eq!(side.refusal(&answer), (409, "CONFLICT".into()), "{answer:?}");
        assert_eq!(answer.body["details"]["index"], "1", "{answer:?}");
        assert_eq!(side.get(place, "/tables/customers/data?where=id=7").await["rows"][0][1], "first");

        keys_and_values_are_checked(place, &side).await;
        rows_without_a_key(place, &side).await;
    }
}

async fn keys_and_values_are_checked(place: &Place, side: &Side) {
    let insert = json!({"inserts": [{"values": {"customer": 7, "line": 1}}, {"values": {"customer": 7, "line": 2, "amount": "2.25"}}]});
    let answer = side.call(place, Method::POST, "/tables/orders/rows/insert", insert.clone()).await;
    assert_eq!((answer.status, &answer.body["rows"][0]["amount"]), (200, &json!(1.5)), "{answer:?}");
    let taken = side.call(place, Method::POST, "/tables/orders/rows/insert", insert).await;
    assert_eq!(side.refusal(&taken), (422, "CONSTRAINT_VIOLATED".into()), "{taken:?}");
    let upsert = json!({"inserts": [{"values": {"customer": 7, "line": 2, "amount": "3.00"}}, {"values": {"customer": 7, "line": 3}}], "onConflict": "update"});
    let answer = side.call(place, Method::POST, "/tables/orders/rows/insert", upsert).await;
    assert_eq!((answer.status, &answer.body["rows"][0]["amount"]), (200, &json!(3.0)), "{answer:?}");
    let count = side.get(place, "/tables/orders/count").await;
    assert_eq!(count["count"], 3);
    let edit = "/tables/orders/rows/edit";
    for (body, status, code) in [
        (json!({"edits": [{"keys": {"customer": 7}, "changes": {"amount": 1}}]}), 400, "VALIDATION_FAILED"),
        (json!({"edits": [{"keys": {"customer": 7, "line": 1, "amount": 1.5}, "changes": {"amount": 1}}]}), 400, "VALIDATION_FAILED"),
        (json!({"edits": [{"keys": {"customer": 7, "line": 1}, "changes": {"nowhere": 1}}]}), 400, "VALIDATION_FAILED"),
        (json!({"edits": [{"keys": {"customer": 7, "line": 1}, "changes": {}}]}), 400, "VALIDATION_FAILED"),
        (json!({"edits": []}), 400, "VALIDATION_FAILED"),
        (json!({"edits": [{"keys": {"customer": 7, "line": 1}, "changes": {"amount": null}}]}), 422, "CONSTRAINT_VIOLATED"),
        (json!({"edits": [{"keys": {"customer": 7, "line": 1}, "changes": {"customer": 99}}]}), 422, "CONSTRAINT_VIOLATED"),
    ] {
        let answer = side.call(place, Method::PATCH, edit, body.clone()).await;
        assert_eq!(side.refusal(&answer), (status, code.into()), "{} {body}: {answer:?}", side.engine);
    }
    for wrong in [json!("many"), json!("123456789.99"), json!({"a": 1})] {
        let body = json!({"edits": [{"keys": {"customer": 7, "line": 1}, "changes": {"amount": wrong}}]});
        let answer = side.call(place, Method::PATCH, edit, body.clone()).await;
        assert!(matches!(answer.status, 400 | 422), "{} {body}: {answer:?}", side.engine);
        let code = answer.body["code"].as_str().unwrap();
        assert!(matches!(code, "VALIDATION_FAILED" | "VALUE_REFUSED"), "{} {body}: {answer:?}", side.engine);
    }
    assert_eq!(side.get(place, "/tables/orders/data?where=line=1").await["rows"][0][2], 1.5);
    // With a body of its own, and for clients that cannot send one with DELETE.
    let gone =
        side.call(place, Method::DELETE, "/tables/orders/rows/delete", json!({"deletes": [{"keys": {"customer": 7, "line": 1}}]})).await;
    assert_eq!((gone.status, &gone.body["deleted"]), (200, &json!(1)), "{gone:?}");
    let gone =
        side.call(place, Method::POST, "/tables/orders/rows/delete", json!({"deletes": [{"keys": {"customer": 7, "line": 2}}]})).await;
    assert_eq!((gone.status, &gone.body["deleted"]), (200, &json!(1)), "{gone:?}");
    let referenced = side.call(place, Method::POST, "/tables/customers/rows/delete", json!({"deletes": [{"keys": {"id": 7}}]})).await;
    assert_eq!(side.refusal(&referenced), (422, "CONSTRAINT_VIOLATED".into()), "{referenced:?}");
}

async fn rows_without_a_key(place: &Place, side: &Side) {
    side.sql(place, "INSERT INTO loose VALUES (1, 'x'), (1, 'x'), (1, 'X'), (1, 'x '), (2, NULL)").await;
    let edit = |a: Value, b: Value| json!({"edits": [{"keys": {"a": a, "b": b}, "changes": {"a": 9}}]});
    let twice = side.call(place, Method::PATCH, "/tables/loose/rows/edit", edit(json!(1), json!("x"))).await;
    assert_eq!(side.refusal(&twice), (409, "CONFLICT".into()), "{} {twice:?}", side.engine);
    for (b, rest) in [(json!("X"), 3), (json!("x "), 2)] {
        let once = side.call(place, Method::PATCH, "/tables/loose/rows/edit", edit(json!(1), b.clone())).await;
        assert_eq!((once.status, &once.body["rows"][0]["b"]), (200, &b), "{} {once:?}", side.engine);
        assert_eq!(side.get(place, "/tables/loose/count?where=a=1").await["count"], rest);
    }
    let null = side.call(place, Method::PATCH, "/tables/loose/rows/edit", edit(json!(2), Value::Null)).await;
    assert_eq!(null.status, 200, "{} {null:?}", side.engine);
}

/// Statements: one by one, results each, errors with what went before.
pub async fn statements_answer_one_by_one_until_one_fails(place: &Place) {
    for side in sides(place, "statements").await {
        let one = side.sql(place, "SELECT 1 AS one, 'x; y' AS text").await;
        assert_eq!((&one["columns"], &one["rows"]), (&json!(["one", "text"]), &json!([[1, "x; y"]])), "{one}");
        let several = side
            .sql(
                place,
                "INSERT INTO loose VALUES (1, 'a'), (2, 'b'); SELECT a FROM loose ORDER BY a; UPDATE loose SET b = 'c' WHERE a = 1;",
            )
            .await;
        let results = several["results"].as_array().unwrap();
        assert_eq!((results.len(), &results[0]["rowsAffected"], &results[1]["rows"]), (3, &json!(2), &json!([[1], [2]])), "{several}");
        assert_eq!(several["affected_rows"], 3);
        let failed = side
            .call(
                place,
                Method::POST,
                "/query",
                json!({"query": "INSERT INTO loose VALUES (3, 'c'); SELECT * FROM nowhere; DELETE FROM loose"}),
            )
            .await;
        assert_eq!(side.refusal(&failed), (422, "OBJECT_MISSING".into()), "{failed:?}");
        assert_eq!(
            (&failed.body["details"]["statement"], &failed.body["results"][0]["rowsAffected"]),
            (&json!("2"), &json!(1)),
            "{failed:?}"
        );
        assert_eq!(side.get(place, "/tables/loose/count").await["count"], 3, "the statements after the failed one do not run");
        let wrong = side.call(place, Method::POST, "/query", json!({"query": "SELEKT 1"})).await;
        assert_eq!(side.refusal(&wrong), (422, "STATEMENT_REFUSED".into()), "{wrong:?}");
        let writes = side.call(place, Method::POST, "/query", json!({"query": "DELETE FROM loose", "readOnly": true})).await;
        assert_eq!(writes.status, 422, "{writes:?}");
        assert_eq!(side.get(place, "/tables/loose/count").await["count"], 3);
        let cut = side.call(place, Method::POST, "/query", json!({"query": "SELECT a FROM loose ORDER BY a", "maxRows": 2})).await;
        assert_eq!((&cut.body["rows"], &cut.body["truncated"]), (&json!([[1], [2]]), &json!(true)), "{cut:?}");
        let described = side.call(place, Method::POST, "/query/columns", json!({"query": "SELECT a, b FROM loose"})).await;
        assert_eq!((described.status, &described.body["columns"][1]["name"]), (200, &json!("b")), "{described:?}");
        // A session's settings and temporary tables are nobody else's.
        side.sql(place, "CREATE TEMPORARY TABLE mine (a INT)").await;
        for _ in 0..20 {
            let answer = side.call(place, Method::POST, "/query", json!({"query": "SELECT * FROM mine"})).await;
            assert_eq!(side.refusal(&answer), (422, "OBJECT_MISSING".into()), "{answer:?}");
        }
        for (body, field) in [(json!({}), "query"), (json!({"query": " "}), "query"), (json!({"query": "SELECT 1", "more": 1}), "more")] {
            let answer = side.call(place, Method::POST, "/query", body.clone()).await;
            assert_eq!((answer.status, answer.body["details"]["field"].as_str()), (400, Some(field)), "{body}: {answer:?}");
        }
    }
}

/// What is defined through the API is seen by the next request, at every server.
pub async fn definitions_are_seen_at_once(place: &Place) {
    for side in sides(place, "defined").await {
        let tables = async || side.get(place, "/meta").await["tables"].as_object().unwrap().len();
        for _ in 0..2 {
            assert_eq!(tables().await, 3);
        }
        let made = side.sql(place, "CREATE TABLE more (a INT)").await;
        assert_eq!(made["affectedObjects"], json!(["table"]), "{made}");
        // The other servers are told; that takes a moment.
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let seen = [tables().await, tables().await];
            if seen == [4, 4] {
                break;
            }
            let is_in_time = place.mode == Mode::Cluster && Instant::now() < end;
            assert!(is_in_time, "{} tables are seen", seen[0]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let text = async |path: &str, name: &str| {
            let headers = [("Content-Type", "text/plain")];
            place.api.call_text(Method::POST, path, name, &headers).await.unwrap()
        };
        let name = crate::database::unique("odd `name\"");
        let databases = format!("/connections/{}/databases", side.connection);
        let answer = text(&databases, &name).await;
        assert_eq!((answer.status, &answer.body["status"]), (200, &json!("success")), "{answer:?}");
        let again = text(&databases, &name).await;
        assert_eq!(side.refusal(&again), (409, "CONFLICT".into()), "{again:?}");
        let list = place.api.get(&databases).await.unwrap().body;
        assert!(list.as_array().unwrap().iter().any(|entry| entry["name"] == *name), "{list}");
        assert_eq!(text(&databases, " ").await.status, 400);
        let schema = text(&side.path("/schemas"), "my schema").await;
        if side.engine == "mysql" {
            assert_eq!(side.refusal(&schema), (422, "NOT_SUPPORTED".into()), "{schema:?}");
        } else {
            assert_eq!(schema.status, 200, "{schema:?}");
            side.sql(place, "CREATE TABLE \"my schema\".inside (a INT PRIMARY KEY)").await;
            assert!(side.get(place, "/tables").await.to_string().contains("my schema.inside"));
            assert_eq!(side.get(place, "/tables?schemas=my%20schema").await, json!(["my schema.inside"]));
            assert_eq!(side.get(place, "/tables/inside/data?schema=my%20schema").await["columns"], json!(["a"]));
        }
    }
}

/// A text is found in the names of what connections contain.
pub async fn objects_are_found_from_the_list_of_connections(place: &Place) {
    let sides = sides(place, "found").await;
    let end = Instant::now() + place.patience;
    loop {
        let found = place.api.get("/connections?search=ustomer").await.unwrap().body;
        if found["databaseSearchCoverage"]["complete"] == true {
            assert_eq!(found["filtered"], 2, "{found}");
            for side in &sides {
                let tables = &found["matchedPaths"][&side.connection]["tables"][&side.database];
                assert_eq!(tables[0]["name"], "customers", "{found}");
            }
            break;
        }
        assert!(Instant::now() < end, "{found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let none = place.api.get("/connections?search=nowhere-at-all").await.unwrap().body;
    assert_eq!((&none["filtered"], &none["total"]), (&json!(0), &json!(2)), "{none}");
}

/// Statistics of columns, and their memory.
pub async fn statistics_are_made_and_remembered(place: &Place) {
    for side in sides(place, "statistics").await {
        side.sql(place, "INSERT INTO customers (id, name, balance) VALUES (1, 'ab', 1), (2, 'abcd', 3), (3, 'ab', NULL), (4, 'b', 2)")
            .await;
        let summary = side.call(place, Method::POST, "/tables/customers/summary", json!({})).await;
        assert_eq!(summary.status, 200, "{summary:?}");
        let column = |name: &str| {
            let columns = summary.body["columns"].as_array().unwrap();
            columns.iter().find(|column| column["name"] == name).unwrap_or_else(|| panic!("{summary:?}")).clone()
        };
        assert_eq!(
            (&summary.body["rowCount"], &summary.body["columnCount"], &summary.body["sampled"]),
            (&json!(4), &json!(6), &json!(false))
        );
        let (name, balance) = (column("name"), column("balance"));
        assert_eq!((&name["minLength"], &name["maxLength"], &name["approxUnique"]), (&json!(1), &json!(4), &json!(3)), "{name}");
        assert_eq!(
            (&balance["count"], &balance["nullPercentage"], balance["avg"].as_f64()),
            (&json!(3), &json!(25.0), Some(2.0)),
            "{balance}"
        );
        let again = side.call(place, Method::POST, "/views/rich/summary", json!({"samplePercent": 50})).await;
        assert_eq!((again.status, &again.body["sampled"]), (200, &json!(true)), "{again:?}");
        let wrong = side.call(place, Method::POST, "/tables/customers/summary", json!({"samplePercent": 101})).await;
        assert_eq!((wrong.status, wrong.body["details"]["field"].as_str()), (400, Some("samplePercent")), "{wrong:?}");
    }
}

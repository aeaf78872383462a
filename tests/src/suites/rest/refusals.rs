//! Everything that is refused: by which code, in which category, naming which field.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Place, merge, source as database};
use crate::api::{Api, Response, connection};

const INVALID: (u16, &str, &str) = (400, "VALIDATION_FAILED", "validation");
const UNSUPPORTED: (u16, &str, &str) = (422, "NOT_SUPPORTED", "validation");
const CONFIRMATION: (u16, &str, &str) = (400, "CONFIRMATION_REQUIRED", "validation");
const MISSING: (u16, &str, &str) = (404, "NOT_FOUND", "not_found");
const NO_OBJECT: (u16, &str, &str) = (422, "OBJECT_MISSING", "connection");
const STATEMENT: (u16, &str, &str) = (422, "STATEMENT_REFUSED", "query");

const NO_CONNECTION: &str = "conn_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
const NO_CONFIG: &str = "/stream-configs/config_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
const NO_STREAM: &str = "/streams/stream_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";

/// A request, and what it must be told: status, code and category, then the field.
type Row = (Method, String, Value, (u16, &'static str, &'static str), &'static str);

/// Answers what differs, all rows in one text.
async fn differences(api: &Api, rows: Vec<Row>) -> String {
    let mut text = String::new();
    for (method, path, body, (status, code, category), field) in rows {
        let sent = (!body.is_null()).then(|| body.clone());
        let answer = api.call(method.clone(), &path, sent).await.unwrap();
        let found = told(&answer);
        if found != (status, code, category, field) || answer.body["category"] != answer.body["type"] || words(&answer) < 3 {
            let _ = writeln!(
                text,
                "{method} {path} {body}\n  expected {:?}\n  found    {found:?}: {}",
                (status, code, category, field),
                answer.body
            );
        }
    }
    text
}

fn told(answer: &Response) -> (u16, &str, &str, &str) {
    let [code, category, field] =
        [&answer.body["code"], &answer.body["category"], &answer.body["details"]["field"]].map(|value| value.as_str().unwrap_or_default());
    (answer.status, code, category, field)
}

/// A text that says something.
fn words(answer: &Response) -> usize {
    answer.body["error"].as_str().unwrap_or_default().split_whitespace().count()
}

/// A good body with something changed.
fn with(good: &Value, change: Value) -> Value {
    let mut body = good.clone();
    merge(&mut body, change);
    body
}

/// What is told by the request alone.
pub async fn bad_requests(place: &Place) {
    let api = &place.api;
    let good = connection("a", "mysql", &place.mysql, "mysql");
    let id = api.post("/connections", good.clone()).await.unwrap().text("id").unwrap();
    let config = json!({"name": "c", "mode": "load", "source": {"connections": [{"connectionId": id}]}, "target": {"id": id, "spec": {"db": {"database": "d"}}}});
    let stored = api.post("/stream-configs", config.clone()).await.unwrap().text("id").unwrap();
    let mut rows = connections(&good, &id);
    rows.extend(configs(&config, &id, &stored));
    rows.extend(queries(&id));
    rows.extend(others(&id));
    assert!(rows.len() >= 100, "{} rows", rows.len());
    let text = differences(api, rows).await;
    assert!(text.is_empty(), "{text}");
    let count = api.get("/connections").await.unwrap().body["total"].clone();
    assert_eq!(count, 1, "nothing of a refused request is kept");
    assert_eq!(api.get("/stream-configs").await.unwrap().body["total"], 1);
}

fn connections(good: &Value, id: &str) -> Vec<Row> {
    let one = format!("/connections/{id}");
    let store =
        json!({"name": "n", "type": "s3", "spec": {"s3": {"region": "auto", "credentials": {"accessKey": "AK", "secretKey": "S3cret"}}}});
    let cases: Vec<Case> = vec![
        (json!([1]), INVALID, ""),
        (json!("text"), INVALID, ""),
        (json!({}), INVALID, "name"),
        (with(good, json!({"name": "  "})), INVALID, "name"),
        (with(good, json!({"name": 5})), INVALID, "name"),
        (with(good, json!({"type": null})), INVALID, "type"),
        (with(good, json!({"type": "oracle"})), INVALID, "type"),
        (with(good, json!({"type": "s3"})), INVALID, "spec.database"),
        (with(good, json!({"extra": 1})), INVALID, "extra"),
        (with(good, json!({"host": "flat"})), INVALID, "host"),
        (with(good, json!({"spec": "text"})), INVALID, "spec"),
        (json!({"name": "n", "type": "mysql", "spec": {}}), INVALID, "spec"),
        (with(good, json!({"spec": {"s3": {}}})), INVALID, "spec"),
        (json!({"name": "n", "type": "mysql", "spec": {"wrong": {}}}), INVALID, "spec.wrong"),
        (json!({"name": "n", "type": "gcs", "spec": {"gcs": {}}}), UNSUPPORTED, "spec.gcs"),
        (with(&store, json!({"spec": {"s3": {"region": "no region"}}})), INVALID, "spec.s3.region"),
        (with(&store, json!({"spec": {"s3": {"endpoint": "http://host/path"}}})), INVALID, "spec.s3.endpoint"),
        (with(&store, json!({"spec": {"s3": {"endpoint": "http://host", "useSSL": true}}})), INVALID, "spec.s3.useSSL"),
        (with(&store, json!({"spec": {"s3": {"urlStyle": "odd"}}})), INVALID, "spec.s3.urlStyle"),
        (with(&store, json!({"spec": {"s3": {"credentials": {"secretKey": ""}}}})), INVALID, "spec.s3.credentials.secretKey"),
        (with(&store, json!({"spec": {"s3": {"credentials": {"accessKey": null}}}})), INVALID, "spec.s3.credentials.accessKey"),
        (
            with(&store, json!({"spec": {"s3": {"credentials": {"credentialsRef": "vault/x"}}}})),
            UNSUPPORTED,
            "spec.s3.credentials.credentialsRef",
        ),
        (with(&store, json!({"spec": {"s3": {"credentialSource": "aws"}}})), INVALID, "spec.s3.credentials"),
        (with(&store, json!({"spec": {"s3": {"scope": {"prefix": "a/"}}}})), INVALID, "spec.s3.scope.bucket"),
        (with(&store, json!({"spec": {"s3": {"scope": {"bucket": "a/b"}}}})), INVALID, "spec.s3.scope.bucket"),
        (with(&store, json!({"spec": {"s3": {"extra": 1}}})), INVALID, "spec.s3.extra"),
        (with(&store, json!({"ssl": {"mode": "require"}})), INVALID, "ssl"),
        (with(&store, json!({"type": "mysql"})), INVALID, "spec.s3"),
        (with(good, json!({"spec": {"database": {"port": 70000}}})), INVALID, "spec.database.port"),
        (with(good, json!({"spec": {"database": {"port": 0}}})), INVALID, "spec.database.port"),
        (with(good, json!({"spec": {"database": {"port": "3306x"}}})), INVALID, "spec.database.port"),
        (with(good, json!({"spec": {"database": {"host": ""}}})), INVALID, "spec.database.host"),
        (with(good, json!({"spec": {"database": {"username": " "}}})), INVALID, "spec.database.username"),
        (with(good, json!({"spec": {"database": {"hostt": "x"}}})), INVALID, "spec.database.hostt"),
        (with(good, json!({"ssl": {"mode": "maybe"}})), INVALID, "ssl.mode"),
        (with(good, json!({"ssl": {"mode": "verify-ca", "ca": "%%%"}})), INVALID, "ssl.ca"),
        (with(good, json!({"ssl": {"mode": "verify-ca", "ca": "aGVsbG8="}})), INVALID, "ssl.ca"),
        (with(good, json!({"ssl": {"mode": "require", "client_key": "aGVsbG8="}})), INVALID, "ssl.client_cert"),
        (with(good, json!({"ssl": {"mode": "require", "wrong": 1}})), INVALID, "ssl.wrong"),
        (with(good, json!({"ssh": {"host": "x"}})), UNSUPPORTED, "ssh"),
    ];
    let mut rows: Vec<Row> =
        cases.into_iter().map(|(body, told, field)| (Method::POST, "/connections".to_owned(), body, told, field)).collect();
    let post = |path: &str, body: Value, told, field| (Method::POST, path.to_owned(), body, told, field);
    rows.extend([
        post("/connections/test", with(good, json!({"spec": {"database": {"port": 0}}})), INVALID, "spec.database.port"),
        post("/connections/test", json!({"name": "n", "type": "sqlite", "spec": {"database": {}}}), INVALID, "type"),
        post("/connections/ping", json!({"type": "mysql"}), INVALID, "name"),
        (Method::PUT, one.clone(), with(good, json!({"id": "another"})), INVALID, "id"),
        (Method::PUT, one.clone(), with(good, json!({"name": ""})), INVALID, "name"),
        // The stored password is not sent to another place.
        (
            Method::PUT,
            one.clone(),
            with(good, json!({"spec": {"database": {"host": "elsewhere.example", "password": null}}})),
            INVALID,
            "spec.database.password",
        ),
        (Method::PUT, format!("/connections/{NO_CONNECTION}"), good.clone(), MISSING, ""),
        (Method::GET, format!("/connections/{NO_CONNECTION}"), Value::Null, MISSING, ""),
        (Method::GET, "/connections/not-an-id".to_owned(), Value::Null, MISSING, ""),
        (Method::DELETE, format!("/connections/{NO_CONNECTION}"), Value::Null, MISSING, ""),
        (Method::PUT, format!("/connections/{NO_CONNECTION}/clone"), Value::Null, MISSING, ""),
        post(&format!("/connections/{NO_CONNECTION}/ping"), Value::Null, MISSING, ""),
        (Method::DELETE, "/connections".to_owned(), Value::Null, CONFIRMATION, "X-Confirm-Delete"),
        (Method::DELETE, one, Value::Null, (409, "CONFLICT", "conflict"), ""),
    ]);
    rows
}

/// A body, and what it must be told.
type Case = (Value, (u16, &'static str, &'static str), &'static str);

fn config_sources(good: &Value, id: &str) -> Vec<Case> {
    let source = |change: Value| {
        let mut body = good.clone();
        merge(&mut body["source"]["connections"][0], change);
        body
    };
    let two = |first: Value, second: Value| {
        let mut body = good.clone();
        body["source"]["connections"] = json!([first, second]);
        body
    };
    vec![
        (source(json!({"connectionId": "x"})), INVALID, "source.connections[0].connectionId"),
        (source(json!({"connectionId": NO_CONNECTION})), INVALID, "source.connections[0].connectionId"),
        (source(json!({"alias": "1st"})), INVALID, "source.connections[0].alias"),
        (source(json!({"wrong": 1})), INVALID, "source.connections[0].wrong"),
        (source(json!({"tables": [{"name": ""}]})), INVALID, "source.connections[0].tables[0].name"),
        (source(json!({"tables": [{"name": "a"}, {"name": "a"}]})), INVALID, "source.connections[0].tables[1].name"),
        (source(json!({"tables": "all"})), INVALID, "source.connections[0].tables"),
        (
            source(json!({"tables": [{"name": "a", "selection": {"limit": -5}}]})),
            INVALID,
            "source.connections[0].tables[0].selection.limit",
        ),
        (source(json!({"queries": [{"name": "", "query": "SELECT 1"}]})), INVALID, "source.connections[0].queries[0]"),
        (source(json!({"queries": [{"name": "q", "query": " "}]})), INVALID, "source.connections[0].queries[0]"),
        (
            source(json!({"queries": [{"name": "q", "query": "SELECT 1"}, {"name": "q", "query": "SELECT 2"}]})),
            INVALID,
            "source.connections[0].queries[1].name",
        ),
        (source(json!({"files": {"basePath": "/x", "paths": []}})), INVALID, "source.connections[0].files"),
        (source(json!({"s3": {"bucket": ""}})), INVALID, "source.connections[0].s3.bucket"),
        (source(json!({"s3": {"bucket": "b", "prefixes": ["p"]}})), INVALID, "source.connections[0].s3.prefixes"),
        (source(json!({"s3": {"bucket": "b", "objects": ["o/"]}})), INVALID, "source.connections[0].s3.objects"),
        (source(json!({"s3": {"bucket": "b", "objects": ["o"], "manifestPath": "m"}})), INVALID, "source.connections[0].s3.manifestPath"),
        (two(json!({"connectionId": id}), json!({"connectionId": id})), INVALID, "source.connections[0].alias"),
        (two(json!({"alias": "a", "connectionId": id}), json!({"alias": "a", "connectionId": id})), INVALID, "source.connections[1].alias"),
    ]
}

fn configs(good: &Value, id: &str, stored: &str) -> Vec<Row> {
    let db = |change: Value| with(good, json!({"target": {"spec": {"db": change}}}));
    let rules = |rules: Value| with(good, json!({"plan": {"rules": rules}}));
    let mut two = good.clone();
    two["source"]["connections"] = json!([{"alias": "a", "connectionId": id}, {"alias": "b", "connectionId": id}]);
    let mut cases = config_sources(good, id);
    cases.extend([
        (json!(7), INVALID, ""),
        (json!({}), INVALID, "name"),
        (with(good, json!({"name": ""})), INVALID, "name"),
        (with(good, json!({"mode": "copy"})), INVALID, "mode"),
        (with(good, json!({"unknown": true})), INVALID, "unknown"),
        (with(good, json!({"source": {"connections": []}})), INVALID, "source.connections"),
        (with(good, json!({"source": {"connections": {}}})), INVALID, "source.connections"),
        (with(good, json!({"target": {"id": NO_CONNECTION}})), INVALID, "target.id"),
        (with(good, json!({"target": {"id": 5}})), INVALID, "target.id"),
        (with(&with(good, json!({"target": null})), json!({"target": {"id": id, "spec": {}}})), INVALID, "target.spec"),
        (db(json!({"database": ""})), INVALID, "target.spec.db.database"),
        (db(json!({"schema": " "})), INVALID, "target.spec.db.schema"),
        (db(json!({"writeMode": "merge"})), INVALID, "target.spec.db.writeMode"),
        (db(json!({"schemaPolicy": "replace"})), INVALID, "target.spec.db.schemaPolicy"),
        (db(json!({"structureOptions": {"views": true}})), INVALID, "target.spec.db.structureOptions.views"),
        (db(json!({"skipData": "yes"})), INVALID, "target.spec.db.skipData"),
        (db(json!({"wrong": 1})), INVALID, "target.spec.db.wrong"),
        (with(good, json!({"mode": "cdc", "target": {"spec": {"db": {"writeMode": "append"}}}})), INVALID, "target.spec.db.writeMode"),
        (with(good, json!({"limits": {"numberOfEvents": -1}})), INVALID, "limits.numberOfEvents"),
        (with(good, json!({"limits": {"elapsedTime": 1.5}})), INVALID, "limits.elapsedTime"),
        (with(good, json!({"limits": {"rows": 1}})), INVALID, "limits.rows"),
        (with(good, json!({"source": {"options": {"dataBundleSize": 0}}})), INVALID, "source.options.dataBundleSize"),
        (with(good, json!({"source": {"options": {"operations": ["truncate"]}}})), INVALID, "source.options.operations[0]"),
        (with(good, json!({"parallelism": 0})), INVALID, "parallelism"),
        (with(good, json!({"parallelism": 70000})), INVALID, "parallelism"),
        (with(good, json!({"reportingInterval": -1})), INVALID, "reportingInterval"),
        (with(good, json!({"onCutLost": "ignore"})), INVALID, "onCutLost"),
        (with(good, json!({"pauseHold": "long"})), INVALID, "pauseHold"),
        (with(good, json!({"plan": {"strict": 1}})), INVALID, "plan.strict"),
        (with(good, json!({"plan": {"lax": true}})), INVALID, "plan.lax"),
        (rules(json!([{"onLoss": "null"}])), INVALID, "plan.rules[0]"),
        (rules(json!([{"type": "date"}])), INVALID, "plan.rules[0]"),
        (rules(json!([{"type": "date", "onLoss": "error"}, {"type": "date", "onLoss": "drop"}])), INVALID, "plan.rules[1].onLoss"),
        (rules(json!([{"column": "c", "to": " "}])), INVALID, "plan.rules[0].to"),
        (rules(json!([{"column": "c", "into": "text"}])), INVALID, "plan.rules[0].into"),
    ]);
    let mut rows: Vec<Row> =
        cases.into_iter().map(|(body, told, field)| (Method::POST, "/stream-configs".to_owned(), body, told, field)).collect();
    let one = format!("/stream-configs/{stored}");
    rows.extend([
        (Method::PUT, one.clone(), with(good, json!({"id": "config_x"})), INVALID, "id"),
        (Method::PUT, one.clone(), with(good, json!({"created": 1})), INVALID, "created"),
        (Method::PUT, one.clone(), two, INVALID, "source.connections"),
        (Method::PUT, one, with(good, json!({"name": " "})), INVALID, "name"),
        (Method::PUT, NO_CONFIG.to_owned(), good.clone(), MISSING, ""),
        (Method::GET, NO_CONFIG.to_owned(), Value::Null, MISSING, ""),
        (Method::DELETE, NO_CONFIG.to_owned(), Value::Null, MISSING, ""),
        (Method::PUT, format!("{NO_CONFIG}/clone"), Value::Null, MISSING, ""),
        (Method::POST, format!("{NO_CONFIG}/plan"), Value::Null, MISSING, ""),
        (Method::POST, format!("{NO_CONFIG}/start"), Value::Null, MISSING, ""),
        (Method::POST, format!("{NO_CONFIG}/validate-constraints"), Value::Null, MISSING, ""),
        (Method::GET, format!("{NO_CONFIG}/history"), Value::Null, MISSING, ""),
        (Method::GET, format!("{NO_CONFIG}/runs"), Value::Null, MISSING, ""),
        (Method::DELETE, format!("{NO_CONFIG}/runs/run_1"), Value::Null, MISSING, ""),
        (Method::DELETE, "/stream-configs".to_owned(), Value::Null, CONFIRMATION, "X-Confirm-Delete"),
        (Method::GET, "/stream-configs?limit=-1".to_owned(), Value::Null, INVALID, "limit"),
        (Method::GET, "/stream-configs?offset=x".to_owned(), Value::Null, INVALID, "offset"),
    ]);
    rows
}

fn queries(id: &str) -> Vec<Row> {
    let aliased = |alias: &str, id: &str| json!({"sql": "SELECT 1", "connections": [{"alias": alias, "connectionId": id}]});
    let cases: Vec<Case> = vec![
        (json!({}), INVALID, "sql"),
        (json!({"sql": "  "}), INVALID, "sql"),
        (json!({"sql": 5}), INVALID, "sql"),
        (json!({"sql": "SELECT 1", "query": "SELECT 2"}), INVALID, "query"),
        (json!({"sql": "SELECT 1", "wrong": 1}), INVALID, "wrong"),
        (aliased("1a", id), INVALID, "connections[0].alias"),
        (aliased("a b", id), INVALID, "connections[0].alias"),
        (aliased("a", NO_CONNECTION), INVALID, "connections[0].connectionId"),
        (
            json!({"sql": "SELECT 1", "connections": [{"alias": "a", "connectionId": id}, {"alias": "A", "connectionId": id}]}),
            INVALID,
            "connections[1].alias",
        ),
        (json!({"sql": "SELECT"}), STATEMENT, ""),
        (json!({"sql": "SELECT 1; SELECT 2"}), STATEMENT, ""),
        (json!({"sql": "INSTALL httpfs"}), STATEMENT, ""),
        (json!({"sql": "SELECT * FROM read_csv('/etc/passwd')"}), STATEMENT, ""),
        (json!({"sql": "ATTACH 'x.db'"}), STATEMENT, ""),
        (json!({"sql": "SELECT nothing_like_this()"}), STATEMENT, ""),
    ];
    cases.into_iter().map(|(body, told, field)| (Method::POST, "/query/federated".to_owned(), body, told, field)).collect()
}

fn others(id: &str) -> Vec<Row> {
    vec![
        (Method::GET, NO_STREAM.to_owned(), Value::Null, MISSING, ""),
        (Method::GET, format!("{NO_STREAM}/stats"), Value::Null, MISSING, ""),
        (Method::GET, format!("{NO_STREAM}/logs"), Value::Null, MISSING, ""),
        (Method::POST, format!("{NO_STREAM}/pause"), Value::Null, MISSING, ""),
        (Method::POST, format!("{NO_STREAM}/resume"), Value::Null, MISSING, ""),
        (Method::POST, format!("{NO_STREAM}/stop"), Value::Null, MISSING, ""),
        (Method::GET, "/streams/short".to_owned(), Value::Null, MISSING, ""),
        (Method::PUT, "/system/sql-logging".to_owned(), json!({"enabled": "yes"}), INVALID, "enabled"),
        (Method::PUT, "/system/logging".to_owned(), json!({"level": "loud"}), INVALID, "level"),
        (Method::GET, "/nowhere".to_owned(), Value::Null, (404, "ROUTE_NOT_FOUND", "not_found"), ""),
        (Method::PATCH, format!("/connections/{id}"), json!({}), (405, "METHOD_NOT_ALLOWED", "validation"), ""),
    ]
}

/// What only the databases can tell.
pub async fn bad_configs_are_refused_by_plan_and_start_alike(place: &Place) {
    let statements =
        ["CREATE TABLE t (id INT PRIMARY KEY, d DATE, v VARCHAR(10), b BLOB)", "INSERT INTO t VALUES (1, '2020-01-01', 'x', 'y')"];
    let from = database("refused", &statements.map(str::to_owned)).await;
    let api = &place.api;
    let mysql = api.connect("from", "mysql", &place.mysql, &from.name).await.unwrap();
    let target = crate::database::unique("refused");
    let postgres = api.connect("to", "postgresql", &place.postgres, &target).await.unwrap();
    let good = json!({"name": "c", "mode": "convert", "source": {"connections": [{"connectionId": mysql, "database": from.name}]},
        "target": {"id": postgres, "spec": {"db": {"database": target}}}});
    let source = |change: Value| {
        let mut body = good.clone();
        merge(&mut body["source"]["connections"][0], change);
        body
    };
    let select = |selection: Value| source(json!({"tables": [{"name": "t", "selection": selection}]}));
    let filter =
        |column: &str, operator: &str, value: &str| select(json!({"filters": [{"column": column, "operator": operator, "value": value}]}));
    let query = |sql: &str| source(json!({"tables": [], "queries": [{"name": "q", "query": sql}]}));
    let rule = |rule: Value| with(&good, json!({"plan": {"rules": [rule]}}));
    let at = "source.connections[0]";
    let table: Vec<(Value, (u16, &str, &str), String)> = vec![
        (source(json!({"database": "no_such_database"})), NO_OBJECT, format!("{at}.database")),
        (source(json!({"schema": "public"})), INVALID, format!("{at}.schema")),
        (source(json!({"tables": [{"name": "nowhere"}]})), NO_OBJECT, format!("{at}.tables[0].name")),
        (select(json!({"selectedColumns": ["id", "nowhere"]})), NO_OBJECT, format!("{at}.tables[0].selection.selectedColumns[1]")),
        (filter("nowhere", "=", "1"), NO_OBJECT, format!("{at}.tables[0].selection.filters[0].column")),
        (filter("id", "~~", "1"), INVALID, format!("{at}.tables[0].selection.filters[0].operator")),
        (filter("id", "=", "one"), INVALID, format!("{at}.tables[0].selection.filters[0].value")),
        (filter("id", "BETWEEN", "1"), INVALID, format!("{at}.tables[0].selection.filters[0].value")),
        (filter("d", "=", "2023-02-29"), INVALID, format!("{at}.tables[0].selection.filters[0].value")),
        (filter("d", ">", "yesterday"), INVALID, format!("{at}.tables[0].selection.filters[0].value")),
        (
            select(json!({"sorts": [{"column": "nowhere", "direction": "ASC"}]})),
            NO_OBJECT,
            format!("{at}.tables[0].selection.sorts[0].column"),
        ),
        (select(json!({"sorts": [{"column": "id", "direction": "UP"}]})), INVALID, format!("{at}.tables[0].selection.sorts[0].direction")),
        (query("SELEC 1"), STATEMENT, format!("{at}.queries[0].query")),
        (query("DELETE FROM t"), INVALID, format!("{at}.queries[0].query")),
        (query("SELECT * FROM nowhere"), NO_OBJECT, format!("{at}.queries[0].query")),
        (query("SELECT id FROM t WHERE id = ?"), INVALID, format!("{at}.queries[0].query")),
        (query("SELECT id, id FROM t"), INVALID, format!("{at}.queries[0].query")),
        (rule(json!({"table": "nowhere", "onLoss": "null"})), INVALID, "plan.rules[0]".into()),
        (rule(json!({"column": "nowhere", "to": "text"})), INVALID, "plan.rules[0]".into()),
        (rule(json!({"column": "d", "to": "money"})), INVALID, "plan.rules[0].to".into()),
        (rule(json!({"column": "v", "to": "enum"})), INVALID, "plan.rules[0].to".into()),
        (rule(json!({"column": "id", "onLoss": "null"})), INVALID, "plan.rules[0].onLoss".into()),
        (with(&good, json!({"target": {"id": mysql}})), UNSUPPORTED, "target.id".into()),
        (with(&good, json!({"target": {"spec": {"db": {"database": "x".repeat(64)}}}})), INVALID, "target.spec.db.database".into()),
        (with(&good, json!({"target": {"spec": {"db": {"schema": "é".repeat(32)}}}})), INVALID, "target.spec.db.schema".into()),
        (with(&good, json!({"mode": "cdc"})), UNSUPPORTED, "mode".into()),
    ];
    let mut text = String::new();
    for (body, (status, code, category), field) in table {
        let config = api.post("/stream-configs", body.clone()).await.unwrap();
        let Ok(config) = config.text("id") else {
            let _ = writeln!(text, "{body}\n  is not stored: {config:?}");
            continue;
        };
        for step in ["plan", "start"] {
            let answer = api.post(&format!("/stream-configs/{config}/{step}"), Value::Null).await.unwrap();
            let found = told(&answer);
            if found != (status, code, category, field.as_str()) {
                let expected = (status, code, category, &field);
                let _ = writeln!(text, "{step} {body}\n  expected {expected:?}\n  found    {found:?}: {}", answer.body);
            }
        }
    }
    assert!(text.is_empty(), "{text}");
    let states: BTreeMap<String, Value> =
        api.get("/streams").await.unwrap().body.as_object().cloned().unwrap_or_default().into_iter().collect();
    assert!(!format!("{states:?}").contains("RUNNING"), "{states:?}");
}

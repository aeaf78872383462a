//! Datasets, made by us, the same at every call.

mod odd;
mod random;
mod shop;

pub use odd::odd;
pub use random::{RandomTable, random};
pub use shop::shop;

/// A session that may use the server-side number sequences and inserts without checking keys row by row.
fn opening() -> Vec<String> {
    vec!["SET foreign_key_checks = 0, unique_checks = 0, time_zone = '+00:00'".to_owned()]
}

fn closing() -> Vec<String> {
    vec!["SET foreign_key_checks = 1, unique_checks = 1".to_owned()]
}

/// One table of five common types, `rows` rows.
pub fn products(rows: u64) -> Vec<String> {
    let mut statements = opening();
    statements.push(
        "CREATE TABLE products (id BIGINT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(255), price DECIMAL(10,2), weight DOUBLE,
         created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
            .to_owned(),
    );
    statements.push(format!(
        "INSERT INTO products SELECT seq, CONCAT('product ', seq, ' ', MD5(seq)), ROUND(seq % 10000 / 7, 2), seq / 3.7,
         FROM_UNIXTIME(1500000000 + seq) FROM seq_1_to_{rows}"
    ));
    statements.push("ANALYZE TABLE products".to_owned());
    statements.extend(closing());
    statements
}

/// One table of 40 columns, with JSON, texts and blobs, about a kilobyte a row.
pub fn wide(rows: u64) -> Vec<String> {
    let kinds = [
        ("i", "INT", "seq * {n} % 100003"),
        ("b", "BIGINT", "seq * 1000003 + {n}"),
        ("d", "DECIMAL(18,6)", "seq * {n} / 7"),
        ("f", "DOUBLE", "seq / (3.7 + {n})"),
        ("v", "VARCHAR(120)", "CONCAT('wert ', seq, ' üß☃ ', MD5(seq + {n}))"),
        ("t", "DATETIME(3)", "'2001-01-01' + INTERVAL seq * {n} SECOND"),
    ];
    let mut columns = vec!["id BIGINT PRIMARY KEY".to_owned()];
    let mut values = vec!["seq".to_owned()];
    for n in 1..=6 {
        for (prefix, kind, value) in kinds {
            columns.push(format!("{prefix}{n} {kind}{}", if n == 6 { " NULL" } else { "" }));
            let value = value.replace("{n}", &n.to_string());
            values.push(if n == 6 { format!("IF(seq % 3 = 0, NULL, {value})") } else { value });
        }
    }
    columns.extend(["doc JSON", "body MEDIUMTEXT", "image MEDIUMBLOB"].map(str::to_owned));
    values.extend([
        "JSON_OBJECT('id', seq, 'tags', JSON_ARRAY('a', seq % 10, NULL), 'nested', JSON_OBJECT('ratio', seq / 8, 'text', MD5(seq)))"
            .to_owned(),
        "REPEAT(CONCAT('Zeile ', seq, '\\n'), 1 + seq % 10)".to_owned(),
        "UNHEX(REPEAT(MD5(seq), 1 + seq % 8))".to_owned(),
    ]);
    let mut statements = opening();
    statements.push(format!("CREATE TABLE wide ({})", columns.join(", ")));
    statements.push(format!("INSERT INTO wide SELECT {} FROM seq_1_to_{rows}", values.join(", ")));
    statements.push("ANALYZE TABLE wide".to_owned());
    statements.extend(closing());
    statements
}

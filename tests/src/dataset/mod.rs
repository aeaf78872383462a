//! Datasets, made by us, the same at every call.

mod odd;
mod shop;

pub use odd::odd;
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

//! Everything odd that a schema may have and a copy must keep.

/// The statements that make and fill the odd database.
pub fn odd() -> Vec<String> {
    let mut statements = super::opening();
    statements.push("SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'".to_owned());
    statements.extend(STATEMENTS.iter().map(|statement| (*statement).to_owned()));
    statements.extend(super::closing());
    statements
}

const STATEMENTS: &[&str] = &[
    // Keys: composite, in another order than the columns; a cycle of foreign keys; a self reference.
    "CREATE TABLE composite (b INT NOT NULL, a VARCHAR(20) NOT NULL, v INT, PRIMARY KEY (a, b), KEY by_v (v), UNIQUE KEY u_v_b (v, b))",
    "INSERT INTO composite SELECT seq, CONCAT('k', seq % 7), IF(seq % 3 = 0, NULL, seq) FROM seq_1_to_500",
    "CREATE TABLE chicken (id INT PRIMARY KEY, egg_id INT, KEY by_v (egg_id))",
    "CREATE TABLE egg (id INT PRIMARY KEY, chicken_id INT, CONSTRAINT fk_egg FOREIGN KEY (chicken_id) REFERENCES chicken (id) ON UPDATE CASCADE)",
    "ALTER TABLE chicken ADD CONSTRAINT fk_chicken FOREIGN KEY (egg_id) REFERENCES egg (id) ON DELETE SET NULL",
    "INSERT INTO chicken VALUES (1, 2), (2, 1), (3, NULL)",
    "INSERT INTO egg VALUES (1, 1), (2, 3), (3, NULL)",
    "CREATE TABLE tree (id INT PRIMARY KEY AUTO_INCREMENT, parent INT, CONSTRAINT fk_tree FOREIGN KEY (parent) REFERENCES tree (id))",
    "INSERT INTO tree VALUES (10, 30), (20, 10), (30, 20)",
    "CREATE TABLE child_of_composite (id INT PRIMARY KEY, ca VARCHAR(20), cb INT,
     CONSTRAINT fk_composite FOREIGN KEY (ca, cb) REFERENCES composite (a, b) ON DELETE CASCADE)",
    "INSERT INTO child_of_composite VALUES (1, 'k1', 1), (2, NULL, 2), (3, 'k2', 2)",
    // Automatic keys.
    "CREATE TABLE auto_far (id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, t TEXT) AUTO_INCREMENT = 5000000000",
    "INSERT INTO auto_far (t) VALUES ('a'), ('b')",
    "CREATE TABLE auto_small (id SMALLINT PRIMARY KEY AUTO_INCREMENT, t TEXT)",
    "INSERT INTO auto_small VALUES (-5, 'x'), (0, 'zero'), (7, 'y')",
    // Names.
    "CREATE TABLE `order` (`select` INT PRIMARY KEY, `from` VARCHAR(10), `Group By` INT, `a\"b` INT, `per%cent` INT, `dot.ted` INT, KEY `order` (`from`))",
    "INSERT INTO `order` VALUES (1, 'x', 2, 3, 4, 5), (2, NULL, NULL, NULL, NULL, NULL)",
    "CREATE TABLE `Mixed Case.Ünï 表` (`ID` INT PRIMARY KEY, `Größe` INT, `日本` VARCHAR(10))",
    "INSERT INTO `Mixed Case.Ünï 表` VALUES (1, 2, '語')",
    "CREATE TABLE `quo\"te'd` (id INT PRIMARY KEY)",
    "INSERT INTO `quo\"te'd` VALUES (1)",
    // Numbers.
    "CREATE TABLE numbers (id INT PRIMARY KEY, u64 BIGINT UNSIGNED, i64 BIGINT, u32 INT UNSIGNED, i32 INT, u24 MEDIUMINT UNSIGNED, i24 MEDIUMINT,
     u16 SMALLINT UNSIGNED, i16 SMALLINT, u8 TINYINT UNSIGNED, i8 TINYINT, flag TINYINT(1), d65 DECIMAL(65,30), d10 DECIMAL(10,0), d4 DECIMAL(4,4),
     f FLOAT, d DOUBLE, y YEAR)",
    "INSERT INTO numbers VALUES
     (1, 18446744073709551615, 9223372036854775807, 4294967295, 2147483647, 16777215, 8388607, 65535, 32767, 255, 127, 2,
      99999999999999999999999999999999999.999999999999999999999999999999, 9999999999, 0.9999, 3.4028235e38, 1.7976931348623157e308, 2155),
     (2, 0, -9223372036854775808, 0, -2147483648, 0, -8388608, 0, -32768, 0, -128, -1,
      -99999999999999999999999999999999999.999999999999999999999999999999, -9999999999, -0.0001, -1.17549435e-38, -2.2250738585072014e-308, 1901),
     (3, 9223372036854775808, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0.000000000000000000000000000001, 0, 0, 0.1, 0.1, 0),
     (4, 10000, 1, 10000, 1, 1, 1, 1, 1, 1, 1, 1, 10000000.000100000000000000000000000000, 100000000, 0.0100, 16777216, 9007199254740993, 2026),
     (5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
     (6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -0.000000000000000000000000000000, 1, 0, -0.0, 4.9e-324, 1999)",
    // Text, labels, JSON, bytes, bits.
    "CREATE TABLE texts (id INT PRIMARY KEY, c CHAR(10), v VARCHAR(100), l LONGTEXT, e ENUM('a','it''s','x,y','back\\\\slash','') DEFAULT 'it''s',
     s SET('one','two','three \"3\"') DEFAULT 'one,two', j JSON DEFAULT '{\"a\": 1}', b BINARY(16), vb VARBINARY(50), bl LONGBLOB,
     b1 BIT(1) DEFAULT b'1', b13 BIT(13) DEFAULT b'101', b64 BIT(64), latin VARCHAR(20) CHARACTER SET latin1, cp CHAR(5) CHARACTER SET utf16)",
    "INSERT INTO texts VALUES
     (1, 'pad', 'naïve 😀 \\' \" \\\\ \\t\\n', REPEAT('長い ', 5000), 'it''s', 'one,three \"3\"', '{\"k\": [1, 2.50, null, \"\\\\u00e9\"], \"a\":  true}',
      UNHEX('00112233445566778899AABBCC000000'), UNHEX('00FF00'), UNHEX(REPEAT('00FF27225C', 10000)), b'1', b'1000000000001', b'1111111111111111111111111111111111111111111111111111111111111111', 'café', 'ü'),
     (2, '', '', '', '', '', '[]', '', '', '', b'0', b'0', b'0', '', ''),
     (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
     (4, 'trail  ', 'trail  ', ' ', 'x,y', 'one,two,three \"3\"', '\"text\"', 'short', 'x', 'x', b'1', b'11', b'1', 'ÿ', '漢')",
    // Dates and times.
    "CREATE TABLE moments (id INT PRIMARY KEY, d DATE, dt DATETIME, dt6 DATETIME(6), ts TIMESTAMP NULL, ts6 TIMESTAMP(6) NULL, clock TIME(3), span TIME(6),
     stamped DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3))",
    "INSERT INTO moments VALUES
     (1, '1000-01-01', '1000-01-01 00:00:00', '9999-12-31 23:59:59.999999', '1970-01-01 00:00:01', '2038-01-19 03:14:07.999999', '00:00:00.000', '-838:59:59.000000', '2000-01-01'),
     (2, '9999-12-31', '2024-02-29 12:34:56', '1969-12-31 23:59:59.000001', '2021-03-14 02:30:00', '2021-11-07 01:30:00.5', '23:59:59.999', '838:59:59.000000', '2000-01-01'),
     (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
     (4, '1999-12-31', '2000-03-01 00:00:00', '1582-10-10 10:10:10.101010', '2000-01-01 00:00:00', '2000-01-01 00:00:00.000001', '24:00:00.000', '-00:00:00.000001', '2000-01-01')",
    // Tables without a key, without rows, with one column.
    "CREATE TABLE keyless (a INT, b VARCHAR(10))",
    "INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (NULL, NULL), (NULL, NULL), (2, 'y')",
    "CREATE TABLE empty_table (id INT PRIMARY KEY AUTO_INCREMENT, x INT NOT NULL DEFAULT 7)",
    "CREATE TABLE lonely (only_column DATETIME(6) PRIMARY KEY)",
    "INSERT INTO lonely SELECT '2020-01-01' + INTERVAL seq SECOND FROM seq_1_to_100",
    "CREATE TABLE by_uuid (id UUID PRIMARY KEY, n INT)",
    "INSERT INTO by_uuid SELECT CONCAT(LPAD(HEX(seq), 8, '0'), '-1111-4111-8111-111111111111'), seq FROM seq_1_to_50",
    // Indexes: prefixes, the same name in two tables, falling order; checks; comments.
    "CREATE TABLE indexed (id INT PRIMARY KEY, name VARCHAR(200) NOT NULL, body TEXT, raw VARBINARY(100), UNIQUE KEY by_v (name(10)), KEY by_body (body(20), id),
     KEY by_raw (raw(4)), FULLTEXT KEY words (name, body), CONSTRAINT name_not_empty CHECK (CHAR_LENGTH(name) > 0 AND id BETWEEN 0 AND 1000000))
     COMMENT 'it''s a \"comment\"'",
    "INSERT INTO indexed SELECT seq, CONCAT(LPAD(seq, 10, '0'), ' name'), CONCAT('body ', seq), UNHEX(LPAD(HEX(seq), 20, '0')) FROM seq_1_to_200",
];

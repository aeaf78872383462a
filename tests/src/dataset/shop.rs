//! A shop: related tables with the types that real schemas have. At scale 1 the largest table has a million rows.

/// The statements that make and fill the shop.
pub fn shop(scale: f64) -> Vec<String> {
    let rows = |count: f64| ((count * scale) as u64).max(20);
    let (customers, orders) = (rows(100_000.0), rows(250_000.0));
    let products = rows(10_000.0);
    let mut statements = super::opening();
    statements.extend(TABLES.iter().map(|table| (*table).to_owned()));
    statements.extend([
        "INSERT INTO categories SELECT seq, IF(seq <= 5, NULL, 1 + seq % 5), CONCAT('Kategorie ', seq, ' ☕ “größer”') FROM seq_1_to_20".to_owned(),
        format!(
            "INSERT INTO customers SELECT seq, CONCAT('user', seq, '@example.com'), ELT(1 + seq % 5, 'Zoë', 'Jürgen', '李雷', 'Олена', 'O''Neil 🛒'),
             DATE_ADD('1950-01-01', INTERVAL seq % 20000 DAY), ELT(1 + seq % 3, 'new', 'active', 'blocked'),
             IF(seq % 4 = 0, 'news,sms', IF(seq % 4 = 1, '', 'mail')), JSON_OBJECT('theme', IF(seq % 2, 'dark', 'light'), 'visits', seq, 'ratio', seq / 8),
             FROM_UNIXTIME(1400000000 + seq * 37), seq % 3 = 0 FROM seq_1_to_{customers}"
        ),
        format!(
            "INSERT INTO addresses SELECT seq, 1 + seq % {customers}, CONCAT(seq, ' Rue de l’Église'), ELT(1 + seq % 4, 'Paris', 'São Paulo', '東京', 'Łódź'),
             LPAD(seq % 99999, 5, '0'), IF(seq % 7 = 0, NULL, CONCAT('note\\n', seq)) FROM seq_1_to_{customers}"
        ),
        format!(
            "INSERT INTO products SELECT seq, 1 + seq % 20, CONCAT('SKU-', LPAD(seq, 8, '0')), CONCAT('Produkt ', seq, ' ™'), seq * 1.37, seq / 3.7,
             JSON_ARRAY(seq, CONCAT('tag', seq % 10), NULL), IF(seq % 9 = 0, NULL, REPEAT(CONCAT('Beschreibung ', seq, '. '), 1 + seq % 8)) FROM seq_1_to_{products}"
        ),
        format!("INSERT INTO product_images SELECT seq, seq, UNHEX(CONCAT(REPEAT(MD5(seq), 40), '00FF')), seq % 2 FROM seq_1_to_{products}"),
        format!(
            "INSERT INTO orders SELECT seq, 1 + (seq * 7) % {customers}, ELT(1 + seq % 4, 'open', 'paid', 'sent', 'returned'),
             '2020-01-01 00:00:00.123456' + INTERVAL seq * 91 SECOND, IF(seq % 5 = 0, NULL, DATE_ADD('2020-01-02', INTERVAL seq % 900 DAY)), seq % 100000 + 0.5
             FROM seq_1_to_{orders}"
        ),
        format!(
            "INSERT INTO order_items SELECT o.seq, l.seq, 1 + (o.seq * 31 + l.seq) % {products}, 1 + l.seq % 9, (o.seq % 5000) * 0.01 + l.seq, NULL
             FROM seq_1_to_{orders} o JOIN seq_1_to_4 l"
        ),
        format!("INSERT INTO payments SELECT seq, seq, seq % 100000 + 0.5, ELT(1 + seq % 3, 'card', 'cash', 'transfer'), '2020-02-01' + INTERVAL seq MINUTE FROM seq_1_to_{orders}"),
        format!(
            "INSERT INTO reviews SELECT seq, 1 + seq % {products}, 1 + seq % {customers}, 1 + seq % 5, CONCAT('Très bien 👍 № ', seq, ' \\\\ \"quoted\"'),
             FROM_UNIXTIME(1600000000 + seq) FROM seq_1_to_{customers}"
        ),
        "ANALYZE TABLE customers, addresses, products, product_images, orders, order_items, payments, reviews".to_owned(),
    ]);
    statements.extend(super::closing());
    statements
}

const TABLES: [&str; 9] = [
    "CREATE TABLE categories (id INT PRIMARY KEY AUTO_INCREMENT, parent_id INT, title VARCHAR(100) NOT NULL,
     CONSTRAINT fk_category_parent FOREIGN KEY (parent_id) REFERENCES categories (id) ON DELETE SET NULL)",
    "CREATE TABLE customers (id INT UNSIGNED PRIMARY KEY AUTO_INCREMENT, email VARCHAR(190) NOT NULL, name VARCHAR(80) NOT NULL, born DATE,
     state ENUM('new','active','blocked') NOT NULL DEFAULT 'new', channels SET('mail','sms','news') NOT NULL DEFAULT '', preferences JSON,
     created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, is_company TINYINT(1) NOT NULL DEFAULT 0, UNIQUE KEY by_email (email),
     KEY by_state_born (state, born), CONSTRAINT born_after CHECK (born > '1900-01-01')) COMMENT 'people who buy'",
    "CREATE TABLE addresses (id INT UNSIGNED PRIMARY KEY AUTO_INCREMENT, customer_id INT UNSIGNED NOT NULL, street VARCHAR(200) NOT NULL,
     city VARCHAR(100) NOT NULL, zip CHAR(5) NOT NULL, note TEXT, KEY by_city (city(10)),
     CONSTRAINT fk_address_customer FOREIGN KEY (customer_id) REFERENCES customers (id) ON DELETE CASCADE)",
    "CREATE TABLE products (id INT UNSIGNED PRIMARY KEY AUTO_INCREMENT, category_id INT NOT NULL, sku VARCHAR(20) NOT NULL, title VARCHAR(200) NOT NULL,
     price DECIMAL(12,4) NOT NULL, weight DOUBLE, tags JSON, description MEDIUMTEXT, UNIQUE KEY by_sku (sku),
     CONSTRAINT price_positive CHECK (price > 0), CONSTRAINT fk_product_category FOREIGN KEY (category_id) REFERENCES categories (id))",
    "CREATE TABLE product_images (id INT UNSIGNED PRIMARY KEY AUTO_INCREMENT, product_id INT UNSIGNED NOT NULL, image MEDIUMBLOB NOT NULL,
     is_main BIT(1) NOT NULL DEFAULT b'0', CONSTRAINT fk_image_product FOREIGN KEY (product_id) REFERENCES products (id))",
    "CREATE TABLE orders (id BIGINT PRIMARY KEY AUTO_INCREMENT, customer_id INT UNSIGNED NOT NULL, state ENUM('open','paid','sent','returned') NOT NULL,
     ordered_at DATETIME(6) NOT NULL, due DATE, total DECIMAL(14,2) NOT NULL, KEY by_customer (customer_id, ordered_at),
     CONSTRAINT fk_order_customer FOREIGN KEY (customer_id) REFERENCES customers (id))",
    "CREATE TABLE order_items (order_id BIGINT NOT NULL, line_no SMALLINT NOT NULL, product_id INT UNSIGNED NOT NULL, quantity TINYINT UNSIGNED NOT NULL,
     price DECIMAL(12,4) NOT NULL, remark VARCHAR(100), PRIMARY KEY (order_id, line_no), KEY by_product (product_id),
     CONSTRAINT fk_item_order FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE,
     CONSTRAINT fk_item_product FOREIGN KEY (product_id) REFERENCES products (id))",
    "CREATE TABLE payments (id BIGINT PRIMARY KEY AUTO_INCREMENT, order_id BIGINT NOT NULL, amount DECIMAL(14,2) NOT NULL,
     method ENUM('card','cash','transfer') NOT NULL, paid_at DATETIME NOT NULL, CONSTRAINT fk_payment_order FOREIGN KEY (order_id) REFERENCES orders (id))",
    "CREATE TABLE reviews (id INT UNSIGNED PRIMARY KEY AUTO_INCREMENT, product_id INT UNSIGNED NOT NULL, customer_id INT UNSIGNED NOT NULL,
     stars TINYINT NOT NULL, body TEXT NOT NULL, written_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, KEY by_product (product_id, stars),
     CONSTRAINT fk_review_product FOREIGN KEY (product_id) REFERENCES products (id),
     CONSTRAINT fk_review_customer FOREIGN KEY (customer_id) REFERENCES customers (id))",
];

//! What the types cannot say: bounds, which also keep the cost of the rules down, and rules in CEL.
//!
//! A path leads through a kind's schema: member names, `[]` for the elements of a list. A rule's sentence is the one that the REST API gives for the same mistake, and
//! its field, below the path, is the one that `details.field` names there, but for connections, which are names here and ids there.

/// Stands in a sentence for the object's `type`.
pub(crate) const TYPE: &str = "{type}";

/// A bound of one schema.
pub(crate) struct Bound {
    pub(crate) path: &'static str,
    pub(crate) keyword: &'static str,
    pub(crate) value: u64,
}

/// A rule about the object or list at a path.
pub(crate) struct Rule {
    pub(crate) path: &'static str,
    pub(crate) rule: &'static str,
    pub(crate) message: &'static str,
    /// Where the mistake is, below the path.
    pub(crate) field: &'static str,
}

const fn bound(path: &'static str, keyword: &'static str, value: u64) -> Bound {
    Bound { path, keyword, value }
}

const fn rule(path: &'static str, rule: &'static str, message: &'static str, field: &'static str) -> Rule {
    Rule { path, rule, message, field }
}

/// Bounds of a Connection.
pub(crate) const CONNECTION_BOUNDS: &[Bound] = &[
    bound("spec.database.host", "maxLength", 253),
    bound("spec.database.port", "minimum", 1),
    bound("spec.database.username", "maxLength", 256),
    bound("spec.secretRef.name", "maxLength", 253),
    bound("spec.ssl.clientKeyRef.name", "maxLength", 253),
    bound("spec.files.basePath", "maxLength", 4096),
    bound("status.conditions", "maxItems", 16),
];

/// Rules of a Connection.
pub(crate) const CONNECTION_RULES: &[Rule] = &[
    rule("spec", "self.type == oldSelf.type", "`type` cannot be changed", ".type"),
    rule(
        "spec",
        "[has(self.database), has(self.s3), has(self.gcs), has(self.azure), has(self.snowflake), has(self.files)].filter(form, form).size() == 1",
        "the spec must have exactly one form, such as `database`",
        "",
    ),
    rule(
        "spec",
        "self.type in ['mysql', 'postgresql'] ? has(self.database) : self.type == 's3' ? has(self.s3) : self.type == 'gcs' ? has(self.gcs) : self.type == 'azure' ? has(self.azure) : self.type == 'snowflake' ? has(self.snowflake) : has(self.files)",
        "a connection of type `{type}` has another form of spec",
        ".database",
    ),
    rule("spec", "!has(self.ssl) || has(self.database)", "`ssl` is for database connections", ".ssl"),
    rule("spec.database", "self.host.trim() != ''", "the host must not be empty", ".host"),
    rule("spec.database", "self.username.trim() != ''", "the user name must not be empty", ".username"),
    rule("spec.files", "self.basePath.startsWith('/')", "the folder must be an absolute path", ".basePath"),
    rule(
        "spec.secretRef",
        "self.name.startsWith('millrace-conn-')",
        "the name of a connection's Secret begins with `millrace-conn-`",
        ".name",
    ),
    rule(
        "spec.ssl.clientKeyRef",
        "self.name.startsWith('millrace-conn-')",
        "the name of a connection's Secret begins with `millrace-conn-`",
        ".name",
    ),
    rule("spec.ssl", "!has(self.clientCert) || has(self.clientKeyRef)", "`ssl.client_cert` needs `ssl.client_key`", ".clientKeyRef"),
    rule("spec.ssl", "!has(self.clientKeyRef) || has(self.clientCert)", "`ssl.client_key` needs `ssl.client_cert`", ".clientCert"),
];

/// Bounds of a StreamConfig's spec, which a Stream holds a copy of.
pub(crate) const CONFIG_BOUNDS: &[Bound] = &[
    bound("name", "maxLength", 253),
    bound("source.connections", "maxItems", 16),
    bound("source.connections[].alias", "maxLength", 63),
    bound("source.connections[].connection", "maxLength", 253),
    bound("source.connections[].tables", "maxItems", 5000),
    bound("source.connections[].tables[].name", "maxLength", 256),
    bound("source.connections[].queries", "maxItems", 200),
    bound("source.connections[].queries[].name", "maxLength", 256),
    bound("source.connections[].queries[].query", "maxLength", 65536),
    bound("source.connections[].s3.bucket", "maxLength", 256),
    bound("source.connections[].s3.prefixes", "maxItems", 1000),
    bound("source.connections[].s3.prefixes[]", "maxLength", 1024),
    bound("source.connections[].s3.objects", "maxItems", 1000),
    bound("source.connections[].s3.objects[]", "maxLength", 1024),
    bound("source.connections[].files.basePath", "maxLength", 4096),
    bound("source.connections[].files.paths", "maxItems", 1000),
    bound("source.options.operations", "maxItems", 3),
    bound("plan.rules", "maxItems", 500),
    bound("plan.rules[].to", "maxLength", 256),
    bound("target.connection", "maxLength", 253),
    bound("target.spec.db.database", "maxLength", 256),
    bound("target.spec.db.schema", "maxLength", 256),
    bound("runNonce", "maxLength", 253),
];

/// Rules of a StreamConfig's spec that hold wherever it stands.
pub(crate) const CONFIG_RULES: &[Rule] = &[
    rule("", "self.name.trim() != ''", "the name must not be blank", ".name"),
    rule(
        "",
        "self.mode != 'cdc' || !has(self.target.spec.db) || !has(self.target.spec.db.writeMode) || self.target.spec.db.writeMode == 'upsert'",
        "change data capture writes with `upsert` only",
        ".target.spec.db.writeMode",
    ),
    rule(
        "",
        "self.mode == 'convert' || self.source.connections.all(c, !has(c.queries) || c.queries.size() == 0)",
        "queries are for `convert` only",
        ".source.connections",
    ),
    rule("", "!has(self.parallelism) || self.parallelism > 0", "`parallelism` must be greater than 0", ".parallelism"),
    rule("source", "self.connections.size() > 0", "a config needs at least one source connection", ".connections"),
    rule(
        "source",
        "self.connections.size() < 2 || self.connections.all(c, has(c.alias))",
        "with several sources each needs an alias",
        ".connections",
    ),
    rule(
        "source",
        "self.connections.size() < 2 || self.connections.all(c, !has(c.alias) || self.connections.exists_one(d, has(d.alias) && d.alias == c.alias))",
        "aliases must be unique",
        ".connections",
    ),
    rule(
        "source.connections[]",
        "!has(self.alias) || self.alias.matches('^[A-Za-z][A-Za-z0-9_]*$')",
        "an alias is a letter, then letters, digits and underscores",
        ".alias",
    ),
    rule("source.connections[].tables[]", "self.name != ''", "the table's name must not be empty", ".name"),
    rule("source.connections[].queries[]", "self.name != '' && self.query != ''", "a query needs a name and SQL text", ""),
    rule(
        "source.connections[]",
        "!(has(self.files) || has(self.s3)) || !(has(self.database) || has(self.schema) || has(self.tables) || has(self.queries))",
        "file and S3 sources have no database, tables or queries",
        ".database",
    ),
    rule("source.connections[].s3", "self.bucket != ''", "the bucket must be named", ".bucket"),
    rule("source.connections[].s3", "!has(self.prefixes) || self.prefixes.all(p, p.endsWith('/'))", "a prefix ends with `/`", ".prefixes"),
    rule(
        "source.connections[].s3",
        "!has(self.objects) || self.objects.all(o, !o.endsWith('/'))",
        "an object does not end with `/`",
        ".objects",
    ),
    rule(
        "source.connections[].s3",
        "!has(self.manifestPath) || !(has(self.prefixes) || has(self.objects))",
        "give prefixes and objects, or a manifest",
        ".manifestPath",
    ),
    rule(
        "source.connections[].files",
        "self.basePath != '' && self.paths.size() > 0",
        "a file source needs `basePath` and at least one path",
        "",
    ),
    rule(
        "source.options",
        "!has(self.dataBundleSize) || self.dataBundleSize > 0",
        "`dataBundleSize` must be greater than 0",
        ".dataBundleSize",
    ),
    rule(
        "target.spec",
        "[has(self.db), has(self.files), has(self.s3), has(self.gcs), has(self.azure), has(self.snowflake)].filter(form, form).size() == 1",
        "the target must have exactly one form, such as `db`",
        "",
    ),
    rule("target.spec.db", "self.database.trim() != ''", "the target database must be named", ".database"),
    rule("target.spec.db", "!has(self.schema) || self.schema.trim() != ''", "the target schema must not be blank", ".schema"),
    rule("plan.rules[]", "has(self.table) || has(self.column) || has(self.type)", "a rule names a table, a column or a type", ""),
    rule("plan.rules[]", "has(self.to) || has(self.onLoss)", "a rule says `to` or `onLoss`", ""),
    rule("plan.rules[]", "!has(self.to) || self.to.trim() != ''", "the target type must not be blank", ".to"),
];

/// Rules of a StreamConfig about its changes.
pub(crate) const CONFIG_CHANGES: &[Rule] = &[
    rule(
        "spec",
        "self.source.connections.map(c, [has(c.alias) ? c.alias : '', c.connection]) == oldSelf.source.connections.map(c, [has(c.alias) ? c.alias : '', c.connection])",
        "a config's source connections cannot be changed; make a new config",
        ".source.connections",
    ),
    rule(
        "spec",
        "self.target.connection == oldSelf.target.connection",
        "a config's target cannot be changed; make a new config",
        ".target.connection",
    ),
];

/// Rules of a Stream.
pub(crate) const STREAM_RULES: &[Rule] = &[
    rule("spec", "self.config == oldSelf.config", "a stream's copy of its config cannot be changed", ".config"),
    rule("spec", "self.configRef == oldSelf.configRef", "a stream belongs to one config", ".configRef"),
    rule(
        "spec",
        "oldSelf.desired != 'Stopped' || self.desired == 'Stopped'",
        "a stream that was stopped stays stopped; start the config again",
        ".desired",
    ),
];

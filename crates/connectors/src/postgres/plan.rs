//! Decides every column, name and constraint of a copy into PostgreSQL; asks no server.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::catalog::{Column, DefaultValue, Index, LogicalType, Table, TableName};
use millrace_core::config::{PlanRule, SchemaPolicy, StructureOptions, WriteMode};
use millrace_core::connector::{ColumnFact, ExistingTable, PlanRequest, SourcePart};
use millrace_core::plan::{ColumnPlan, Creation, Obstacle, Plan, RowsAction, TablePlan, Verdict};
use millrace_core::value::OnLoss;
use millrace_core::{Error, Result};

use super::ddl;
use super::expression::translate;
use super::names::NameSpace;
use super::types::{self, Hints, PgType};

/// What the whole plan shares while tables are planned.
struct Planner<'a> {
    request: &'a PlanRequest<'a>,
    /// Where the tables of each part go.
    targets: Vec<BTreeMap<TableName, TableName>>,
    names: NameSpace,
    matched_rules: BTreeSet<usize>,
    obstacles: Vec<Obstacle>,
}

/// What the rules ask for a column, each with the index of the rule.
struct Asked {
    to: Option<(usize, String)>,
    on_loss: Option<(usize, OnLoss)>,
}

/// Plans the copy of all parts into a schema.
pub(super) fn plan(request: &PlanRequest<'_>, schema: &str) -> Result<Plan> {
    let mut names = NameSpace::default();
    let targets = request.sources.iter().map(|part| target_names(part, schema, &mut names)).collect();
    names.reserve(&request.target.taken);
    let mut planner = Planner { request, targets, names, matched_rules: BTreeSet::new(), obstacles: Vec::new() };
    let mut plan = Plan::default();
    for (index, part) in request.sources.iter().enumerate() {
        for table in &part.catalog.tables {
            plan.tables.push(planner.table(index, table)?);
        }
        for other in &part.catalog.others {
            plan.notes.push(format!("the {} `{}` is not moved", other.kind, other.name));
        }
    }
    if let Some(unmatched) = (0..request.options.plan.rules.len()).find(|index| !planner.matched_rules.contains(index)) {
        return Err(Error::invalid(format!("plan.rules[{unmatched}]"), "the rule matches no column that is copied"));
    }
    plan.obstacles = planner.obstacles;
    order_by_references(&mut plan, request);
    Ok(plan)
}

/// A table keeps its name; with several sources it gets the source's alias before it; a query's result is named by the query.
fn target_names(part: &SourcePart, schema: &str, names: &mut NameSpace) -> BTreeMap<TableName, TableName> {
    let target = |table: &Table| {
        let wanted = match &part.alias {
            Some(alias) if table.query.is_none() => format!("{alias}_{}", table.name.name),
            _ => table.name.name.clone(),
        };
        TableName { schema: schema.to_owned(), name: names.claim(&wanted, &wanted) }
    };
    let mut target = target;
    part.catalog.tables.iter().map(|table| (table.name.clone(), target(table))).collect()
}

/// Where the tables of all parts go.
pub(super) fn target_names_of(sources: &[SourcePart], schema: &str) -> Vec<TableName> {
    let mut names = NameSpace::default();
    sources.iter().flat_map(|part| target_names(part, schema, &mut names).into_values()).collect()
}

impl Planner<'_> {
    fn table(&mut self, part: usize, table: &Table) -> Result<TablePlan> {
        let structure = self.request.options.structure;
        let table = &wanted(table, structure);
        let target = self.targets[part][&table.name].clone();
        let existing = self.request.target.tables.iter().find(|existing| existing.name == target.name);
        let mut planned = TablePlan {
            source: table.clone(),
            part,
            creation: self.creation(&target, existing),
            target,
            columns: Vec::new(),
            rows: RowsAction::Load,
            after: Vec::new(),
            is_indivisible: false,
            label_checks: structure.check_constraints,
            refusals: Vec::new(),
            notes: Vec::new(),
        };
        planned.refusals.extend(table.refused.clone());
        if planned.target.name != table.name.name && self.request.sources.len() == 1 {
            planned.notes.push(format!("it is named `{}` in the target", planned.target.name));
        }
        match existing.filter(|_| planned.creation == Creation::Use) {
            Some(existing) => {
                self.existing_columns(&mut planned, existing)?;
                self.rows(&mut planned, existing);
            }
            None => {
                self.new_columns(&mut planned)?;
                check_defaults(&mut planned);
                check_expressions(&mut planned);
                map_indexes(&mut planned, &mut self.names);
                map_foreign_keys(&mut planned, &self.targets[part]);
            }
        }
        if planned.columns.iter().all(|column| !column.is_written) {
            planned.refusals.push("it has no column that can be written".to_owned());
        }
        Ok(planned)
    }

    /// What happens to the table's definition; what the policies forbid is noted as an obstacle.
    fn creation(&mut self, target: &TableName, existing: Option<&ExistingTable>) -> Creation {
        let options = self.request.options;
        let makes_tables = options.structure.tables;
        let name = &target.name;
        let (creation, obstacle) = match existing {
            None if !makes_tables => {
                let text =
                    format!("`{name}` does not exist in schema `{}` of the target, and `structureOptions.tables` is off", target.schema);
                (Creation::Create, Some(("structureOptions.tables", text)))
            }
            None if options.schema_policy == SchemaPolicy::ValidateExisting => {
                let text = format!(
                    "`{name}` does not exist in schema `{}` of the target; `schemaPolicy` is `validate_existing` (`create_missing_only` would create it)",
                    target.schema
                );
                (Creation::Create, Some(("schemaPolicy", text)))
            }
            None => (Creation::Create, None),
            Some(existing) if !existing.is_table => {
                let text = format!("`{name}` exists already in schema `{}` of the target and is no table", target.schema);
                (Creation::Create, Some(("schema", text)))
            }
            Some(_) if !makes_tables => (Creation::Use, None),
            Some(_) => match options.schema_policy {
                SchemaPolicy::FailIfExists => {
                    let text =
                        format!("`{name}` exists already in schema `{}` of the target; `schemaPolicy` is `fail_if_exists`", target.schema);
                    (Creation::Create, Some(("schemaPolicy", text)))
                }
                SchemaPolicy::DropAndRecreate => (Creation::Replace, None),
                SchemaPolicy::ValidateExisting | SchemaPolicy::CreateMissingOnly => (Creation::Use, None),
            },
        };
        if let Some((field, text)) = obstacle {
            self.obstacle(name, &format!("target.spec.db.{field}"), text);
        }
        creation
    }

    fn obstacle(&mut self, table: &str, field: &str, text: String) {
        self.obstacles.push(Obstacle { table: table.to_owned(), field: field.to_owned(), text });
    }

    /// How rows get into a table that exists.
    fn rows(&mut self, planned: &mut TablePlan, existing: &ExistingTable) {
        let options = self.request.options;
        if options.is_structure_only {
            return;
        }
        let name = planned.target.name.clone();
        const MODE: &str = "target.spec.db.writeMode";
        let keeps_rows = matches!(options.write_mode, WriteMode::Append | WriteMode::Upsert);
        if keeps_rows && !existing.is_empty && options.may_restart {
            let text = format!(
                "`{name}` has rows of others, so what a run has written could not be told from them after its moment was lost: set `onCutLost` to `continue`"
            );
            self.obstacle(&name, "onCutLost", text);
        }
        planned.rows = match options.write_mode {
            WriteMode::FailIfNotEmpty => {
                if !existing.is_empty {
                    self.obstacle(&name, MODE, format!("`{name}` has rows; `writeMode` is `fail_if_not_empty`"));
                }
                RowsAction::Load
            }
            WriteMode::Append => {
                if existing.unfinished_rows > 0 && !existing.is_empty {
                    let text = format!(
                        "`{name}` holds {} rows of an earlier run of this config that did not finish; remove them, or use `upsert` or `truncate_and_load`",
                        existing.unfinished_rows
                    );
                    self.obstacle(&name, MODE, text);
                }
                RowsAction::Append
            }
            WriteMode::TruncateAndLoad => RowsAction::Truncate,
            WriteMode::Upsert => {
                let key = upsert_key(planned, existing);
                if key.is_none() {
                    planned.refusals.push(format!("`upsert` needs a primary or unique key of `{name}` whose columns are all copied"));
                }
                RowsAction::Upsert { key: key.unwrap_or_default() }
            }
        };
        let in_plan = |name: &&String| self.targets.iter().any(|part| part.values().any(|target| target.name == **name));
        planned.after = existing
            .references
            .iter()
            .filter(in_plan)
            .filter(|name| **name != planned.target.name)
            .map(|name| TableName { schema: planned.target.schema.clone(), name: name.clone() })
            .collect();
        planned.is_indivisible = existing.references.contains(&planned.target.name);
    }

    fn hints<'h>(&'h self, part: usize, table: &TableName, column: &str) -> Hints<'h> {
        let facts = self.request.sources[part].facts.iter().filter(|(name, _)| name == table);
        let mut hints = Hints::default();
        for (_, fact) in facts {
            match fact {
                ColumnFact::TimeOfDay(name) if name == column => hints.is_time_of_day = true,
                ColumnFact::Srid(name, srid) if name == column => hints.srid = Some(*srid),
                _ => {}
            }
        }
        hints.postgis = self.request.target.extensions.iter().find(|(name, _)| name == "postgis").map(|(_, schema)| schema.as_str());
        hints
    }

    /// What the rules say about a column: target type and policy, each from the last rule that names it, with that rule's index.
    fn rules(&mut self, table: &Table, column: &Column) -> Asked {
        let (mut to, mut on_loss) = (None, None);
        for (index, rule) in self.request.options.plan.rules.iter().enumerate() {
            if rule.matches(&table.name.name, &column.name, &column.native_type) {
                self.matched_rules.insert(index);
                if let Some(wanted) = &rule.to {
                    to = Some((index, wanted.clone()));
                }
                if let Some(wanted) = rule.on_loss {
                    on_loss = Some((index, wanted));
                }
            }
        }
        Asked { to, on_loss }
    }

    fn new_columns(&mut self, planned: &mut TablePlan) -> Result<()> {
        let mut column_names = NameSpace::default();
        let table = planned.source.clone();
        for column in &table.columns {
            let name = column_names.claim(&column.name, &column.name);
            if name != column.name {
                planned.notes.push(format!("the column `{}` is named `{name}` in the target", column.name));
            }
            let Asked { to, on_loss } = self.rules(&table, column);
            let mut column_plan = ColumnPlan {
                source: column.name.clone(),
                target: name,
                from: column.native_type.clone(),
                to: String::new(),
                verdict: Verdict::Refused,
                reason: String::new(),
                is_written: column.generated.is_none(),
                labels: Vec::new(),
                srid: self.hints(planned.part, &table.name, &column.name).srid,
            };
            let kind = match (to, on_loss) {
                (Some((index, to)), _) => Ok(self.asked_type(index, &to, column, &planned.target.name)?),
                (None, Some((_, OnLoss::Text))) if types::fit(&column.logical, &PgType::Text, Hints::default()).is_some() => {
                    Ok(PgType::Text)
                }
                (None, _) => types::default_type(column, self.hints(planned.part, &table.name, &column.name)),
            };
            match kind {
                Ok(kind) => self.judge(&mut column_plan, (planned.part, &table), column, &kind, on_loss)?,
                Err(reason) => column_plan.reason = reason,
            }
            planned.columns.push(column_plan);
        }
        Ok(())
    }

    /// The type that a rule asks for.
    fn asked_type(&mut self, index: usize, to: &str, column: &Column, table: &str) -> Result<PgType> {
        let field = format!("plan.rules[{index}].to");
        if to.eq_ignore_ascii_case("enum") {
            let LogicalType::Enum(labels) = &column.logical else {
                return Err(Error::invalid(field, format!("`{}` is no ENUM, so its target cannot be one", column.name)));
            };
            let mut labels = labels.clone();
            if !labels.iter().any(String::is_empty) {
                labels.push(String::new());
            }
            let name = format!("{table}_{}", column.name);
            let name = self.names.claim(&name, &name);
            let schema = self.request.scope.schema.as_deref().unwrap_or(super::sink::DEFAULT_SCHEMA);
            return Ok(PgType::Labels(super::names::qualified(schema, &name), labels));
        }
        PgType::parse(to, &[]).ok_or_else(|| Error::invalid(field, format!("`{to}` is no type that columns can be copied into")))
    }

    /// The verdict on a pair of types.
    fn judge(
        &self,
        planned: &mut ColumnPlan,
        (part, table): (usize, &Table),
        column: &Column,
        kind: &PgType,
        on_loss: Option<(usize, OnLoss)>,
    ) -> Result<()> {
        let is_about_column =
            |index: usize| self.request.options.plan.rules.get(index).is_some_and(|rule: &PlanRule| rule.column.is_some());
        let asked = match on_loss {
            Some((index, OnLoss::Null)) if !column.nullable && is_about_column(index) => {
                let text = format!("`{}`.`{}` is NOT NULL, so its values cannot become NULL", table.name.name, column.name);
                return Err(Error::invalid(format!("plan.rules[{index}].onLoss"), text));
            }
            Some((_, OnLoss::Null)) if !column.nullable => None,
            Some((index, OnLoss::Text)) if kind.text_limit().is_none() => {
                let text = format!("`{}`.`{}` goes into {}, which is no text", table.name.name, column.name, kind.sql());
                return Err(Error::invalid(format!("plan.rules[{index}].onLoss"), text));
            }
            other => other.map(|(_, on_loss)| on_loss),
        };
        let hints = self.hints(part, &table.name, &column.name);
        planned.to = kind.sql();
        if let PgType::Labels(_, labels) = kind {
            planned.labels = labels.clone();
        }
        match types::fit(&column.logical, kind, hints) {
            Some(fit) => {
                let is_strict = self.request.options.plan.strict;
                let (verdict, reason) = types::verdict(column, fit, asked.filter(|on_loss| *on_loss != OnLoss::Text), is_strict);
                (planned.verdict, planned.reason) = match (verdict, asked) {
                    (Verdict::Exact, Some(OnLoss::Text)) if !types::is_text(&column.logical) => {
                        (Verdict::Policy(OnLoss::Text), "every value is kept as text".to_owned())
                    }
                    (verdict, _) => (verdict, reason),
                };
            }
            None => planned.reason = format!("{} cannot hold it", kind.sql()),
        }
        Ok(())
    }

    /// Columns of a table that is used as it is.
    fn existing_columns(&mut self, planned: &mut TablePlan, existing: &ExistingTable) -> Result<()> {
        let table = planned.source.clone();
        let mut found_columns = BTreeSet::new();
        for column in &table.columns {
            let Asked { to, on_loss } = self.rules(&table, column);
            if let Some((index, _)) = to {
                let text = format!("`{}` exists at the target and is used as it is; its types cannot be chosen", existing.name);
                return Err(Error::invalid(format!("plan.rules[{index}].to"), text));
            }
            let found = existing
                .columns
                .iter()
                .find(|found| found.name == column.name)
                .or_else(|| existing.columns.iter().find(|found| found.name.eq_ignore_ascii_case(&column.name)));
            let mut column_plan = ColumnPlan {
                source: column.name.clone(),
                target: found.map_or_else(|| column.name.clone(), |found| found.name.clone()),
                from: column.native_type.clone(),
                to: found.map_or_else(String::new, |found| found.native_type.clone()),
                verdict: Verdict::Refused,
                reason: String::new(),
                is_written: found.is_none_or(|found| !found.is_generated),
                labels: Vec::new(),
                srid: self.hints(planned.part, &table.name, &column.name).srid,
            };
            let Some(found) = found else {
                column_plan.reason = format!("the target's table `{}` has no such column", existing.name);
                planned.columns.push(column_plan);
                continue;
            };
            found_columns.insert(found.name.clone());
            if found.is_generated {
                let is_same = column.generated.is_some();
                column_plan.verdict = if is_same { Verdict::Exact } else { Verdict::Refused };
                column_plan.reason =
                    if is_same { "the target computes it".into() } else { "the target computes this column itself".into() };
                planned.columns.push(column_plan);
                continue;
            }
            match PgType::parse(&found.native_type, &found.labels) {
                Some(kind) => {
                    self.judge(&mut column_plan, (planned.part, &table), column, &kind, on_loss)?;
                    column_plan.to = found.native_type.clone();
                }
                None => column_plan.reason = format!("columns cannot be copied into {}", found.native_type),
            }
            if column.nullable && !found.is_nullable {
                planned.notes.push(format!("`{}` is NOT NULL in the target: a NULL fails the table", found.name));
            }
            planned.columns.push(column_plan);
        }
        for found in existing.columns.iter().filter(|found| !found_columns.contains(&found.name)) {
            if !found.is_nullable && !found.has_default && !found.is_generated {
                planned.refusals.push(format!("the target's column `{}` is NOT NULL, has no default and no counterpart here", found.name));
            }
        }
        Ok(())
    }
}

/// The target's unique key that the copied columns can fill: the source's own if the target has it, else the first.
fn upsert_key(planned: &TablePlan, existing: &ExistingTable) -> Option<Vec<String>> {
    let written: BTreeSet<&str> = planned.columns.iter().filter(|column| column.is_written).map(|column| column.target.as_str()).collect();
    let possible: Vec<&Vec<String>> =
        existing.keys.iter().filter(|key| !key.is_empty() && key.iter().all(|column| written.contains(column.as_str()))).collect();
    let own: BTreeSet<String> = planned.source.row_key()?.iter().filter_map(|name| target_column(planned, name)).collect();
    let same = possible.iter().find(|key| key.iter().cloned().collect::<BTreeSet<_>>() == own);
    same.or(possible.first()).map(|key| (*key).clone())
}

/// Tables whose rows the target checks against each other in a circle can be loaded in no order.
fn order_by_references(plan: &mut Plan, request: &PlanRequest<'_>) {
    if request.options.is_structure_only {
        return;
    }
    let mut done: BTreeSet<TableName> =
        plan.tables.iter().filter(|table| table.after.is_empty()).map(|table| table.target.clone()).collect();
    loop {
        let ready: Vec<TableName> = plan
            .tables
            .iter()
            .filter(|table| !done.contains(&table.target) && table.after.iter().all(|before| done.contains(before)))
            .map(|table| table.target.clone())
            .collect();
        if ready.is_empty() {
            break;
        }
        done.extend(ready);
    }
    for table in plan.tables.iter_mut().filter(|table| !done.contains(&table.target)) {
        let others: Vec<String> = table.after.iter().filter(|name| !done.contains(name)).map(|name| format!("`{}`", name.name)).collect();
        table.refusals.push(format!(
            "foreign keys of the target connect it in a circle with {}, so no order of loading satisfies them: drop one of them for the load",
            others.join(", ")
        ));
    }
}

/// The table without the structure that is not wanted. What is not wanted cannot refuse the plan.
fn wanted(table: &Table, structure: StructureOptions) -> Table {
    let mut table = table.clone();
    if !structure.indexes || !structure.tables {
        table.indexes.clear();
    }
    if !structure.foreign_keys || !structure.tables {
        table.foreign_keys.clear();
    }
    if !structure.check_constraints || !structure.tables {
        table.checks.clear();
    }
    table
}

/// A default that cannot be written the same way is left out, and said so: it changes no row that is moved.
fn check_defaults(planned: &mut TablePlan) {
    let mut notes = Vec::new();
    for (column, target) in planned.source.columns.iter().zip(&planned.columns) {
        if let Some(default) = &column.default
            && target.verdict != Verdict::Refused
            && ddl::default_sql(column, default, target).is_none()
            && !is_null_default(column, default)
        {
            notes.push(format!("the default of `{}` has no form in the target and is left out", column.name));
        }
    }
    planned.notes.append(&mut notes);
}

fn is_null_default(column: &Column, default: &DefaultValue) -> bool {
    column.nullable && matches!(default, DefaultValue::Literal(text) if text.eq_ignore_ascii_case("null"))
}

/// Checks and generated columns must mean the same or are refused.
fn check_expressions(planned: &mut TablePlan) {
    let mut refusals = Vec::new();
    for check in &planned.source.checks {
        if let Err(reason) = translate(&check.expression, &|name| target_column(planned, name)) {
            refusals.push(format!("the check `{}` cannot be carried over: {reason}", check.name));
        }
    }
    for column in &planned.source.columns {
        let Some(expression) = &column.generated else { continue };
        if let Err(reason) = translate(expression, &|name| target_column(planned, name)) {
            refusals.push(format!("the generated column `{}` cannot be carried over: {reason}", column.name));
        }
    }
    planned.refusals.append(&mut refusals);
}

/// Index names are unique per table in MySQL and per schema in PostgreSQL.
fn map_indexes(planned: &mut TablePlan, names: &mut NameSpace) {
    let table = planned.target.name.clone();
    let mut kept: Vec<Index> = Vec::new();
    for mut index in std::mem::take(&mut planned.source.indexes) {
        match index.method.as_str() {
            "BTREE" | "HASH" => {}
            "FULLTEXT" => planned.notes.push(format!("the full-text index `{}` becomes a GIN index over words", index.name)),
            "SPATIAL"
                if planned
                    .columns
                    .iter()
                    .any(|column| index.parts.iter().any(|part| part.column == column.source) && is_geometry(column)) => {}
            other => {
                planned.notes.push(format!("the {other} index `{}` is not moved", index.name));
                continue;
            }
        }
        if index.parts.iter().any(|part| part.expression.is_some()) {
            planned.refusals.push(format!("the index `{}` over an expression cannot be carried over", index.name));
            continue;
        }
        let name = names.claim(&index.name, &format!("{table}_{}", index.name));
        if name != index.name {
            planned.notes.push(format!("the index `{}` is named `{name}` in the target", index.name));
        }
        let compares_text = index.unique && index.parts.iter().any(|part| is_text(&planned.source, &part.column));
        if compares_text {
            planned.notes.push(format!("the unique index `{name}` tells upper from lower case, unlike most MySQL collations"));
        }
        index.name = name;
        kept.push(index);
    }
    planned.source.indexes = kept;
}

fn is_text(table: &Table, column: &str) -> bool {
    table.column(column).is_some_and(|column| types::is_text(&column.logical))
}

fn is_geometry(column: &ColumnPlan) -> bool {
    matches!(PgType::parse(&column.to, &column.labels), Some(PgType::Geometry(_)))
}

/// A foreign key to a table that is not copied along cannot be made; the user who chose the tables is told.
fn map_foreign_keys(planned: &mut TablePlan, targets: &BTreeMap<TableName, TableName>) {
    let (kept, outside) =
        std::mem::take(&mut planned.source.foreign_keys).into_iter().partition(|key| targets.contains_key(&key.referenced));
    planned.source.foreign_keys = kept;
    let outside: Vec<millrace_core::catalog::ForeignKey> = outside;
    for key in outside {
        let text = format!("the foreign key `{}` points to `{}`, which is not part of the copy, and is left out", key.name, key.referenced);
        planned.notes.push(text);
    }
}

/// The target's name of a source column.
pub(super) fn target_column(planned: &TablePlan, source: &str) -> Option<String> {
    let found = planned
        .columns
        .iter()
        .find(|column| column.source == source)
        .or_else(|| planned.columns.iter().find(|column| column.source.eq_ignore_ascii_case(source)));
    found.map(|column| column.target.clone())
}

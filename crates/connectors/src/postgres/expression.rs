//! Conditions in MySQL's dialect as PostgreSQL writes them.
//!
//! The text is parsed by `sqlparser` and only forms that mean the same in both dialects are written out again; anything else is an error with
//! its reason, so that the plan refuses it by name and nothing is guessed.

use sqlparser::ast::{BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator, Value};
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;

use super::names::{literal, quote};

/// Translates an expression; `column` maps a column's name at the source to the one at the target.
pub(super) fn translate(sql: &str, column: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    // MySQL 8 prints character set introducers before literals.
    let plain = sql.replace("_utf8mb4\\'", "'").replace("_utf8mb4'", "'").replace("\\'", "'");
    let parsed = Parser::new(&MySqlDialect {}).try_with_sql(&plain).and_then(|mut parser| parser.parse_expr());
    let expression = parsed.map_err(|error| format!("it cannot be parsed ({error})"))?;
    render(&expression, column)
}

fn render(expression: &Expr, column: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let go = |inner: &Expr| render(inner, column);
    match expression {
        Expr::Identifier(name) => column(&name.value).map(|name| quote(&name)).ok_or_else(|| format!("it names `{}`", name.value)),
        Expr::Value(value) => constant(&value.value),
        Expr::Nested(inner) => Ok(format!("({})", go(inner)?)),
        Expr::IsNull(inner) => Ok(format!("({}) IS NULL", go(inner)?)),
        Expr::IsNotNull(inner) => Ok(format!("({}) IS NOT NULL", go(inner)?)),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => Ok(format!("NOT ({})", go(expr)?)),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Ok(format!("-({})", go(expr)?)),
        Expr::BinaryOp { left, op, right } => Ok(format!("{} {} {}", go(left)?, operator(op)?, go(right)?)),
        Expr::Between { expr, negated, low, high } => {
            let not = if *negated { "NOT " } else { "" };
            Ok(format!("{} {not}BETWEEN {} AND {}", go(expr)?, go(low)?, go(high)?))
        }
        Expr::InList { expr, list, negated } => {
            let list: Vec<String> = list.iter().map(go).collect::<Result<_, _>>()?;
            let not = if *negated { "NOT " } else { "" };
            Ok(format!("{} {not}IN ({})", go(expr)?, list.join(", ")))
        }
        Expr::Function(function) => call(function, column),
        other => Err(format!("it uses `{}`, which is not translated", shortened(&other.to_string()))),
    }
}

fn operator(operator: &BinaryOperator) -> Result<&'static str, String> {
    Ok(match operator {
        BinaryOperator::Plus => "+",
        BinaryOperator::Minus => "-",
        BinaryOperator::Multiply => "*",
        BinaryOperator::Eq => "=",
        BinaryOperator::NotEq => "<>",
        BinaryOperator::Lt => "<",
        BinaryOperator::LtEq => "<=",
        BinaryOperator::Gt => ">",
        BinaryOperator::GtEq => ">=",
        BinaryOperator::And => "AND",
        BinaryOperator::Or => "OR",
        BinaryOperator::Spaceship => "IS NOT DISTINCT FROM",
        // `/` keeps fractions there and drops them here; `||` is OR there and joins texts here.
        other => return Err(format!("it uses the operator `{other}`, which means something else in PostgreSQL")),
    })
}

fn constant(value: &Value) -> Result<String, String> {
    match value {
        Value::Number(number, _) => Ok(number.clone()),
        Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => Ok(literal(text)),
        Value::Null => Ok("NULL".to_owned()),
        other => Err(format!("it uses the literal `{}`, which is not translated", shortened(&other.to_string()))),
    }
}

/// Functions that give the same answer in both engines.
fn call(function: &Function, column: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let name = function.name.to_string().to_ascii_lowercase();
    let FunctionArguments::List(list) = &function.args else { return Err(format!("it calls `{name}`, which is not translated")) };
    let arguments: Vec<String> = list
        .args
        .iter()
        .map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(inner)) => render(inner, column),
            other => Err(format!("it uses `{}`, which is not translated", shortened(&other.to_string()))),
        })
        .collect::<Result<_, _>>()?;
    let target = match name.as_str() {
        "char_length" | "character_length" => "char_length",
        "length" | "octet_length" => "octet_length",
        "abs" => "abs",
        "coalesce" => "coalesce",
        "ifnull" if arguments.len() == 2 => "coalesce",
        "greatest" => return Err("it calls `greatest`, which treats NULL differently in PostgreSQL".to_owned()),
        _ => return Err(format!("it calls `{name}`, which is not translated")),
    };
    Ok(format!("{target}({})", arguments.join(", ")))
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(sql: &str) -> Result<String, String> {
        translate(sql, &|name| Some(name.to_owned()))
    }

    #[test]
    fn common_conditions_are_translated() {
        let table = [
            ("`qty` > 0", "\"qty\" > 0"),
            ("`qty` > 0 and `state` in ('a','b''c')", "\"qty\" > 0 AND \"state\" IN ('a', 'b''c')"),
            ("`a` <=> `b`", "\"a\" IS NOT DISTINCT FROM \"b\""),
            ("char_length(`name`) between 1 and 10", "char_length(\"name\") BETWEEN 1 AND 10"),
            ("(`a` is null or not (`b` <> 2))", "((\"a\") IS NULL OR NOT ((\"b\" <> 2)))"),
        ];
        for (mysql, postgres) in table {
            assert_eq!(translated(mysql).as_deref(), Ok(postgres), "{mysql}");
        }
    }

    #[test]
    fn what_means_something_else_is_refused_with_its_reason() {
        for (sql, word) in [("`a` / 2 = 1", "/"), ("json_valid(`a`)", "json_valid"), ("`a` regexp 'x'", "REGEXP"), ("`a` ||", "parse")] {
            let reason = translated(sql).unwrap_err();
            assert!(reason.to_ascii_lowercase().contains(&word.to_ascii_lowercase()), "{sql}: {reason}");
        }
    }
}

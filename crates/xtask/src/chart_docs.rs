//! The table of values in the chart's README, from the `# --` comments of its values.
//!
//! Every value has such a comment, or stands below one: a value that nobody has described stops the generator.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

const START: &str = "<!-- values: from the comments of values.yaml by `./x gen` -->\n";
const END: &str = "<!-- end of values -->";

/// One described value.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    path: String,
    default: String,
    text: String,
}

/// A line `key: value` of the values.
struct Entry<'a> {
    indent: usize,
    key: &'a str,
    value: &'a str,
    text: Option<String>,
}

/// Where the README stands, and what it should say.
pub(crate) fn readme(repository: &Path) -> anyhow::Result<(PathBuf, String)> {
    let chart = repository.join("charts/millrace");
    let path = chart.join("README.md");
    let old = std::fs::read_to_string(&path).with_context(|| format!("`{}` cannot be read", path.display()))?;
    let values = std::fs::read_to_string(chart.join("values.yaml")).context("the chart has no values.yaml")?;
    let (before, rest) = old.split_once(START).context("the chart's README has no place for the values")?;
    let (_, after) = rest.split_once(END).context("the place for the values in the chart's README has no end")?;
    let table = table(&rows(&values)?);
    Ok((path, format!("{before}{START}{table}{END}{after}")))
}

fn entries(values: &str) -> anyhow::Result<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    let mut text: Option<String> = None;
    for (number, line) in values.lines().enumerate() {
        let content = line.trim_start();
        if let Some(first) = content.strip_prefix("# --") {
            text = Some(first.trim().to_owned());
        } else if let Some(more) = content.strip_prefix('#') {
            if let Some(text) = &mut text {
                text.push(' ');
                text.push_str(more.trim());
            }
        } else if content.is_empty() {
            text = None;
        } else {
            let Some((key, value)) = content.split_once(':').filter(|(key, _)| !key.contains([' ', '"', '{', '['])) else {
                bail!("values.yaml, line {}: write lists in brackets, one value a line", number + 1);
            };
            entries.push(Entry { indent: line.len() - content.len(), key, value: value.trim(), text: text.take() });
        }
    }
    Ok(entries)
}

fn rows(values: &str) -> anyhow::Result<Vec<Row>> {
    let entries = entries(values)?;
    let mut rows = Vec::new();
    // Keys above the current one: indent, name, whether a description covers what is below.
    let mut above: Vec<(usize, &str, bool)> = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        above.retain(|(indent, ..)| *indent < entry.indent);
        let is_covered = above.iter().any(|(.., is_described)| *is_described);
        let path = above.iter().map(|(_, key, _)| *key).chain([entry.key]).collect::<Vec<_>>().join(".");
        if let Some(text) = &entry.text {
            let default = if entry.value.is_empty() { below(&entries[place + 1..], entry.indent) } else { entry.value.to_owned() };
            rows.push(Row { path, default, text: text.clone() });
        } else if !entry.value.is_empty() && !is_covered {
            bail!("values.yaml: `{path}` has no comment `# -- …`");
        }
        above.push((entry.indent, entry.key, entry.text.is_some()));
    }
    Ok(rows)
}

/// What stands below a key, on one line.
fn below(entries: &[Entry<'_>], indent: usize) -> String {
    let own = entries.iter().take_while(|entry| entry.indent > indent).count();
    let own = &entries[..own];
    let Some(first) = own.first() else { return "{}".to_owned() };
    let direct = own.iter().enumerate().filter(|(_, entry)| entry.indent == first.indent);
    let parts = direct.map(|(place, entry)| {
        let value = if entry.value.is_empty() { below(&own[place + 1..], entry.indent) } else { entry.value.to_owned() };
        format!("{}: {value}", entry.key)
    });
    format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
}

/// Markdown: what stands at the top first, then a section for each group.
fn table(rows: &[Row]) -> String {
    let mut sections: Vec<(&str, Vec<&Row>)> = vec![("General", Vec::new())];
    for row in rows {
        let title = row.path.split_once('.').map_or("General", |(group, _)| group);
        match sections.iter_mut().find(|(known, _)| *known == title) {
            Some((_, rows)) => rows.push(row),
            None => sections.push((title, vec![row])),
        }
    }
    let mut text = String::new();
    for (title, rows) in sections.iter().filter(|(_, rows)| !rows.is_empty()) {
        text.push_str(&format!("\n### {title}\n\n| value | default | what it says |\n|---|---|---|\n"));
        for row in rows {
            let cell = |text: &str| text.replace('|', "\\|");
            text.push_str(&format!("| `{}` | `{}` | {} |\n", row.path, cell(&row.default), cell(&row.text)));
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn row(path: &str, default: &str, text: &str) -> Row {
        Row { path: path.to_owned(), default: default.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn comments_describe_values_and_blocks() {
        let values = "# a note\n\nimage:\n  # -- Where from\n  # in general\n  name: a/b\n# -- All of it\nsecurity:\n  user: 1\n  more: {a: 1}\n  deep:\n    er: x\n";
        let expected =
            [row("image.name", "a/b", "Where from in general"), row("security", "{user: 1, more: {a: 1}, deep: {er: x}}", "All of it")];
        assert_eq!(rows(values).unwrap(), expected);
    }

    #[test]
    fn a_value_that_nobody_described_is_named() {
        let error = rows("image:\n  # -- Where from\n  name: a\n  tag: b\n").unwrap_err();
        assert_eq!(error.to_string(), "values.yaml: `image.tag` has no comment `# -- …`");
    }

    #[test]
    fn a_comment_does_not_reach_over_an_empty_line() {
        assert!(rows("# -- Nothing of this\n\ntag: b\n").is_err());
    }

    #[test]
    fn groups_have_tables_of_their_own_and_bars_are_escaped() {
        let text = table(&[row("level", "a|b", "This | that"), row("image.name", "x", "Where")]);
        assert!(text.contains("### General\n") && text.contains("| `level` | `a\\|b` | This \\| that |"), "{text}");
        assert!(text.contains("### image\n"), "{text}");
    }
}

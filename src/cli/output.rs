//! How results are shown: as tables for people, as JSON and YAML for programs, as bare values for shell scripts.
//!
//! The manner is that of the `openstack` command, with one difference: without `-c`, JSON and YAML hold the service's
//! whole objects, with its own attribute names, so that a script sees all there is.

use std::io::Write as _;

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};
use serde_json::{Map, Value};

use super::error::{CliError, Result, printable};

/// The options of every command that shows something.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// How to write the result: table, json, yaml or value.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    pub format: Format,
    /// Show only this column; may be given several times.
    #[arg(short, long = "column", value_name = "COLUMN")]
    pub columns: Vec<String>,
    /// Wrap tables to this many characters.
    #[arg(
        long,
        env = "CLIFF_MAX_TERM_WIDTH",
        default_value_t = 0,
        value_name = "CHARACTERS",
        hide_env = true,
        hide_default_value = true
    )]
    pub max_width: u16,
}

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// The values alone: one line for each row, or one for each field.
    Value,
}

/// A column of a list, or a field of a single object.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name: what `-c` takes and what the headings are made of.
    pub name: &'static str,
    /// Where its value is in the object, as a dotted path.
    pub path: &'static str,
    /// Where it is shown unasked.
    pub shown: Shown,
}

/// Where a column is shown unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// In lists, and where a single object is shown.
    InLists,
    /// Where a single object is shown.
    Alone,
    /// Nowhere: it is long, and of use to programs more than to people.
    Nowhere,
}

impl Column {
    /// A column that lists show, of an attribute of the same name.
    #[must_use]
    pub const fn listed(name: &'static str) -> Self {
        Self { name, path: name, shown: Shown::InLists }
    }

    /// A column that lists show only when it is asked for.
    #[must_use]
    pub const fn other(name: &'static str) -> Self {
        Self { name, path: name, shown: Shown::Alone }
    }

    /// A column that is shown only when it is asked for.
    #[must_use]
    pub const fn hidden(name: &'static str) -> Self {
        Self { name, path: name, shown: Shown::Nowhere }
    }

    /// The same column, with its value elsewhere.
    #[must_use]
    pub const fn at(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    fn value<'a>(&self, object: &'a Value) -> &'a Value {
        self.path.split('.').try_fold(object, |value, step| value.get(step)).unwrap_or(&Value::Null)
    }

    fn heading(&self) -> String {
        let words = self.name.split('_').map(|word| match word {
            "id" => "ID".to_owned(),
            "ms" => "(ms)".to_owned(),
            word => {
                let mut letters = word.chars();
                letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Whether `asked` is this column: by name, or by its heading in any case.
    fn is_named(&self, asked: &str) -> bool {
        asked.trim().to_lowercase().replace(['(', ')'], "").replace(' ', "_") == self.name
    }
}

/// The lines that PrettyTable draws, and with it every OpenStack client.
const STYLE: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('+', '-', '+', '+'))
    .header_lines(ContentLineStyle::new('|', '|', '|'))
    .header_separator(LineStyle::new('+', '-', '+', '+'))
    .content_lines(ContentLineStyle::new('|', '|', '|'))
    .bottom_border(LineStyle::new('+', '-', '+', '+'));

impl OutputArgs {
    /// Checks the columns that are asked for. Commands that change something do so before they change it.
    ///
    /// # Errors
    /// When a column is asked for that is not there.
    pub fn check(&self, columns: &[Column]) -> Result<()> {
        self.chosen(columns).map(drop)
    }

    /// Writes a list to standard output.
    ///
    /// # Errors
    /// When a column is asked for that is not there, or standard output is closed.
    pub fn print_list(&self, columns: &[Column], rows: &[Value]) -> Result<()> {
        print(&self.list(columns, rows)?)
    }

    /// Writes one object to standard output.
    ///
    /// # Errors
    /// As [`Self::print_list`].
    pub fn print_object(&self, columns: &[Column], object: &Value) -> Result<()> {
        print(&self.object(columns, object)?)
    }

    /// A list as text.
    ///
    /// # Errors
    /// When a column is asked for that is not there.
    pub fn list(&self, columns: &[Column], rows: &[Value]) -> Result<String> {
        let chosen = match self.chosen(columns)? {
            Some(chosen) => chosen,
            None => columns.iter().filter(|column| column.shown == Shown::InLists).copied().collect(),
        };
        let cells = |row: &Value| chosen.iter().map(|column| shown(column.value(row))).collect::<Vec<_>>();
        Ok(match self.format {
            Format::Table => {
                let mut table = self.table(chosen.iter().map(Column::heading).collect());
                for row in rows {
                    table.add_row(cells(row));
                }
                format!("{table}\n")
            }
            Format::Value => rows
                .iter()
                .map(|row| {
                    let values: Vec<_> =
                        chosen.iter().map(|column| bare(column.value(row)).replace('\n', "\\n")).collect();
                    values.join(" ") + "\n"
                })
                .collect(),
            Format::Json | Format::Yaml => {
                let rows =
                    rows.iter().map(|row| if self.columns.is_empty() { row.clone() } else { part(&chosen, row) });
                self.document(&rows.collect())?
            }
        })
    }

    /// One object as text. Attributes that `columns` does not know follow those that it does: a newer service may have
    /// more.
    ///
    /// # Errors
    /// When a column is asked for that is not there.
    pub fn object(&self, columns: &[Column], object: &Value) -> Result<String> {
        let fields: Vec<(&str, &Value)> = match self.chosen(columns)? {
            Some(chosen) => chosen.iter().map(|column| (column.name, column.value(object))).collect(),
            None => {
                let known = |name: &str| columns.iter().any(|column| column.path.split('.').next() == Some(name));
                let others = object.as_object().into_iter().flatten().filter(|(name, _)| !known(name));
                columns
                    .iter()
                    .filter(|column| column.shown != Shown::Nowhere)
                    .map(|column| (column.name, column.value(object)))
                    .chain(others.map(|(name, value)| (name.as_str(), value)))
                    .collect()
            }
        };
        Ok(match self.format {
            Format::Table => {
                let mut table = self.table(vec!["Field".to_owned(), "Value".to_owned()]);
                for (name, value) in fields {
                    table.add_row([printable(name).into_owned(), shown(value)]);
                }
                format!("{table}\n")
            }
            Format::Value => fields.iter().map(|(_, value)| bare(value) + "\n").collect(),
            Format::Json | Format::Yaml if self.columns.is_empty() => self.document(object)?,
            Format::Json | Format::Yaml => {
                let part: Map<_, _> =
                    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect();
                self.document(&Value::Object(part))?
            }
        })
    }

    /// The columns that were asked for; none: none were.
    fn chosen(&self, columns: &[Column]) -> Result<Option<Vec<Column>>> {
        if self.columns.is_empty() {
            return Ok(None);
        }
        let find = |asked: &String| {
            columns.iter().find(|column| column.is_named(asked)).copied().ok_or_else(|| {
                let names: Vec<_> = columns.iter().map(|column| column.name).collect();
                CliError::Usage(format!("there is no column '{}'; there are: {}", printable(asked), names.join(", ")))
            })
        };
        self.columns.iter().map(find).collect::<Result<_>>().map(Some)
    }

    fn table(&self, headings: Vec<String>) -> Table {
        let mut table = Table::new();
        table.load_style(STYLE).set_header(headings);
        if self.max_width > 0 {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(self.max_width);
        }
        table
    }

    fn document(&self, value: &Value) -> Result<String> {
        let text = match self.format {
            Format::Yaml => serde_yaml_ng::to_string(value).map_err(|error| error.to_string()),
            Format::Json | Format::Table | Format::Value => {
                serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| error.to_string())
            }
        };
        text.map_err(|error| CliError::Failed(format!("the result cannot be written: {error}")))
    }
}

fn part(columns: &[Column], row: &Value) -> Value {
    columns.iter().map(|column| (column.name.to_owned(), column.value(row).clone())).collect::<Map<_, _>>().into()
}

/// A value in a table's cell: nothing for null, `a='1', b='2'` for an object of plain values, JSON for what is deeper.
fn shown(value: &Value) -> String {
    let plain = |value: &Value| !matches!(value, Value::Array(_) | Value::Object(_));
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text).into_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) if items.iter().all(plain) => {
            let items: Vec<_> = items.iter().map(|item| shown(item).trim_end().to_owned()).collect();
            // A stack is a list of texts of several lines.
            items.join(if items.iter().any(|item| item.contains('\n')) { "\n" } else { ", " })
        }
        Value::Array(items) => items.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"),
        Value::Object(members) if members.values().all(plain) => {
            let member = |(name, value): (&String, &Value)| format!("{}='{}'", printable(name), shown(value));
            members.iter().map(member).collect::<Vec<_>>().join(", ")
        }
        Value::Object(_) => value.to_string(),
    }
}

/// A value for a shell: as in a table, but null has a word, so that columns do not move.
fn bare(value: &Value) -> String {
    if value.is_null() { "None".to_owned() } else { shown(value) }
}

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written to.
pub fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output.
///
/// # Errors
/// When it cannot be written to.
pub fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            CliError::OutputClosed
        } else {
            CliError::Failed(format!("standard output cannot be written to: {error}"))
        }
    })
}

/// Writes a line to standard error. That it cannot be written is nothing that could be told.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[
        Column::listed("id"),
        Column::listed("name"),
        Column::listed("max_age").at("retry.max_age"),
        Column::other("environment"),
        Column::hidden("links"),
    ];

    fn rows() -> Vec<Value> {
        vec![
            json!({"id": 1, "name": "thumb", "retry": {"max_age": 60}, "environment": {"A": "1", "B": "x y"}}),
            json!({"id": 22, "name": "naïve\u{1b}[0m", "retry": null, "more": [1, 2]}),
        ]
    }

    fn output(format: Format, columns: &[&str]) -> OutputArgs {
        OutputArgs { format, columns: columns.iter().map(ToString::to_string).collect(), max_width: 0 }
    }

    #[test]
    fn a_list_is_a_table_with_headings_as_openstack_writes_them() {
        let expected = "\
+----+----------------+---------+
| ID | Name           | Max Age |
+----+----------------+---------+
| 1  | thumb          | 60      |
| 22 | naïve\\u{1b}[0m |         |
+----+----------------+---------+
";
        assert_eq!(output(Format::Table, &[]).list(COLUMNS, &rows()).unwrap(), expected);
    }

    #[test]
    fn an_empty_list_is_an_empty_table_an_empty_array_and_no_line() {
        let table = output(Format::Table, &[]).list(COLUMNS, &[]).unwrap();
        assert!(table.contains("| ID | Name | Max Age |"), "{table}");
        assert_eq!(output(Format::Json, &[]).list(COLUMNS, &[]).unwrap(), "[]\n");
        assert_eq!(output(Format::Yaml, &[]).list(COLUMNS, &[]).unwrap(), "[]\n");
        assert_eq!(output(Format::Value, &[]).list(COLUMNS, &[]).unwrap(), "");
    }

    #[test]
    fn a_single_object_is_a_table_of_fields_with_unknown_ones_last() {
        let expected = "\
+-------------+--------------+
| Field       | Value        |
+-------------+--------------+
| id          | 1            |
| name        | a            |
| max_age     | 60           |
| environment | A='1', B='2' |
| more        | 1, 2         |
+-------------+--------------+
";
        let object = json!({"more": [1, 2], "links": [{}], "id": 1, "name": "a", "retry": {"max_age": 60}, "environment": {"A": 1, "B": "2"}});
        assert_eq!(output(Format::Table, &[]).object(COLUMNS, &object).unwrap(), expected);
    }

    #[test]
    fn values_are_for_shells() {
        assert_eq!(output(Format::Value, &[]).list(COLUMNS, &rows()[..1]).unwrap(), "1 thumb 60\n");
        assert_eq!(
            output(Format::Value, &["name", "Max Age"]).list(COLUMNS, &rows()[1..]).unwrap(),
            "naïve\\u{1b}[0m None\n"
        );
        assert_eq!(output(Format::Value, &["name", "id"]).object(COLUMNS, &rows()[0]).unwrap(), "thumb\n1\n");
    }

    #[test]
    fn json_and_yaml_hold_everything_unless_columns_are_asked_for() {
        let text = output(Format::Json, &[]).list(COLUMNS, &rows()).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Value>>(&text).unwrap(), rows());
        let text = output(Format::Yaml, &[]).object(COLUMNS, &rows()[0]).unwrap();
        assert_eq!(serde_yaml_ng::from_str::<Value>(&text).unwrap(), rows()[0]);
        let text = output(Format::Json, &["ID", "max_age"]).list(COLUMNS, &rows()[..1]).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!([{"id": 1, "max_age": 60}]));
        let text = output(Format::Yaml, &["name"]).object(COLUMNS, &rows()[0]).unwrap();
        assert_eq!(text, "name: thumb\n");
    }

    #[test]
    fn a_list_in_a_cell_stands_in_one_line_unless_its_texts_do_not() {
        assert_eq!(shown(&json!(["a", 1, true])), "a, 1, true");
        assert_eq!(shown(&json!(["  in f\n    g()\n", "  in g\n"])), "  in f\n    g()\n  in g");
        assert_eq!(shown(&json!([{"a": [1]}, {"b": null}])), "{\"a\":[1]}\n{\"b\":null}");
    }

    #[test]
    fn a_column_that_is_not_there_is_refused_with_those_that_are() {
        let error = output(Format::Table, &["nmae"]).list(COLUMNS, &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert_eq!(error.to_string(), "there is no column 'nmae'; there are: id, name, max_age, environment, links");
    }

    #[test]
    fn a_table_is_wrapped_to_the_width_that_was_asked_for() {
        let mut output = output(Format::Table, &[]);
        output.max_width = 30;
        let object = json!({"name": "a long name with words"});
        let text = output.object(&[Column::listed("name")], &object).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 30), "{text}");
    }
}

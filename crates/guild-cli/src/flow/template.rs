//! Compiles the templates of a flow once, and renders them with errors that name their place.
//!
//! The engine is minijinja with strict undefined values. A template that is one expression
//! (`{{ tasks.list.output }}`) keeps the type of its value; any other yields text. The
//! environment and the compiled templates are leaked on purpose: a process runs one flow, and
//! agents share its templates without a lifetime.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use minijinja::value::ValueKind;
use minijinja::{Environment, ErrorKind, Expression, UndefinedBehavior, Value};

use crate::flow::filters::{Called, called_names};
use crate::flow::problem::Place;

/// Characters of a template that a message quotes.
const QUOTE_CHARS: usize = 120;

/// Most numbers that `range` yields; beyond every limit on tasks, within memory.
const RANGE_MAX: i64 = 10_000_000;

/// Compiles templates.
#[derive(Clone, Copy)]
pub(crate) struct Engine(&'static Environment<'static>);

impl Engine {
    pub(crate) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_keep_trailing_newline(true);
        environment.set_recursion_limit(100);
        environment.add_function("range", range);
        Self(Box::leak(Box::new(environment)))
    }

    /// Compiles one template of a flow file.
    pub(crate) fn compile(self, source: &str, origin: Origin) -> Result<Template, String> {
        let quoted: &'static str = Box::leak(source.to_owned().into_boxed_str());
        let code = if !is_template(source) {
            Code::Literal(quoted)
        } else if let Some(expression) = self.single_expression(quoted) {
            Code::Expression(expression)
        } else {
            let text = self.0.template_from_str(quoted).map_err(|error| describe(&error))?;
            Code::Text(text)
        };
        self.check_names(quoted)?;
        Ok(Template(Arc::new(Compiled { source: quoted, origin, code })))
    }

    /// Wraps a value that needs no rendering.
    pub(crate) fn constant(value: &serde_json::Value, origin: Origin) -> Template {
        let source = Box::leak(value.to_string().into_boxed_str());
        let code = Code::Constant(Value::from_serialize(value));
        Template(Arc::new(Compiled { source, origin, code }))
    }

    /// Returns the expression of a template that is nothing but one.
    fn single_expression(self, source: &'static str) -> Option<Expression<'static, 'static>> {
        let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
        let inner = inner.strip_prefix('-').unwrap_or(inner);
        let inner = inner.strip_suffix('-').unwrap_or(inner);
        if ends_early(inner) {
            return None;
        }
        self.0.compile_expression(inner).ok()
    }

    /// Finds misspelt filters and tests, which the engine itself misses until it meets them.
    fn check_names(self, source: &str) -> Result<(), String> {
        let state = self.0.empty_state();
        for (what, name) in called_names(source) {
            let unknown = match what {
                Called::Filter => state.apply_filter(name, &[]).err(),
                Called::Test => state.perform_test(name, &[]).err(),
            };
            let kinds = [ErrorKind::UnknownFilter, ErrorKind::UnknownTest];
            if unknown.is_some_and(|error| kinds.contains(&error.kind())) {
                return Err(format!("unknown {what} `{name}`; Minijinja has none of this name"));
            }
        }
        Ok(())
    }

    /// Tells whether templates know a function of this name.
    pub(crate) fn has_function(self, name: &str) -> bool {
        self.0.globals().any(|(global, _)| global == name)
    }
}

/// Tells whether a text has anything to render.
pub(crate) fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// Tells whether an expression holds a `}}` that would end it, outside of texts and brackets, as
/// in `{{ a }}{{ b }}`. (The engine's expression reader panics on it.)
fn ends_early(expression: &str) -> bool {
    let bytes = expression.as_bytes();
    let (mut depth, mut at) = (0_i64, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'}' if depth == 0 && bytes.get(at + 1) == Some(&b'}') => return true,
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    false
}

fn range(lower: i64, upper: Option<i64>, step: Option<i64>) -> Result<Value, minijinja::Error> {
    let refuse = |text: String| Err(minijinja::Error::new(ErrorKind::InvalidOperation, text));
    let (from, to) = upper.map_or((0, lower), |upper| (lower, upper));
    let step = step.unwrap_or(1);
    if step <= 0 {
        return refuse("range needs a step of at least 1".to_owned());
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    if to.saturating_sub(from) / step as i64 > RANGE_MAX {
        return refuse(format!("range has more than {RANGE_MAX} numbers"));
    }
    Ok((from..to).step_by(step).collect())
}

/// Where a template stands.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) file: Arc<Path>,
    pub(crate) place: Place,
    /// Dotted path of its key, `tasks.count.command[2]`.
    pub(crate) key: Arc<str>,
}

/// One compiled template; cloning is cheap.
#[derive(Clone)]
pub(crate) struct Template(Arc<Compiled>);

struct Compiled {
    source: &'static str,
    origin: Origin,
    code: Code,
}

enum Code {
    Literal(&'static str),
    Constant(Value),
    Text(minijinja::Template<'static, 'static>),
    Expression(Expression<'static, 'static>),
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.0.source)
    }
}

/// A template that could not be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {key}: {message}, in `{source_text}`")]
pub(crate) struct TemplateError {
    file: String,
    line: usize,
    column: usize,
    key: String,
    pub(crate) message: String,
    source_text: String,
}

impl Template {
    /// Returns the template's text.
    pub(crate) fn source(&self) -> &str {
        self.0.source
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// Tells whether it is one expression (or constant), so that its value keeps its type.
    pub(crate) fn is_typed(&self) -> bool {
        matches!(self.0.code, Code::Expression(_) | Code::Constant(_))
    }

    /// Tells whether it renders to itself.
    pub(crate) fn is_literal(&self) -> bool {
        matches!(self.0.code, Code::Literal(_) | Code::Constant(_))
    }

    /// Renders to text.
    pub(crate) fn render(&self, context: &Value) -> Result<String, TemplateError> {
        match &self.0.code {
            Code::Literal(text) => Ok((*text).to_owned()),
            Code::Text(template) => template.render(context).map_err(|error| self.wrong(&error)),
            Code::Constant(_) | Code::Expression(_) => Ok(self.evaluate(context)?.to_string()),
        }
    }

    /// Renders to a value: that of the expression if the template is one, otherwise text.
    pub(crate) fn evaluate(&self, context: &Value) -> Result<Value, TemplateError> {
        match &self.0.code {
            Code::Constant(value) => Ok(value.clone()),
            Code::Literal(_) | Code::Text(_) => Ok(Value::from(self.render(context)?)),
            Code::Expression(expression) => {
                let value = expression.eval(context).map_err(|error| self.wrong(&error))?;
                match value.kind() {
                    ValueKind::Undefined => Err(self.error("the value is undefined")),
                    ValueKind::Invalid => Err(self.error(value.to_string())),
                    _ => Ok(value),
                }
            }
        }
    }

    /// Returns the variables it uses, with their attributes: `tasks.list.output`.
    pub(crate) fn variables(&self) -> BTreeSet<String> {
        match &self.0.code {
            Code::Literal(_) | Code::Constant(_) => BTreeSet::new(),
            Code::Text(template) => template.undeclared_variables(true).into_iter().collect(),
            Code::Expression(code) => code.undeclared_variables(true).into_iter().collect(),
        }
    }

    /// Returns an error that names this template.
    pub(crate) fn error(&self, message: impl Into<String>) -> TemplateError {
        let Origin { file, place, key } = &self.0.origin;
        TemplateError {
            file: file.display().to_string(),
            line: place.line,
            column: place.column,
            key: key.to_string(),
            message: message.into(),
            source_text: quote(self.0.source),
        }
    }

    fn wrong(&self, error: &minijinja::Error) -> TemplateError {
        self.error(describe(error))
    }
}

fn describe(error: &minijinja::Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let part = error
        .template_source()
        .and_then(|source| source.get(error.range()?))
        .map(|part| format!(" at `{}`", quote(part)))
        .unwrap_or_default();
    format!("{}{detail}{part}", error.kind())
}

fn quote(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(QUOTE_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;

    fn compile(source: &str) -> Result<Template, String> {
        let place = Place { line: 7, column: 3 };
        let origin = Origin { file: Path::new("f.toml").into(), place, key: "tasks.a.text".into() };
        Engine::new().compile(source, origin)
    }

    #[test]
    fn single_expression_keeps_its_type_and_anything_else_is_text() {
        let context = context! { item => 3, list => [1, 2] };
        let value = |source: &str| compile(source).unwrap().evaluate(&context).unwrap();

        assert_eq!(value("{{ item + 1 }}"), Value::from(4));
        assert_eq!(value(" {{- list -}} "), Value::from(vec![1, 2]));
        assert_eq!(value("{{ item }}{{ item }}"), Value::from("33"));
        assert_eq!(value("n={{ item }}"), Value::from("n=3"));
        assert_eq!(value("plain }}"), Value::from("plain }}"));
        assert_eq!(value("{{ '}} {{' }}"), Value::from("}} {{"));
        assert_eq!(value("{{ '\\' }} {{' }}"), Value::from("' }} {{"));
        assert_eq!(value("{{ {'a': {'b': item}}.a.b }}"), Value::from(3));
        assert_eq!(value("{{ item }} {# }} #} {{ item }}"), Value::from("3  3"));
    }

    #[test]
    fn undefined_values_are_errors_that_name_the_place() {
        let context = context! { item => context! { a => 1 } };
        for source in ["{{ item.b }}", "x{{ item.b }}", "{{ item.b.c }}", "{{ nothing }}"] {
            let error = compile(source).unwrap().render(&context).unwrap_err().to_string();
            assert!(error.starts_with("f.toml:7:3: tasks.a.text: "), "{error}");
            assert!(error.contains("undefined") && error.contains(source), "{error}");
        }
    }

    #[test]
    fn syntax_errors_are_found_when_compiled() {
        for source in ["{{ item", "{% for x in y %}", "{{ item | nosuchfilter }}{{ 1 +", "{{ }}"] {
            assert!(compile(source).is_err(), "{source}");
        }
    }

    #[test]
    fn misspelt_filters_and_tests_are_found_when_compiled() {
        let message = |source: &str| compile(source).unwrap_err();

        assert!(message("{{ x | uper }}").contains("unknown filter `uper`"));
        assert!(message("a{% if x is defned %}b{% endif %}").contains("unknown test `defned`"));
        let right =
            "{{ x | default('a') | upper }}{% if x is not defined and x is in [1] %}b{% endif %}";
        assert!(compile(right).is_ok());
    }

    #[test]
    fn variables_are_found_with_their_attributes() {
        let template = compile("{{ tasks.a.output.x }} {{ vars.b }} {{ range(3) }}").unwrap();
        let found: Vec<_> = template.variables().into_iter().collect();

        assert_eq!(found, ["range", "tasks.a.output.x", "vars.b"]);
    }

    #[test]
    fn range_yields_a_million_numbers_and_refuses_absurd_ones() {
        let eval = |source: &str| compile(source).unwrap().evaluate(&Value::UNDEFINED);

        assert_eq!(eval("{{ range(1000000) }}").unwrap().len(), Some(1_000_000));
        assert_eq!(eval("{{ range(1, 6, 2) | list }}").unwrap(), Value::from(vec![1, 3, 5]));
        assert!(eval("{{ range(99999999999999) }}").is_err());
        assert!(eval("{{ range(0, 5, 0) }}").is_err());
        assert_eq!(eval("{{ range(5, 0) | list }}").unwrap().len(), Some(0));
    }
}

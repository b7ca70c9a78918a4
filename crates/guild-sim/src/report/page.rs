//! Puts a page together: its data as JSON, its style and its script in one text.

use std::time::Duration;

use guild_core::time::micros;
use serde::Serialize;

use super::chronicle::Chronicle;
use super::data::data;

const STYLE: &str = include_str!("page/style.css");

/// The parts of the script, in the order in which they need each other.
const SCRIPTS: [&str; 5] = [
    include_str!("page/base.js"),
    include_str!("page/time.js"),
    include_str!("page/gantt.js"),
    include_str!("page/sweep.js"),
    include_str!("page/tables.js"),
];

const BODY: &str = include_str!("page/body.html");

/// What came of one combination of parameters of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepPoint {
    /// What its curve is named by.
    pub series: String,
    /// Agents of all roles.
    pub agents: u64,
    /// The makespan with each seed.
    pub makespans: Vec<Duration>,
    /// What no schedule can be below, the mean over the seeds.
    pub bound: Duration,
    /// Share of the agents' time that was work, the mean over the seeds.
    pub busy: f64,
    /// Tasks that failed, over all seeds.
    pub failed: u64,
}

/// A page to be written.
#[derive(Debug, Default)]
pub struct Page {
    title: String,
    subtitle: String,
    facts: Vec<(String, String)>,
    chronicle: Chronicle,
    sweep: Vec<SweepPoint>,
    inner_roles: Vec<String>,
}

#[derive(Serialize)]
struct Whole<'a> {
    facts: &'a [(String, String)],
    sweep: Vec<PointData<'a>>,
    run: Option<super::data::Data<'a>>,
}

#[derive(Serialize)]
struct PointData<'a> {
    series: &'a str,
    agents: u64,
    makespans: Vec<u64>,
    bound: u64,
    busy: f64,
    failed: u64,
}

impl Page {
    /// Returns a page of this title that shows a run.
    pub fn new(title: impl Into<String>, chronicle: Chronicle) -> Self {
        Self { title: title.into(), chronicle, ..Self::default() }
    }

    /// Says below the title which run this is.
    #[must_use]
    pub fn subtitle(mut self, subtitle: impl Into<String>) -> Self {
        self.subtitle = subtitle.into();
        self
    }

    /// Adds a line about where the run comes from.
    #[must_use]
    pub fn fact(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts.push((name.into(), value.into()));
        self
    }

    /// Says that the agents of this role serve the flow itself: they are shown and not counted.
    #[must_use]
    pub fn inner_role(mut self, role: impl Into<String>) -> Self {
        self.inner_roles.push(role.into());
        self
    }

    /// Shows a sweep besides.
    #[must_use]
    pub fn sweep(mut self, points: Vec<SweepPoint>) -> Self {
        self.sweep = points;
        self
    }

    /// Returns the page as one HTML text that loads nothing.
    ///
    /// # Panics
    /// Never: everything in it has a JSON form.
    pub fn to_html(&self) -> String {
        let whole = Whole {
            facts: &self.facts,
            sweep: self.sweep.iter().map(PointData::from).collect(),
            run: (!self.chronicle.is_empty()).then(|| data(&self.chronicle, &self.inner_roles)),
        };
        let json = serde_json::to_string(&whole).expect("texts and numbers have a JSON form");
        let title = escape(&self.title);
        let subtitle = escape(&self.subtitle);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta name=\"generator\" content=\"guild {}\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
            env!("CARGO_PKG_VERSION")
        );
        page.push_str(&format!(
            "<header><h1>{title}</h1><p class=\"sub\">{subtitle}</p></header>\n{BODY}"
        ));
        page.push_str("<script type=\"application/json\" id=\"data\">");
        page.push_str(&embed(&json));
        page.push_str("</script>\n<script>\n\"use strict\";\n(() => {\n");
        SCRIPTS.iter().for_each(|script| page.push_str(script));
        page.push_str("})();\n</script>\n</body>\n</html>\n");
        page
    }
}

impl<'a> From<&'a SweepPoint> for PointData<'a> {
    fn from(point: &'a SweepPoint) -> Self {
        Self {
            series: &point.series,
            agents: point.agents,
            makespans: point.makespans.iter().map(|makespan| micros(*makespan)).collect(),
            bound: micros(point.bound),
            busy: point.busy,
            failed: point.failed,
        }
    }
}

/// Makes JSON safe inside of a script element: a text in it could say `</script>` or `<!--`.
fn embed(json: &str) -> String {
    json.replace('<', "\\u003c")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// The log of this many tasks in chains of ten, each a second long; every hundredth crashes
    /// its agent once.
    fn log(tasks: u64, agents: u64) -> Chronicle {
        let mut text = String::from(
            "{\"seq\":1,\"at_us\":0,\"kind\":\"guild_started\",\"clock\":\"virtual\"}\n",
        );
        let mut line = |at: u64, rest: &str| writeln!(text, "{{\"at_us\":{at},{rest}}}").unwrap();
        for agent in 0..agents {
            line(0, &format!("\"kind\":\"agent_started\",\"agent\":\"worker-{agent}\""));
        }
        for n in 0..tasks {
            let after =
                if n % 10 == 0 { String::new() } else { format!("\"filterContams_{:08}\"", n - 1) };
            line(
                0,
                &format!(
                    "\"kind\":\"task_added\",\"run\":\"r\",\"task\":\"filterContams_{n:08}\",\"after\":[{after}]"
                ),
            );
        }
        for n in 0..tasks {
            let at = n * 1_000_003 / agents;
            let who = format!(
                "\"run\":\"r\",\"task\":\"filterContams_{n:08}\",\"attempt\":1,\"agent\":\"worker-{}\"",
                n % agents
            );
            line(
                at,
                &format!("\"kind\":\"task_ready\",\"run\":\"r\",\"task\":\"filterContams_{n:08}\""),
            );
            line(at, &format!("\"kind\":\"task_assigned\",{who}"));
            if n % 100 == 0 {
                line(
                    at + 7,
                    &format!(
                        "\"kind\":\"task_failed\",{who},\"cause\":\"panic\",\"message\":\"</script>\""
                    ),
                );
                line(
                    at + 7,
                    &format!(
                        "\"kind\":\"agent_crashed\",\"agent\":\"worker-{}\",\"cause\":\"panic\"",
                        n % agents
                    ),
                );
                line(
                    at + 7,
                    &format!(
                        "\"kind\":\"incident_opened\",\"incident\":{n},\"message\":\"<!-- {n}\""
                    ),
                );
                line(
                    at + 9,
                    &format!("\"kind\":\"agent_restarted\",\"agent\":\"worker-{}\"", n % agents),
                );
                line(at + 9, &format!("\"kind\":\"task_assigned\",{who}"));
            }
            line(at + 1_000_000, &format!("\"kind\":\"task_completed\",{who}"));
        }
        let mut chronicle = Chronicle::default();
        text.lines().for_each(|line| chronicle.line(line).unwrap());
        chronicle
    }

    fn embedded(html: &str) -> serde_json::Value {
        let from = html.find("id=\"data\">").unwrap() + "id=\"data\">".len();
        let to = from + html[from..].find("</script>").unwrap();
        serde_json::from_str(&html[from..to]).unwrap()
    }

    #[test]
    fn ten_thousand_tasks_fit_in_a_small_page() {
        let html = Page::new("many", log(10_000, 64)).to_html();

        assert!(html.len() < 3_000_000, "{} bytes", html.len());
        let run = &embedded(&html)["run"];
        assert_eq!(run["tasks"]["name"].as_array().unwrap().len(), 10_000);
        assert_eq!(run["attempts"]["start"].as_array().unwrap().len(), 10_100);
        assert_eq!(
            (&run["figures"]["crashes"], &run["figures"]["incidents"]),
            (&100.into(), &100.into())
        );
        assert_eq!(run["downs"].as_array().unwrap().len(), 100);
        assert_eq!(run["heat"], serde_json::Value::Null);
    }

    #[test]
    fn more_attempts_than_a_page_shows_are_summed_up() {
        let html = Page::new("too many", log(45_000, 1_000)).to_html();

        let run = &embedded(&html)["run"];
        assert!(html.len() < 3_000_000, "{} bytes", html.len());
        assert_eq!(run["tasks"]["name"].as_array().unwrap().len(), 0);
        assert_eq!(run["heat"]["cells"].as_str().unwrap().len(), 240 * 800);
        assert_eq!(run["critical"].as_array().unwrap().len(), 10, "the path is still there");
    }

    #[test]
    fn page_loads_nothing_and_no_text_ends_its_script() {
        let html = Page::new("<b>\"&", log(100, 2))
            .subtitle("<i>")
            .fact("file", "</script><script>alert(1)</script>")
            .to_html();

        assert_eq!(html.matches("</script>").count(), 2, "the data and the script");
        assert!(!html.contains("<!--") && !html.contains("<i>") && !html.contains("<b>\""));
        assert!(html.contains("<title>&lt;b&gt;&quot;&amp;</title>"));
        for link in ["src=", "href=", "url(", "@import", "fetch(", "import(", "XMLHttp", "https:"] {
            assert!(!html.contains(link), "{link}");
        }
        // The name of the language of drawings is the only address in it, and nothing loads it.
        assert_eq!(
            html.matches("http:").count(),
            html.matches("http://www.w3.org/2000/svg").count()
        );
        assert_eq!(embedded(&html)["facts"][0][1], "</script><script>alert(1)</script>");
    }

    #[test]
    fn page_without_a_run_or_a_sweep_says_nothing_wrong() {
        let value = embedded(&Page::default().to_html());

        assert_eq!(
            (&value["run"], value["sweep"].as_array().unwrap().len()),
            (&serde_json::Value::Null, 0)
        );
    }
}

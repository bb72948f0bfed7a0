//! The screen.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Row, Sparkline, Table},
};

use super::model::{Method, Model};
use crate::{
    client::{lifecycle::time, output::Escaped},
    pb::{self, Reason},
};

/// A part of a limit that is worth a look.
const FULL: f64 = 0.8;

pub(super) fn draw(model: &Model, frame: &mut Frame<'_>) {
    let [head, load, limits, buckets, downs] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(9),
        Constraint::Length(5),
        Constraint::Fill(3),
        Constraint::Fill(2),
    ])
    .areas(frame.area());
    draw_head(model, frame, head);
    let [picture, methods, errors] =
        Layout::horizontal([Constraint::Fill(2), Constraint::Fill(3), Constraint::Fill(2)]).areas(load);
    draw_rates(model, frame, picture);
    draw_methods(model, frame, methods);
    draw_errors(model, frame, errors);
    draw_limits(model, frame, limits);
    draw_buckets(model, frame, buckets);
    draw_downs(model, frame, downs);
}

fn block(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title)
}

fn draw_head(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let version = model.now.label("pail_build_info", "version").unwrap_or("?").to_owned();
    let number = |name| model.now.get(name).unwrap_or_default();
    let mut line = vec![Span::from(format!("pail {version} at {}", model.server)).bold()];
    line.push(match (&model.complaint, number("pail_draining") > 0.0) {
        (Some(words), _) => Span::from(format!("  {words}")).red(),
        (None, true) => Span::from("  it drains").yellow(),
        (None, false) => Span::from(format!(
            "  {} connections, {} watches, the slowest {} events behind{}, {} monitors, {}B resident",
            short(number("pail_connections")),
            short(number("pail_watchers")),
            short(number("pail_watch_lag_events")),
            model.slowest_reader.as_ref().map(|peer| format!(" at {}", Escaped(peer))).unwrap_or_default(),
            short(number("pail_monitors")),
            short(number("process_resident_memory_bytes")),
        )),
    });
    frame.render_widget(Line::from(line), area);
}

fn draw_rates(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let block = block(format!("calls a second: {}", model.rates.back().copied().unwrap_or_default()));
    // As many as there is room for.
    let rates = model.rates.iter().skip(model.rates.len().saturating_sub(area.width.into())).copied();
    frame.render_widget(Sparkline::default().block(block).data(rates.collect::<Vec<_>>()).fg(Color::Blue), area);
}

fn draw_methods(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let row = |Method { name, rate, in_flight, p50, p99 }: Method| {
        Row::new([name, short(rate), seconds(p50), seconds(p99), short(in_flight)])
    };
    let widths = [12, 10, 10, 10, 10].map(Constraint::Length);
    let table = Table::new(model.methods().into_iter().map(row), widths)
        .header(Row::new(["method", "a second", "p50", "p99", "under way"]).bold());
    frame.render_widget(table.block(block(String::new())), area);
}

fn draw_errors(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let lines = model.errors().into_iter().map(|(reason, rate)| Line::from(format!("{reason:<22} {}", short(rate))));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(block("errors a second".to_owned())), area);
}

fn draw_limits(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let span = |(name, there, max): (&str, f64, f64)| {
        let name = name.trim_start_matches("pail_").trim_start_matches("process_").replace('_', " ");
        let text = format!("{name} {} of {} ", short(there), short(max));
        let style = if there >= FULL * max { Style::new().red().bold() } else { Style::new() };
        Span::styled(format!("{text:<40}"), style)
    };
    let spans: Vec<Span<'_>> = model.now.limits().into_iter().map(span).collect();
    let columns = usize::from(area.width / 40).max(1);
    let lines: Vec<Line<'_>> = spans.chunks(columns).map(|line| Line::from(line.to_vec())).collect();
    frame.render_widget(Paragraph::new(lines).block(block("limits".to_owned())), area);
}

fn draw_buckets(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let row = |bucket: &pb::Bucket| {
        Row::new([
            Escaped(&bucket.name).to_string(),
            bucket.id.to_string(),
            bucket.entry_count.to_string(),
            bucket.byte_size.to_string(),
            bucket.version.to_string(),
            bucket.link_count.to_string(),
            time(bucket.expire_time),
        ])
    };
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(17),
        Constraint::Length(9),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(6),
        Constraint::Length(30),
    ];
    let title = format!(
        "buckets {:?}: {} in all, page {} (n, p)",
        model.prefix,
        short(model.now.get("pail_buckets").unwrap_or_default()),
        model.page()
    );
    let table = Table::new(model.buckets.iter().map(row), widths)
        .header(Row::new(["name", "id", "entries", "bytes", "version", "links", "expires"]).bold());
    frame.render_widget(table.block(block(title)), area);
}

fn draw_downs(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let row = |down: &pb::DownEvent| {
        let reason = Reason::try_from(down.reason).unwrap_or_default().as_str_name();
        Row::new([
            time(down.time),
            Escaped(&down.bucket).to_string(),
            reason.trim_start_matches("REASON_").to_owned(),
            Escaped(&down.detail).to_string(),
            Escaped(&down.initiator).to_string(),
        ])
    };
    let widths =
        [Constraint::Length(30), Constraint::Fill(2), Constraint::Length(13), Constraint::Fill(2), Constraint::Fill(1)];
    let table = Table::new(model.downs.iter().map(row), widths)
        .header(Row::new(["when", "name", "reason", "detail", "by"]).bold());
    frame.render_widget(table.block(block(format!("downs: {}", model.feed))), area);
}

/// Three digits and a unit.
fn short(number: f64) -> String {
    let units = ["", "k", "M", "G", "T"];
    let mut unit = 0;
    let mut left = number;
    while left.abs() >= 999.5 && unit + 1 < units.len() {
        left /= 1_000.0;
        unit += 1;
    }
    let digits = usize::from(left.abs() < 99.5);
    let text = format!("{left:.digits$}");
    format!("{}{}", text.trim_end_matches(".0"), units[unit])
}

fn seconds(bound: Option<f64>) -> String {
    match bound {
        None => String::new(),
        Some(bound) if bound.is_infinite() => "more".to_owned(),
        Some(bound) => format!("{:?}", std::time::Duration::from_secs_f64(bound)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::client::metrics::Metrics;

    #[test]
    fn the_screen_shows_what_is_known_and_clients_text_drives_no_terminal() {
        let metrics = |calls| {
            let labels = "grpc_service=\"pail.v1.BucketService\",grpc_method=\"Get\"";
            Metrics::parse(&format!(
                "pail_build_info{{version=\"9.9\"}} 1\npail_buckets 9\npail_buckets_max 10\npail_connections 3\n\
                 grpc_server_handled_total{{{labels},grpc_code=\"OK\"}} {calls}\n\
                 grpc_server_handling_seconds_bucket{{le=\"0.001\",{labels}}} {calls}\n\
                 pail_errors_total{{reason=\"OVERLOADED\"}} {calls}\n"
            ))
        };
        let mut model = Model::new("h:4040".to_owned(), String::new());
        let begin = Instant::now();
        model.measured(Ok(metrics(0)), begin);
        model.measured(Ok(metrics(2_000)), begin + Duration::from_secs(1));
        model.slowest_reader = Some("10.0.0.7:5123".to_owned());
        let name = "evil\u{1b}[2J".to_owned();
        model.listed(pb::ListResponse {
            buckets: vec![pb::Bucket {
                name: name.clone(),
                id: 7,
                entry_count: 3,
                link_count: 5,
                ..Default::default()
            }],
            ..Default::default()
        });
        model.died(vec![pb::DownEvent {
            bucket: name,
            reason: Reason::Killed.into(),
            detail: "enough".to_owned(),
            initiator: "token:ops".to_owned(),
            ..Default::default()
        }]);
        let mut terminal = Terminal::new(TestBackend::new(160, 40)).unwrap();
        terminal.draw(|frame| draw(&model, frame)).unwrap();
        let screen = terminal.backend().to_string();
        for text in [
            "pail 9.9 at h:4040",
            "3 connections",
            "the slowest 0 events behind at 10.0.0.7:5123",
            "calls a second: 2000",
            "Get          2k         1ms        1ms",
            "OVERLOADED",
            "buckets 9 of 10",
            "KILLED",
            "enough",
            "token:ops",
            "version      links",
            "0            5",
        ] {
            assert!(screen.contains(text), "{text:?} is missing:\n{screen}");
        }
        assert!(screen.contains("evil\\u{1b}[2J") || screen.contains("evil\\x1b[2J"), "{screen}");
        assert!(!screen.contains('\u{1b}'));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 7.0, 1.25, 999.0, 999.7, 12_345.0, 10e6].map(short),
            ["0", "7", "1.2", "999", "1k", "12.3k", "10M"]
        );
        assert_eq!([Some(0.0005), Some(f64::INFINITY), None].map(seconds), ["500µs", "more", ""]);
    }
}

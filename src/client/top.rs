//! `pail top`: a server as it goes, in a terminal.

mod model;
mod view;

use std::{
    io,
    panic::AssertUnwindSafe,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use crossterm::{
    cursor,
    event::{self, Event, KeyCode, KeyEvent, KeyModifiers},
    execute, terminal,
};
use futures_util::FutureExt as _;
use http::Uri;
use ratatui::{Terminal, backend::CrosstermBackend};
use tokio::{
    sync::mpsc::{self, Sender},
    time::{MissedTickBehavior, interval, sleep},
};
use tonic::Status;

use self::model::Model;
use super::{
    error::Error,
    metrics::{Metrics, slowest_reader},
    options::{Client, Options, duration},
    resume::{Next, Place},
};
use crate::pb::{self, EventKind, watch_response::Response};

/// Buckets that are asked for at a time.
const PAGE: i32 = 200;

/// A watch that would not get better is tried again after this long, for an operator who looks may mend it.
const AGAIN: Duration = Duration::from_secs(2);

/// Shows what a server does, as it goes: calls, latencies and errors, what is full, what lives, and what dies and why
///
/// It asks the server, as every client does, and its port for operators, 'pail serve --admin'.
/// Keys: n and p turn the pages of buckets, q ends it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  pail serve --admin 127.0.0.1:4041 &
  pail top")]
pub struct Top {
    /// The server's port for operators, as http://HOST:PORT
    #[arg(long, value_name = "URL", env = "PAIL_ADMIN_URL", default_value = "http://127.0.0.1:4041")]
    admin: Uri,

    /// Only buckets whose names begin with this
    #[arg(default_value = "")]
    prefix: String,

    /// How often it looks
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    every: Duration,
}

/// What there is to show.
enum News {
    Key(KeyEvent),
    Resized,
    Downs(Vec<pb::DownEvent>),
    /// What the feed of deaths has come to.
    Feed(String),
}

impl Top {
    pub(super) async fn run(self, options: &Options) -> Result<(), Error> {
        let mut client = options.connect().await?;
        // What is not there is said before the screen is taken.
        let first = Metrics::ask(&self.admin, options.timeout).await.map_err(Error::Unreachable)?;
        let mut model = Model::new(options.addr.to_string(), self.prefix.clone());
        model.measured(Ok(first), Instant::now());

        let (to, mut news) = mpsc::channel(64);
        keys(to.clone());
        let feed = tokio::spawn(feed(client.clone(), self.prefix.clone(), to));
        let screen = Screen::take()?;
        let shown = AssertUnwindSafe(self.show(&mut client, options, &mut model, &mut news)).catch_unwind().await;
        drop(screen);
        feed.abort();
        shown.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    async fn show(
        &self,
        client: &mut Client,
        options: &Options,
        model: &mut Model,
        news: &mut mpsc::Receiver<News>,
    ) -> Result<(), Error> {
        let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            terminal.draw(|frame| view::draw(model, frame))?;
            tokio::select! {
                _ = ticks.tick() => {
                    model.measured(Metrics::ask(&self.admin, options.timeout).await, Instant::now());
                    model.slowest_reader = slowest_reader(&self.admin, options.timeout).await.unwrap_or_default();
                    self.list(client, options, model).await;
                }
                some = news.recv() => match some {
                    Some(News::Key(key)) => match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                        KeyCode::Char('n') | KeyCode::PageDown => { model.next_page(); self.list(client, options, model).await }
                        KeyCode::Char('p') | KeyCode::PageUp => { model.page_before(); self.list(client, options, model).await }
                        _ => {}
                    },
                    Some(News::Resized) => {}
                    Some(News::Downs(downs)) => model.died(downs),
                    Some(News::Feed(state)) => model.feed = state,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn list(&self, client: &mut Client, options: &Options, model: &mut Model) {
        let request = pb::ListRequest { prefix: self.prefix.clone(), page_size: PAGE, page_token: model.token() };
        match client.list(options.request(request)).await {
            Ok(page) => model.listed(page.into_inner()),
            Err(status) => model.complaint = Some(Error::from(status).words(options)),
        }
    }
}

/// Reads keys on a thread of its own, which ends with the program.
fn keys(to: Sender<News>) {
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            let news = match event {
                Event::Key(key) if key.is_press() => News::Key(key),
                Event::Resize(..) => News::Resized,
                _ => continue,
            };
            if to.blocking_send(news).is_err() {
                break;
            }
        }
    });
}

/// Watches what dies, and goes on where it was, until nobody listens.
async fn feed(mut client: Client, prefix: String, to: Sender<News>) {
    let kinds = vec![EventKind::Down.into()];
    let asked = pb::WatchRequest { prefix: Some(prefix), kinds, skip_initial: true, ..Default::default() };
    let mut place = Place::new(asked, None);
    while let Some(request) = place.request() {
        let Err(status) = stream(&mut client, request, &mut place, &to).await else { return };
        let why = status.message().to_owned();
        let wait = match place.next(&status.into()) {
            Next::Move | Next::Restart => Duration::ZERO,
            Next::Resume(wait) => wait,
            Next::Fail => AGAIN,
        };
        if to.send(News::Feed(why)).await.is_err() {
            return;
        }
        sleep(wait).await;
    }
}

/// One stream of it, to its end; `Ok` where nobody listens any more.
async fn stream(
    client: &mut Client,
    request: pb::WatchRequest,
    place: &mut Place,
    to: &Sender<News>,
) -> Result<(), Status> {
    let mut stream = client.watch(request).await?.into_inner();
    while let Some(pb::WatchResponse { revision, response }) = stream.message().await? {
        let news = match response {
            Some(Response::Started(started)) => {
                place.started(started.registry_id, started.monitors);
                News::Feed("live".to_owned())
            }
            Some(Response::Events(pb::WatchEvents { events })) => {
                let down = |event: pb::Event| match event.event {
                    Some(pb::event::Event::Down(down)) => Some(down),
                    _ => None,
                };
                News::Downs(events.into_iter().filter_map(down).collect())
            }
            _ => {
                place.reached(revision);
                continue;
            }
        };
        if to.send(news).await.is_err() {
            return Ok(());
        }
        place.reached(revision);
    }
    Err(Status::unavailable("the watch has ended"))
}

/// The whole screen, given back on every way out.
struct Screen;

impl Screen {
    fn take() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let screen = Self;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where there is no terminal any more there is nothing to give back.
        execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show).ok();
        terminal::disable_raw_mode().ok();
    }
}

//! The shell on a terminal: a prompt, a history, hints from it, and completion of commands and bucket names.

use std::{
    borrow::Cow,
    env, fs,
    io::{self, Write},
    path::PathBuf,
};

use reedline::{
    ColumnarMenu, Completer, CompletionResult, DefaultHinter, Emacs, FileBackedHistory, KeyCode, KeyModifiers,
    MenuBuilder as _, Prompt, PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal, Span,
    Suggestion, default_emacs_keybindings,
};
use tokio::{runtime::Handle, task::block_in_place, time::timeout};

use super::{
    Next, Session,
    grammar::{COMMANDS, Request, usage_hint},
};
use crate::{
    client::{
        error::{EXIT_NO_ANSWER, Error},
        options::Client,
        output::is_hostile,
        words::quoted,
    },
    limits::{SHELL_COMPLETION_TIMEOUT, SHELL_COMPLETIONS_MAX, SHELL_HISTORY_LINES_MAX},
    pb::ListRequest,
};

const MENU: &str = "completions";

/// Talks until Ctrl-D or QUIT. A lost connection is told and the prompt comes back: the channel connects anew by itself.
pub(super) async fn talk(mut session: Session<'_>, out: &mut dyn Write) -> Result<(), Error> {
    let mut editor = editor(session.client.clone());
    writeln!(out, "pail at {}; HELP lists the commands, Ctrl-D leaves", session.options.addr)?;
    loop {
        out.flush()?;
        // The editor is synchronous and holds the thread until Enter; the connection lives on another.
        let prompt = PailPrompt { in_transaction: session.pending.is_some() };
        let line = match block_in_place(|| editor.read_line(&prompt)).map_err(io::Error::other)? {
            Signal::Success(line) => line,
            Signal::CtrlD => return Ok(()),
            _ => {
                session.pending = None; // Ctrl-C has cleared the line, and with it the transaction
                continue;
            }
        };
        match session.answer(&line, out).await {
            Ok(Next::Line) if !prompt.in_transaction && Request::parse(&line).is_err() => {
                writeln!(out, "({})", usage_hint(&line))?;
            }
            Ok(Next::Line) => {}
            Ok(Next::End) => return Ok(()),
            Err(error) if error.exit_code() == EXIT_NO_ANSWER => writeln!(out, "{}", error.words(session.options))?,
            Err(error) => return Err(error),
        }
    }
}

fn editor(client: Client) -> Reedline {
    let mut keys = default_emacs_keybindings();
    let complete = vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext];
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, ReedlineEvent::UntilFound(complete));
    let editor = Reedline::create()
        .with_ansi_colors(env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        .with_completer(Box::new(Names(client)))
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_hinter(Box::new(DefaultHinter::default()))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(ColumnarMenu::default().with_name(MENU))))
        .with_partial_completions(true)
        .with_quick_completions(true);
    // Without a place for its history the shell is a shell still.
    match history() {
        Some(history) => editor.with_history(Box::new(history)),
        None => editor,
    }
}

/// The lines of earlier sessions, in a file that only its owner can read: values may be secrets.
fn history() -> Option<FileBackedHistory> {
    let path = history_path()?;
    fs::create_dir_all(path.parent()?).ok()?;
    let mut file = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    file.append(true).create(true).open(&path).ok()?;
    FileBackedHistory::with_file(SHELL_HISTORY_LINES_MAX, path).ok()
}

/// Where the XDG specification puts what a program remembers; relative paths are to be ignored.
fn history_path() -> Option<PathBuf> {
    let absolute = |variable| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("pail").join("history"))
}

/// Completes the first word with commands, and the second with the names of buckets.
struct Names(Client);

impl Completer for Names {
    fn complete(&mut self, line: &str, position: usize) -> CompletionResult {
        let typed = &line[..position];
        let start = typed.rfind(|c: char| c.is_ascii_whitespace()).map_or(0, |blank| blank + 1);
        let (before, word) = typed.split_at(start);
        let candidates = match before.split_ascii_whitespace().collect::<Vec<_>>()[..] {
            [] => verbs(word),
            [verb] if takes_bucket(verb) => self.buckets(word.trim_start_matches(['"', '\''])),
            _ => Vec::new(),
        };
        let suggest = |value| Suggestion {
            value,
            span: Span::new(start, position),
            append_whitespace: true,
            ..Suggestion::default()
        };
        CompletionResult::fresh(candidates.into_iter().map(suggest).collect::<Vec<_>>())
    }
}

impl Names {
    /// The first names with this prefix. Whatever goes wrong, there are none: a prompt is no place for errors.
    fn buckets(&mut self, prefix: &str) -> Vec<String> {
        let page_size = i32::try_from(SHELL_COMPLETIONS_MAX).unwrap_or(i32::MAX);
        let request = ListRequest { prefix: prefix.to_owned(), page_size, ..ListRequest::default() };
        let page = Handle::current().block_on(timeout(SHELL_COMPLETION_TIMEOUT, self.0.list(request)));
        let Ok(Ok(page)) = page else { return Vec::new() };
        let names = page.into_inner().buckets.into_iter().map(|bucket| bucket.name);
        names.filter(|name| !name.contains(is_hostile)).take(SHELL_COMPLETIONS_MAX).map(|name| quoted(&name)).collect()
    }
}

/// The commands that begin so, in the case that they are typed in.
fn verbs(word: &str) -> Vec<String> {
    let lower = word.chars().next().is_some_and(|c| c.is_ascii_lowercase());
    let verbs = COMMANDS.iter().map(|command| command.verb);
    let verbs = verbs.filter(|verb| verb.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)));
    verbs.map(|verb| if lower { verb.to_ascii_lowercase() } else { verb.to_owned() }).collect()
}

fn takes_bucket(verb: &str) -> bool {
    COMMANDS.iter().any(|command| command.takes_bucket && command.verb.eq_ignore_ascii_case(verb))
}

struct PailPrompt {
    /// The lines of a transaction are coming.
    in_transaction: bool,
}

impl Prompt for PailPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        if self.in_transaction { " txn> ".into() } else { "pail> ".into() }
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        format!("(search: {}) ", search.term).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake;

    #[tokio::test(flavor = "multi_thread")]
    async fn tab_completes_commands_then_buckets() {
        let options = fake::serve().await;
        let mut client = options.connect().await.unwrap();
        for bucket in ["shopping", "shop list", "other"] {
            let bucket = bucket.to_owned();
            client.create(crate::pb::CreateRequest { bucket, ..Default::default() }).await.unwrap();
        }
        let mut names = Names(client);
        let mut complete = |line: &str| {
            let result = block_in_place(|| names.complete(line, line.len()));
            result.suggestions().iter().map(|it| it.value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(complete("l"), ["lookup", "list", "link"]);
        assert_eq!(complete("LO"), ["LOOKUP"]);
        assert_eq!(complete("GET sho"), ["\"shop list\"", "shopping"]);
        assert_eq!(complete("CREATE sho"), [""; 0]);
        assert_eq!(complete("GET shopping m"), [""; 0]);
    }
}

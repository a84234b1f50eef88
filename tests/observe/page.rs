//! The page about operating, and the commands on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::sample;

/// The page.
pub(crate) const PAGE: &str = "docs/operate.md";

/// Its text.
pub(crate) fn text() -> Result<String, String> {
    read(PAGE)
}

/// The text of a page.
pub(crate) fn read(page: &str) -> Result<String, String> {
    fs::read_to_string(sample::root().join(page)).map_err(|error| format!("{page}: {error}"))
}

/// The queries of its commands.
pub(crate) fn queries() -> Result<Vec<String>, String> {
    let page = text()?;
    let commands = page.lines().filter_map(|line| line.strip_prefix("$ ask '"));
    Ok(commands.filter_map(|rest| Some(rest.split_once('\'')?.0.to_owned())).collect())
}

/// Where commands run: an address that a page shows, and the one that is meant.
pub(crate) struct Shell {
    /// The folder, with whatever the commands read.
    pub(crate) folder: PathBuf,
    /// What the commands may call beside what the machine has.
    pub(crate) tools: PathBuf,
    /// What a page shows, and what stands there while it runs.
    pub(crate) names: Vec<(String, String)>,
}

impl Shell {
    /// A new folder of this name.
    pub(crate) fn new(name: &str, tools: &Path) -> Result<Self, String> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // The one before may have left it.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { folder, tools: tools.to_owned(), names: Vec::new() })
    }

    /// What a command prints, with the names that the page shows.
    pub(crate) fn run(&self, before: &str, command: &str) -> Result<String, String> {
        let mut script = format!("{before}\n{command}\n");
        for (shown, meant) in &self.names {
            script = script.replace(shown.as_str(), meant);
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_avnology-gate"));
        let mut path = vec![self.tools.clone(), binary.parent().unwrap_or(binary).to_owned()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let path = std::env::join_paths(path).map_err(|error| error.to_string())?;
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1\n{script}")])
            .current_dir(&self.folder)
            .env("PATH", path)
            .output()
            .map_err(|error| error.to_string())?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        for (shown, meant) in &self.names {
            text = text.replace(meant.as_str(), shown);
        }
        Ok(stable(&text))
    }
}

/// Without what is another each time: dates, times, and numbers with a fraction.
fn stable(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            let (before, word) = rest.split_at(at);
            let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || ".:-".contains(c)));
            let (word, after) = word.split_at(end.unwrap_or(word.len()));
            let is_in_a_word = before.ends_with(|c: char| c.is_alphanumeric() || "_./-:".contains(c));
            let is_number = word.bytes().all(|byte| byte.is_ascii_digit() || b".e-".contains(&byte));
            let is_time = word.split(':').count() == 3 || word.split('-').count() == 3;
            let varies = is_time || (is_number && word.split('.').count() == 2);
            out.push_str(before);
            out.push_str(if varies && !is_in_a_word { "…" } else { word });
            rest = after;
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
}

/// A page's blocks of a language, in order.
pub(crate) fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let begin = format!("```{language}\n");
    page.split(begin.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// The commands of a block with what follows each.
pub(crate) fn commands(block: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for part in block.split("$ ").skip(1) {
        // A command that goes on in the next line ends with a backslash.
        let mut end = 0;
        for line in part.split_inclusive('\n') {
            end += line.len();
            if !line.ends_with("\\\n") {
                break;
            }
        }
        found.push(part.split_at(end));
    }
    found
}

/// Runs every command of a page's `console` blocks, but those that `instead` has run in its own way.
/// With `UPDATE_DOCS`, what they print is written; without, it is compared.
pub(crate) fn play(
    page: &str,
    shell: &mut Shell,
    mut instead: impl FnMut(&mut Shell, &str) -> Result<bool, String>,
) -> Result<usize, String> {
    let text = read(page)?;
    let before = blocks(&text, "sh").concat();
    let updates = std::env::var_os("UPDATE_DOCS").is_some();
    let (mut shown, mut count) = (text.clone(), 0);
    let mut wrong = Vec::new();
    for block in blocks(&text, "console") {
        let mut played = String::new();
        for (command, printed) in commands(block) {
            let is_run = instead(shell, command)?;
            let output = if is_run { String::new() } else { shell.run(&before, command)? };
            if printed != output {
                wrong.push(format!("$ {command}prints\n{output}and not\n{printed}"));
            }
            played += &format!("$ {command}{output}");
            count += 1;
        }
        shown = shown.replace(&format!("```console\n{block}```"), &format!("```console\n{played}```"));
    }
    if updates {
        fs::write(sample::root().join(page), shown).map_err(|error| format!("{page}: {error}"))?;
    } else if !wrong.is_empty() {
        return Err(format!("{page}: UPDATE_DOCS=1 make observe writes it anew\n{}", wrong.join("\n")));
    }
    Ok(count)
}

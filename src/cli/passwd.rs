//! `tidings passwd`: the file that `access.password_file` names.
//!
//! The file is replaced as a whole, so that a broker that reads it, or a power cut, meets the
//! old one or the new one. Lines that are not concerned stay as they are, comments included. A
//! file that is damaged is not touched: what its lines were meant to be is not ours to guess.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use tidings::access::{
    SCRAM_ITERATIONS_DEFAULT, SCRAM_ITERATIONS_MIN, check_password_file, check_user_name,
    format_password_line, user_of_password_line,
};

use super::terminal;

/// The options of `tidings passwd`.
#[derive(Debug, Args)]
pub struct Options {
    /// The password file
    file: PathBuf,
    /// The user; the password is asked for twice on a terminal, or else read from standard input
    #[arg(required_unless_present = "batch")]
    user: Option<String>,
    /// Read the password from standard input, a single line, even if that is a terminal
    #[arg(long)]
    stdin: bool,
    /// Read any number of lines user:password from standard input
    #[arg(long, conflicts_with_all = ["user", "stdin"])]
    batch: bool,
    /// Delete the user
    #[arg(long, conflicts_with_all = ["batch", "stdin"])]
    delete: bool,
    /// Keep no SCRAM verifier
    #[arg(long)]
    no_scram: bool,
    /// What a SCRAM login costs the client, and a guess at a stolen file its thief
    #[arg(long, value_name = "N", default_value_t = SCRAM_ITERATIONS_DEFAULT, conflicts_with = "no_scram",
          value_parser = clap::value_parser!(u32).range(i64::from(SCRAM_ITERATIONS_MIN)..=10_000_000))]
    scram_iterations: u32,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut passwords = PasswordFile::read(&options.file)?;
    let scram = (!options.no_scram).then_some(options.scram_iterations);
    match &options.user {
        Some(user) if options.delete => {
            ensure!(
                passwords.delete(user),
                "{} has no user {user:?}",
                options.file.display()
            );
        }
        Some(user) => {
            check_user_name(user).map_err(anyhow::Error::msg)?;
            let password = match options.stdin || !io::stdin().is_terminal() {
                true => one_line(io::stdin().lock())?,
                false => ask()?,
            };
            passwords.set(user, &password, scram)?;
        }
        None => {
            for (i, line) in io::stdin().lock().lines().enumerate() {
                let line = line.context("standard input cannot be read")?;
                let set = match line.split_once(':') {
                    Some((user, password)) => passwords.set(user, password, scram),
                    None => Err(anyhow::Error::msg("expected user:password")),
                };
                set.with_context(|| {
                    format!("line {} of standard input; nothing was changed", i + 1)
                })?;
            }
        }
    }
    passwords.replace()
}

/// A password file on its way from one state to the next.
struct PasswordFile {
    path: PathBuf,
    lines: Vec<String>,
}

impl PasswordFile {
    fn read(path: &Path) -> anyhow::Result<Self> {
        // A link is followed, so that the file it leads to is replaced and not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.with_context(|| format!("{} cannot be read", path.display()))?,
        };
        check_password_file(&path.display().to_string(), text.as_bytes())
            .context("the password file is damaged, and was not changed")?;
        let lines = text.lines().map(str::to_owned).collect();
        Ok(PasswordFile { path, lines })
    }

    fn set(&mut self, user: &str, password: &str, scram: Option<u32>) -> anyhow::Result<()> {
        ensure!(!password.is_empty(), "the password is empty");
        ensure!(
            !password.contains('\0'),
            "the password contains a null character"
        );
        let line = format_password_line(user, password, scram).map_err(anyhow::Error::msg)?;
        match self
            .lines
            .iter_mut()
            .find(|line| user_of_password_line(line) == Some(user))
        {
            Some(old) => *old = line,
            None => self.lines.push(line),
        }
        Ok(())
    }

    /// Whether the user was there.
    fn delete(&mut self, user: &str) -> bool {
        let before = self.lines.len();
        self.lines
            .retain(|line| user_of_password_line(line) != Some(user));
        self.lines.len() < before
    }

    /// Writes a file beside the old one, flushes it and gives it the old one's name.
    fn replace(&self) -> anyhow::Result<()> {
        let mut text = self.lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        // What a broker would refuse must not be written.
        check_password_file(&self.path.display().to_string(), text.as_bytes())?;
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let name = self
            .path
            .file_name()
            .context("the password file has no name")?;
        let beside = directory.join(format!(
            ".{}.{}.new",
            name.to_string_lossy(),
            std::process::id()
        ));
        let result = self.write_beside(&beside, text.as_bytes()).and_then(|()| {
            fs::rename(&beside, &self.path)?;
            // The name is flushed with the directory that holds it.
            File::open(directory)?.sync_all()
        });
        if result.is_err() {
            let _ = fs::remove_file(&beside);
        }
        result.with_context(|| format!("{} cannot be written", self.path.display()))
    }

    /// For nobody but the owner to read, unless the old file was arranged otherwise.
    fn write_beside(&self, beside: &Path, text: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(beside)?;
        if let Ok(old) = fs::metadata(&self.path) {
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(Permissions::from_mode(old.mode() & 0o660))?;
        }
        file.write_all(text)?;
        file.sync_all()
    }
}

/// One line, whose end is not part of the password.
fn one_line(input: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    // More than any password; a bound for what was piped in by mistake.
    input
        .take(1 << 20)
        .read_to_string(&mut text)
        .context("standard input cannot be read")?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    ensure!(
        !line.contains('\n'),
        "standard input has more than one line"
    );
    Ok(line.to_owned())
}

fn ask() -> anyhow::Result<String> {
    let first = ask_once("Password: ")?;
    let second = ask_once("Again: ")?;
    if first != second {
        bail!("the passwords differ; nothing was changed");
    }
    Ok(first)
}

fn ask_once(prompt: &str) -> anyhow::Result<String> {
    terminal::ask_secret(prompt).map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => anyhow::Error::msg("given up; nothing was changed"),
        _ => anyhow::Error::new(error)
            .context("there is no terminal to ask for the password on; use --stdin"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(path: &Path, user: &str, password: &str) -> anyhow::Result<()> {
        let mut file = PasswordFile::read(path)?;
        file.set(user, password, Some(SCRAM_ITERATIONS_MIN))?;
        file.replace()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn users_are_added_changed_and_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwd");
        set(&path, "bob", "secret").unwrap();
        assert_eq!(mode(&path), 0o600);
        let first = fs::read_to_string(&path).unwrap();
        assert!(first.starts_with("bob:$argon2id$") && first.contains(":SCRAM-SHA-256$4096$"));
        assert!(!first.contains("secret") && first.ends_with('\n'));

        fs::write(&path, format!("# people\n\n{first}")).unwrap();
        set(&path, "eve", "s:ecret").unwrap();
        set(&path, "bob", "other").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let starts: Vec<&str> = text
            .lines()
            .map(|line| line.split(['$', '4']).next().unwrap())
            .collect();
        assert_eq!(starts, ["# people", "", "bob:", "eve:"]);
        assert!(!text.contains(first.trim_end()), "the old password is gone");

        let mut file = PasswordFile::read(&path).unwrap();
        assert!(file.delete("bob") && !file.delete("bob") && !file.delete("# people"));
        file.replace().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# people\n\neve:") && text.lines().count() == 3,
            "{text}"
        );
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left over"
        );
    }

    #[test]
    fn a_group_that_was_let_in_stays_in_and_others_stay_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwd");
        for (before, after) in [
            (0o640, 0o640),
            (0o644, 0o640),
            (0o600, 0o600),
            (0o777, 0o660),
        ] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            set(&path, "bob", "secret").unwrap();
            assert_eq!(mode(&path), after, "{before:o}");
        }
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (
            directory.path().join("passwd"),
            directory.path().join("link"),
        );
        set(&path, "bob", "secret").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        set(&link, "eve", "secret").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn what_is_damaged_or_bad_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwd");
        fs::write(&path, "# fine\nbob:plain\n").unwrap();
        let error = format!("{:#}", set(&path, "eve", "secret").unwrap_err());
        assert!(
            error.contains("was not changed") && error.contains("passwd:2:1: "),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "# fine\nbob:plain\n");

        fs::write(&path, "").unwrap();
        for (user, password) in [
            ("bob", ""),
            ("", "x"),
            ("a:b", "x"),
            ("*", "x"),
            ("bob", "a\0b"),
            ("a\nb", "x"),
        ] {
            assert!(set(&path, user, password).is_err(), "{user:?} {password:?}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_line_of_standard_input_is_a_password() {
        for (input, expected) in [
            ("a b\n", Some("a b")),
            ("a\r\n", Some("a")),
            ("a", Some("a")),
            ("", Some("")),
            ("a\nb\n", None),
        ] {
            assert_eq!(
                one_line(input.as_bytes()).ok().as_deref(),
                expected,
                "{input:?}"
            );
        }
    }
}

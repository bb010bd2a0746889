//! Asking for what must not be seen.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Asks on the terminal, wherever standard input comes from, and does not echo the answer.
pub fn ask_secret(prompt: &str) -> io::Result<String> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let mut answer = String::new();
    {
        let _quiet = Quiet::new(terminal.try_clone()?)?;
        write!(terminal, "{prompt}")?;
        BufReader::new(&terminal).read_line(&mut answer)?;
    }
    writeln!(terminal)?;
    // Interrupt and end of input: the terminal handed them on instead of acting on them.
    if !answer.ends_with('\n') || answer.contains(['\u{3}', '\u{1c}']) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "given up"));
    }
    Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
}

/// A terminal without echo, until dropped. Signals from its keys are off too: one of them
/// would end the process and leave the terminal mute.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn new(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes &= !(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG);
        // What was typed ahead was echoed, and is thrown away.
        tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
        Ok(Quiet { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

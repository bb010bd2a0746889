//! The password file: who the users are, and how they prove it.
//!
//! One user a line, `name:hash` or `name:hash:scram`. The hash is argon2id's in the PHC
//! string format (`$argon2id$v=19$m=…,t=…,p=…$salt$hash`), `scram` is the verifier of
//! SCRAM-SHA-256 (`SCRAM-SHA-256$iterations$salt$StoredKey$ServerKey`, in base64). Each
//! field names its own scheme and version, so that others can stand beside them later.
//! Empty lines and lines that begin with `#` are comments.
//!
//! A line that is anything else makes the whole file bad: no part of such a file is ever
//! used, and no damaged line is a user (CVE-2018-12551).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;

use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;

use super::crypto::random;
use super::verifier::{SALT_BYTES, Verifier};
use crate::config::{Origin, Problem, ProblemKind, Problems};

/// More than this per hash would let a slip in the file take the machine down at login.
const MEMORY_MAX_KIB: u32 = 1 << 20;
const PASSES_MAX: u32 = 1000;
const LANES_MAX: u32 = 64;

/// The users of a password file.
#[derive(Debug, Default)]
pub(super) struct Users {
    by_name: HashMap<Box<str>, Arc<User>>,
    /// In the order of the file, for [`Users::stand_in`].
    listed: Vec<Arc<User>>,
}

/// A user and the means to verify it.
pub(super) struct User {
    name: Box<str>,
    hash: PasswordHash,
    scram: Option<Verifier>,
    /// A keyed digest of the password that was last found right: see `hashing`.
    known: OnceLock<[u8; 32]>,
}

impl User {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn scram(&self) -> Option<&Verifier> {
        self.scram.as_ref()
    }

    pub fn known(&self) -> &OnceLock<[u8; 32]> {
        &self.known
    }

    /// Whether the password is the right one. Takes long, on purpose.
    pub fn verify(&self, password: &[u8]) -> bool {
        Argon2::default()
            .verify_password(password, &self.hash)
            .is_ok()
    }

    /// What [`User::same_credentials`] compares besides the name, as the password file has it: the
    /// hash, and the SCRAM verifier or nothing.
    pub fn credentials(&self) -> (String, String) {
        let scram = self.scram.as_ref().map(Verifier::to_string);
        (self.hash.to_string(), scram.unwrap_or_default())
    }

    /// Whether the password, not merely the user, is the same in both.
    pub fn same_credentials(&self, other: &User) -> bool {
        self.name == other.name && self.hash == other.hash && self.scram == other.scram
    }
}

impl std::fmt::Debug for User {
    /// The name alone: hashes have no place in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Users {
    /// Reads a password file; all that is wrong with it, by line.
    pub fn read(path: &Path) -> Result<Users, Problems> {
        let name: Arc<str> = path.display().to_string().into();
        match std::fs::read(path) {
            Ok(bytes) => {
                warn_if_open_to_all(path);
                Users::parse(&name, &bytes)
            }
            Err(error) => {
                let kind = ProblemKind::Unreadable(error.to_string());
                Err(Problems::one(
                    Origin::WholeFile(name),
                    "access.password_file",
                    kind,
                ))
            }
        }
    }

    pub fn parse(name: &Arc<str>, bytes: &[u8]) -> Result<Users, Problems> {
        let mut users = Users::default();
        let mut problems = Vec::new();
        let mut lines: HashMap<Box<str>, usize> = HashMap::new();
        for (i, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let parsed = match std::str::from_utf8(line) {
                Ok(line) => parse_line(line.strip_suffix('\r').unwrap_or(line)),
                Err(_) => Err("the line is not UTF-8".to_owned()),
            };
            let why = match parsed {
                Ok(None) => continue,
                Ok(Some(user)) => match lines.entry(user.name.clone()) {
                    Entry::Occupied(first) => {
                        format!("{:?} is already in line {}", user.name, first.get())
                    }
                    Entry::Vacant(vacant) => {
                        vacant.insert(i + 1);
                        users.add(user);
                        continue;
                    }
                },
                Err(why) => why,
            };
            let at = Origin::File {
                name: name.clone(),
                line: i + 1,
                column: 1,
            };
            problems.push(Problem {
                at,
                key: String::new(),
                kind: ProblemKind::Syntax(why),
            });
        }
        Problems::none_or(problems, users)
    }

    fn add(&mut self, user: User) {
        let user = Arc::new(user);
        self.by_name.insert(user.name.clone(), user.clone());
        self.listed.push(user);
    }

    pub fn get(&self, name: &str) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// Somebody whose password is verified in place of an unknown user's, so that it takes
    /// as long; `choice` makes it the same one each time. `None` if there are no users.
    pub fn stand_in(&self, choice: u64) -> Option<&Arc<User>> {
        let count = u64::try_from(self.listed.len())
            .ok()
            .filter(|count| *count > 0)?;
        self.listed.get(usize::try_from(choice % count).ok()?)
    }

    pub fn any_scram(&self) -> bool {
        self.listed.iter().any(|user| user.scram.is_some())
    }
}

/// Whoever can read the hashes can try passwords on them at leisure.
fn warn_if_open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o007 != 0);
    if open {
        let path = path.display();
        tracing::warn!(%path, "the password file is open to every user of this machine");
    }
}

/// `None` for a comment. The error never repeats the line: it may hold a password.
fn parse_line(line: &str) -> Result<Option<User>, String> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut fields = line.split(':');
    let (Some(name), Some(hash)) = (fields.next(), fields.next()) else {
        return Err("expected name:hash or name:hash:scram, found no colon".to_owned());
    };
    check_name(name)?;
    let hash = parse_hash(hash)?;
    let scram = fields.next().map(Verifier::parse).transpose()?;
    if fields.next().is_some() {
        return Err("expected name:hash or name:hash:scram, found more than two colons".to_owned());
    }
    Ok(Some(User {
        name: name.into(),
        hash,
        scram,
        known: OnceLock::new(),
    }))
}

/// Whether a user can have this name; why not.
pub fn check_name(name: &str) -> Result<(), String> {
    let why = if name.is_empty() {
        "a user name is not empty"
    } else if name == "anonymous" || name == "*" {
        "\"anonymous\" and \"*\" have a meaning of their own in rules, and name no user"
    } else if name.starts_with('#') {
        "a user name does not begin with #, which begins a comment"
    } else if name.contains(':') || name.chars().any(char::is_control) {
        "a user name holds neither colons nor control characters"
    } else if name.trim() != name {
        "a user name neither begins nor ends with a space"
    } else if name.len() > 65_535 {
        "a user name is at most 65535 bytes long"
    } else {
        return Ok(());
    };
    Err(why.to_owned())
}

fn parse_hash(text: &str) -> Result<PasswordHash, String> {
    if !text.starts_with("$argon2id$") {
        return Err("the hash is not of argon2id: it begins with $argon2id$".to_owned());
    }
    let bad = |what: &str| format!("the argon2id hash {what}");
    let hash = PasswordHash::new(text).map_err(|error| bad(&format!("cannot be read: {error}")))?;
    let params = argon2::Params::try_from(&hash)
        .map_err(|error| bad(&format!("has bad parameters: {error}")))?;
    if hash.version != Some(19) {
        return Err(bad("is not of version 19 (v=19)"));
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(bad("lacks its salt or its end"));
    }
    if hash.hash.is_some_and(|output| output.len() < 16) {
        return Err(bad("is shorter than 16 bytes"));
    }
    if params.m_cost() > MEMORY_MAX_KIB
        || params.t_cost() > PASSES_MAX
        || params.p_cost() > LANES_MAX
    {
        return Err(bad(&format!(
            "asks for more than m={MEMORY_MAX_KIB}, t={PASSES_MAX}, p={LANES_MAX}"
        )));
    }
    Ok(hash)
}

/// Whether the text is a good password file, and how many users it has.
pub fn check_text(name: &str, text: &[u8]) -> Result<usize, Problems> {
    Ok(Users::parse(&name.into(), text)?.listed.len())
}

/// The user whom a line of a good password file is about; `None` for a comment.
pub fn name_of(line: &str) -> Option<&str> {
    match line.starts_with('#') {
        true => None,
        false => Some(line.split_once(':')?.0),
    }
}

/// A user's line, without its end: a fresh salt, argon2id with OWASP's parameters
/// (19 MiB, two passes), and the SCRAM verifier unless `scram_iterations` is `None`.
pub fn format_line(
    name: &str,
    password: &str,
    scram_iterations: Option<u32>,
) -> Result<String, String> {
    line_with(name, password, argon2::Params::default(), scram_iterations)
}

pub(super) fn line_with(
    name: &str,
    password: &str,
    params: argon2::Params,
    scram_iterations: Option<u32>,
) -> Result<String, String> {
    check_name(name)?;
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let hash: PasswordHash = argon2
        .hash_password(password.as_bytes())
        .map_err(|error| format!("the password cannot be hashed: {error}"))?;
    let mut line = format!("{name}:{hash}");
    if let Some(iterations) = scram_iterations {
        let mut salt = [0; SALT_BYTES];
        random(&mut salt);
        line.push(':');
        line.push_str(&Verifier::derive(password, &salt, iterations).to_string());
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "secret", as cheap as argon2id gets.
    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$";

    fn line(name: &str, password: &str, scram: Option<u32>) -> String {
        line_with(
            name,
            password,
            argon2::Params::new(8, 1, 1, None).unwrap(),
            scram,
        )
        .unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let text = format!(
            "# users\n\n{}\n   \n{}\r\n{}",
            line("bob", "secret", None),
            line("eve@example.org", "s:e c\u{e9}t", Some(4096)),
            line("#not".trim_start_matches('#'), "", None),
        );
        let users = Users::parse(&"passwd".into(), text.as_bytes()).unwrap();
        assert_eq!(users.by_name.len(), 3);
        let bob = users.get("bob").unwrap();
        assert!(bob.verify(b"secret") && !bob.verify(b"Secret") && !bob.verify(b""));
        assert!(bob.scram().is_none());
        let eve = users.get("eve@example.org").unwrap();
        assert!(eve.verify("s:e c\u{e9}t".as_bytes()) && eve.scram().is_some());
        assert!(
            users.get("carol").is_none()
                && users.get("").is_none()
                && users.get("# users").is_none()
        );
        assert!(users.any_scram());
        assert!(
            !format!("{users:?}").contains("argon2"),
            "no hash gets into a log"
        );

        assert_eq!(check_text("passwd", text.as_bytes()), Ok(3));
        assert_eq!(name_of("bob:x:y"), Some("bob"));
        assert_eq!(name_of("# bob:x"), None);
        assert_eq!(name_of(""), None);
    }

    #[test]
    fn the_parameters_are_those_recommended() {
        let line = format_line("bob", "secret", None).unwrap();
        assert!(
            line.starts_with("bob:$argon2id$v=19$m=19456,t=2,p=1$"),
            "{line}"
        );
    }

    #[test]
    fn no_damaged_line_is_a_user() {
        let good = line("bob", "secret", Some(4096));
        let (hash, scram) = good["bob:".len()..].split_once(':').unwrap();
        assert!(hash.starts_with(HASH));
        let check = |line: &str, expected: &str| {
            let text = [
                b"ok:".as_slice(),
                hash.as_bytes(),
                b"\n\n",
                line.as_bytes(),
                b"\n",
            ]
            .concat();
            let problems = Users::parse(&"passwd".into(), &text)
                .expect_err(line)
                .to_string();
            let expected = format!("passwd:3:1: {expected}");
            assert!(
                problems.starts_with(&expected),
                "{problems:?} for {line:?}, expected {expected:?}"
            );
            assert!(!problems.contains('\n'), "{problems}");
        };
        let form = "expected name:hash or name:hash:scram, found ";
        check("bob", &format!("{form}no colon"));
        check("bob secret", &format!("{form}no colon"));
        check("bob:", "the hash is not of argon2id");
        check("bob:secret", "the hash is not of argon2id");
        check("bob:$7$101$salt$hash", "the hash is not of argon2id");
        check(
            &format!("bob:{}", hash.replace("argon2id", "argon2i")),
            "the hash is not of argon2id",
        );
        check(&format!(":{hash}"), "a user name is not empty");
        check(
            &format!("*:{hash}"),
            "\"anonymous\" and \"*\" have a meaning of their own",
        );
        check(
            &format!("anonymous:{hash}"),
            "\"anonymous\" and \"*\" have a meaning of their own",
        );
        check(
            &format!(" bob:{hash}"),
            "a user name neither begins nor ends with a space",
        );
        check(
            &format!("b\0b:{hash}"),
            "a user name holds neither colons nor control characters",
        );
        check(&format!("ok:{hash}"), "\"ok\" is already in line 1");
        check(
            &format!("bob:{hash}:"),
            "the SCRAM verifier is not of the form",
        );
        check(
            &format!("bob:{hash}:{scram}:"),
            &format!("{form}more than two colons"),
        );
        check(&format!("bob:{hash} "), "the argon2id hash cannot be read");
        check(
            &format!("bob:{}", &hash[..hash.rfind('$').unwrap()]),
            "the argon2id hash lacks its salt or its end",
        );
        check(
            &format!("bob:{}", HASH.trim_end_matches('$')),
            "the argon2id hash lacks its salt or its end",
        );
        check(
            &format!("bob:{}", hash.replace("v=19", "v=16")),
            "the argon2id hash is not of version 19",
        );
        check(
            &format!("bob:{}", hash.replace("v=19$", "")),
            "the argon2id hash is not of version 19",
        );
        check(
            &format!("bob:{}", hash.replace("m=8", "m=7")),
            "the argon2id hash has bad parameters",
        );
        check(
            &format!("bob:{}", hash.replace("t=1", "t=0")),
            "the argon2id hash has bad parameters",
        );
        check(
            &format!("bob:{}", hash.replace("m=8", "m=4294967295")),
            "the argon2id hash asks for more than",
        );
        check(
            &format!("bob:{}", hash.replace("t=1", "t=99999")),
            "the argon2id hash asks for more than",
        );
        let short = argon2::Params::new(8, 1, 1, Some(12)).unwrap();
        let short = line_with("bob", "secret", short, None).unwrap();
        check(&short, "the argon2id hash is shorter than 16 bytes");
    }

    #[test]
    fn all_damaged_lines_are_named() {
        let text = b"a\n# fine\nb:x\n\xff:y\n";
        let problems = Users::parse(&"passwd".into(), text)
            .unwrap_err()
            .to_string();
        let lines: Vec<&str> = problems
            .lines()
            .filter_map(|line| line.split(": ").next())
            .collect();
        assert_eq!(lines, ["passwd:1:1", "passwd:3:1", "passwd:4:1"]);
        assert!(
            !problems.contains('x') || !problems.contains("b:x"),
            "the line is not repeated"
        );
    }

    #[test]
    fn a_missing_file_is_a_problem_and_an_empty_one_has_no_users() {
        let problems = Users::read(Path::new("/nonexistent/passwd"))
            .unwrap_err()
            .to_string();
        assert!(
            problems.starts_with("/nonexistent/passwd: access.password_file: cannot be read: "),
            "{problems}"
        );
        assert_eq!(check_text("passwd", b""), Ok(0));
        assert!(Users::default().stand_in(7).is_none());
    }
}

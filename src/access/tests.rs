//! Who is let in, and what a reload means for them.

use std::path::Path;

use tempfile::NamedTempFile;

use super::*;

/// A line of a password file that is cheap to verify.
pub(super) fn line(name: &str, password: &str, scram: Option<u32>) -> String {
    let params = argon2::Params::new(8, 1, 1, None).unwrap();
    users::line_with(name, password, params, scram).unwrap()
}

/// A configuration with a password file and more, in TOML.
pub(super) fn config(path: &Path, access: &str) -> Config {
    let text = format!(
        "[access]\npassword_file = {:?}\n{access}",
        path.to_str().unwrap()
    );
    Config::from_toml(&text).unwrap_or_else(|problems| panic!("{problems}"))
}

pub(super) fn access_with(passwords: &str, access: &str) -> (NamedTempFile, Access) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), passwords).unwrap();
    let access =
        Access::new(&config(file.path(), access)).unwrap_or_else(|problems| panic!("{problems}"));
    (file, access)
}

fn rewrite(file: &NamedTempFile, access: &Access, passwords: &str, rules: &str) {
    std::fs::write(file.path(), passwords).unwrap();
    access.reload(&config(file.path(), rules)).unwrap();
}

const ALL_OF_A: &str = "[[access.rule]]\nuser = \"*\"\nallow = [\"publish\", \"subscribe\", \"receive\"]\ntopics = \"a/#\"\n";

#[tokio::test]
async fn without_users_everybody_is_anonymous_and_may_do_everything() {
    let access = Access::new(&Config::default()).unwrap();
    assert!(access.anonymous_allowed());
    let principal = access.anonymous("c1").unwrap();
    assert_eq!((principal.user(), principal.client_id()), (None, "c1"));
    assert!(
        principal.may_publish("a")
            && principal.may_subscribe("#")
            && principal.may_subscribe("$SYS/#")
    );
    assert!(principal.may_receive_all());
    assert!(!principal.may_publish("$SYS/broker/uptime"));
    // A name that nobody can verify is nobody's.
    let named = access.password("c1", "bob", b"secret").await.unwrap();
    assert_eq!(named.user(), None);
}

#[tokio::test]
async fn without_users_but_with_rules_the_rules_count() {
    let access = Access::new(&Config::from_toml(ALL_OF_A).unwrap()).unwrap();
    let principal = access.anonymous("c1").unwrap();
    assert!(principal.may_publish("a/b") && !principal.may_publish("b"));
    assert!(!principal.may_receive_all() && principal.may_receive_all_of("a/+"));
}

#[tokio::test]
async fn with_users_the_password_decides() {
    let (_file, access) = access_with(&line("bob", "secret", None), ALL_OF_A);
    assert!(!access.anonymous_allowed());
    assert_eq!(access.anonymous("c").unwrap_err(), AuthError::NotAuthorized);
    // Twice, for the second time it is known by heart.
    for _ in 0..2 {
        let bob = access.password("c", "bob", b"secret").await.unwrap();
        assert_eq!(bob.user(), Some("bob"));
        assert!(bob.may_publish("a/b") && !bob.may_publish("b"));
        for (user, password) in [
            ("bob", "Secret"),
            ("bob", ""),
            ("eve", "secret"),
            ("", ""),
            ("bob\0", "secret"),
        ] {
            let result = access.password("c", user, password.as_bytes()).await;
            assert_eq!(
                result.unwrap_err(),
                AuthError::BadCredentials,
                "{user} {password}"
            );
        }
    }
}

#[tokio::test]
async fn users_without_rules_may_do_nothing() {
    let (_file, access) = access_with(&line("bob", "secret", None), "");
    let bob = access.password("c", "bob", b"secret").await.unwrap();
    assert!(!bob.may_publish("a") && !bob.may_subscribe("a") && !bob.may_receive("a"));
}

#[tokio::test]
async fn an_empty_password_file_lets_nobody_in() {
    let (_file, access) = access_with("# nobody\n", ALL_OF_A);
    assert_eq!(access.anonymous("c").unwrap_err(), AuthError::NotAuthorized);
    assert_eq!(
        access.password("c", "bob", b"").await.unwrap_err(),
        AuthError::BadCredentials
    );
    assert_eq!(
        access.absent("c", Some("bob")).unwrap_err(),
        AuthError::NotAuthorized
    );
}

#[tokio::test]
async fn anonymous_clients_beside_users() {
    let rules = "allow_anonymous = true\n[[access.rule]]\nuser = \"anonymous\"\nallow = \"publish\"\ntopics = \"in/%c\"\n";
    let (_file, access) = access_with(&line("bob", "secret", None), rules);
    let anonymous = access.anonymous("c1").unwrap();
    assert!(anonymous.may_publish("in/c1") && !anonymous.may_publish("in/c2"));
    let bob = access.password("c1", "bob", b"secret").await.unwrap();
    assert!(
        !bob.may_publish("in/c1"),
        "rules for anonymous are not for users"
    );
    // A wrong password is wrong; it does not make one anonymous.
    assert_eq!(
        access.password("c1", "bob", b"x").await.unwrap_err(),
        AuthError::BadCredentials
    );
}

#[tokio::test]
async fn a_reload_replaces_users_and_rules() {
    let (file, access) = access_with(
        &[line("bob", "secret", None), line("eve", "secret", None)].join("\n"),
        ALL_OF_A,
    );
    let bob = access.password("c", "bob", b"secret").await.unwrap();
    let eve = access.password("c", "eve", b"secret").await.unwrap();
    let unchanged = std::fs::read_to_string(file.path()).unwrap();

    // Other rules, the same passwords.
    let other_rules = ALL_OF_A.replace("a/#", "b/#");
    rewrite(&file, &access, &unchanged, &other_rules);
    let renewed = access.renew(&bob).unwrap();
    assert!(renewed.may_publish("b/x") && !renewed.may_publish("a/x"));
    assert!(
        bob.may_publish("a/x"),
        "the old one keeps its rights until it is renewed"
    );

    // Another password, and a user less.
    rewrite(&file, &access, &line("bob", "other", None), ALL_OF_A);
    assert_eq!(
        access.renew(&renewed).unwrap_err(),
        AuthError::BadCredentials
    );
    assert_eq!(access.renew(&eve).unwrap_err(), AuthError::BadCredentials);
    assert_eq!(
        access.password("c", "bob", b"secret").await.unwrap_err(),
        AuthError::BadCredentials
    );
    let bob = access.password("c", "bob", b"other").await.unwrap();
    assert!(access.renew(&bob).is_ok());
    assert!(access.absent("c", Some("bob")).unwrap().may_publish("a/x"));
    assert_eq!(
        access.absent("c", Some("eve")).unwrap_err(),
        AuthError::NotAuthorized
    );
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let (file, access) = access_with(&line("bob", "secret", None), ALL_OF_A);
    let bob = access.password("c", "bob", b"secret").await.unwrap();
    std::fs::write(file.path(), "bob:\n").unwrap();
    let problems = access
        .reload(&config(file.path(), ""))
        .unwrap_err()
        .to_string();
    assert!(
        problems.contains(":1:1: the hash is not of argon2id"),
        "{problems}"
    );
    std::fs::remove_file(file.path()).unwrap();
    access.reload(&config(file.path(), "")).unwrap_err();

    assert!(access.renew(&bob).unwrap().may_publish("a/x"));
    access.password("c", "bob", b"secret").await.unwrap();
    assert!(!access.anonymous_allowed());
}

#[tokio::test]
async fn a_principal_made_of_old_passwords_is_not_current_by_its_number() {
    // The number of a state decides whether there is anything to renew.
    let (file, access) = access_with(&line("bob", "secret", None), ALL_OF_A);
    let bob = access.password("c", "bob", b"secret").await.unwrap();
    std::fs::write(file.path(), "broken").unwrap();
    access.reload(&config(file.path(), "")).unwrap_err();
    rewrite(&file, &access, &line("bob", "other", None), "");
    assert!(access.renew(&bob).is_err());
}

#[tokio::test]
async fn rights_are_shared_unless_they_depend_on_names() {
    let rights = |principal: &Principal| principal.rights_address();
    let (_file, access) = access_with(&line("bob", "secret", None), ALL_OF_A);
    let [one, two] = ["c1", "c2"].map(|client_id| access.absent(client_id, Some("bob")).unwrap());
    assert_eq!(rights(&one), rights(&two));
    let (_file, access) = access_with(
        &line("bob", "secret", None),
        &ALL_OF_A.replace("a/#", "%c/#"),
    );
    let [one, two] = ["c1", "c2"].map(|client_id| access.absent(client_id, Some("bob")).unwrap());
    assert!(one.may_publish("c1/x") && !one.may_publish("c2/x") && two.may_publish("c2/x"));
}

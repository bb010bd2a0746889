//! What the binary says when a store cannot be used: one line that says what to do, and exit
//! code 1.

use std::os::unix::fs::PermissionsExt;

use crate::harness::process::{Finished, run, run_unprivileged};
use crate::harness::*;
use crate::store_cli::{Stores, stop};

/// It failed with one line on standard error that has all of `words`.
fn expect_one_line(finished: &Finished, words: &[&str]) {
    let said = &finished.stderr;
    assert_eq!(finished.status.code(), Some(1), "{words:?}: {said}");
    let mut lines = said.lines().filter(|line| line.starts_with("tidings: "));
    let line = lines.next().unwrap_or_else(|| panic!("{words:?}: {said}"));
    assert_eq!(lines.next(), None, "{said}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
    // Everything else is the log.
    assert_eq!(said.lines().last(), Some(line), "{said}");
}

/// A broker is started on the store of this name.
fn serve(stores: &Stores, name: &str) -> Finished {
    let setting = format!("store.path={}", stores.path(name).display());
    let listen = "mqtt.listen=127.0.0.1:0";
    let no_http = "http.listen=";
    run(
        &scratch(),
        &["--set", listen, "--set", no_http, "--set", &setting],
        &[],
    )
}

/// Everything but a backup needs the broker stopped.
#[tokio::test]
async fn a_store_in_use() {
    let stores = Stores::new();
    let broker = stores.broker("a");
    expect_one_line(
        &serve(&stores, "a"),
        &["in use by another process", "stop it", "store.path"],
    );
    for command in ["check", "compact", "export"] {
        let finished = stores.run(&["store", command], "a");
        expect_one_line(
            &finished,
            &["in use by a broker", "stop the broker", "tidings backup"],
        );
    }
    let finished = stores.run(&["store", "import", "/dev/null"], "a");
    expect_one_line(&finished, &["is not empty", "an import needs a directory"]);
    stop(broker);
    assert!(stores.run(&["store", "check"], "a").status.success());
}

#[tokio::test]
async fn a_target_that_is_not_empty() {
    let stores = Stores::new();
    std::fs::create_dir(stores.path("full")).expect("our own directory");
    std::fs::write(stores.path("full/x"), "x").expect("our own directory");
    std::fs::write(stores.path("file"), "x").expect("our own directory");
    let broker = stores.broker("a");
    let refused = |by: &str| {
        let finished = stores.run(&["backup", "full"], "a");
        expect_one_line(
            &finished,
            &[by, "is not empty", "a backup needs a directory"],
        );
        let finished = stores.run(&["backup", "file"], "a");
        expect_one_line(&finished, &[by, "file: ", "a directory is needed"]);
    };
    refused("the broker made no backup");
    stop(broker);
    refused("");
    assert_eq!(
        std::fs::read_dir(stores.path("full"))
            .expect("it is there")
            .count(),
        1
    );
    let finished = stores.run(&["store", "export", "--output", "file"], "a");
    expect_one_line(&finished, &["file exists", "not overwritten"]);
    assert_eq!(
        std::fs::read(stores.path("file")).expect("it is there"),
        b"x"
    );
}

#[tokio::test]
async fn a_newer_format_and_one_that_is_none() {
    let stores = Stores::new();
    stop(stores.broker("a"));
    let format = stores.path("a/format");
    std::fs::write(&format, "tidings-store 9\nepoch 5\n").expect("it is ours");
    let words = ["format 9", "up to 3", "newer version", "store.path"];
    expect_one_line(&serve(&stores, "a"), &words);
    expect_one_line(&stores.run(&["store", "check"], "a"), &words);
    std::fs::write(&format, "something else\n").expect("it is ours");
    let words = ["is not a store", "`format` cannot be read", "backup"];
    expect_one_line(&serve(&stores, "a"), &words);
    expect_one_line(&stores.run(&["store", "export"], "a"), &words);
}

/// A name that leads nowhere, to another directory, or to a file.
#[test]
fn no_store() {
    let stores = Stores::new();
    std::fs::create_dir(stores.path("other")).expect("our own directory");
    std::fs::write(stores.path("file"), "x").expect("our own directory");
    for command in [
        &["store", "check"][..],
        &["store", "compact"],
        &["store", "export"],
        &["backup", "to"],
    ] {
        let finished = stores.run(command, "missing");
        expect_one_line(
            &finished,
            &["missing is not a store", "no such directory", "--path"],
        );
        let finished = stores.run(command, "other");
        expect_one_line(
            &finished,
            &["other is not a store", "no log in it", "store.path"],
        );
        expect_one_line(
            &stores.run(command, "file"),
            &["file", "a directory is needed"],
        );
    }
    expect_one_line(&serve(&stores, "file"), &["file", "a directory is needed"]);
    assert!(!stores.path("missing").exists() && !stores.path("to").exists());
    assert_eq!(
        std::fs::read_dir(stores.path("other"))
            .expect("it is there")
            .count(),
        0
    );
}

/// An import that was not finished is no store, and says so until it is removed.
#[test]
fn a_store_that_is_not_complete() {
    let stores = Stores::new();
    let text = "{\"type\":\"store\",\"version\":1,\"time_ms\":5}\n";
    std::fs::write(stores.path("cut.jsonl"), text).expect("our own directory");
    let finished = stores.run(&["store", "import", "cut.jsonl"], "a");
    expect_one_line(
        &finished,
        &["line 2 of the import", "cut short", "remove it"],
    );
    let words = ["is not a store", "was not finished", "remove it"];
    expect_one_line(&serve(&stores, "a"), &words);
    expect_one_line(&stores.run(&["store", "check"], "a"), &words);
    expect_one_line(
        &stores.run(&["store", "import", "none.jsonl"], "b"),
        &["cannot read none.jsonl"],
    );
}

/// A broker in memory has nothing that could be looked after.
#[tokio::test]
async fn a_store_in_memory() {
    let stores = Stores::new();
    let arguments =
        |command: &[&'static str]| [command, &["--set", "store.durability=memory"]].concat();
    for command in [
        &["store", "check"][..],
        &["store", "import", "-"],
        &["backup", "to"],
    ] {
        let finished = run(&scratch(), &arguments(command), &[]);
        expect_one_line(&finished, &["store.durability is \"memory\"", "--path"]);
    }
    let broker = ProcessBroker::start(&[
        "store.durability=memory",
        &format!("store.path={}", stores.path("a").display()),
    ]);
    expect_one_line(&stores.run(&["backup", "to"], "a"), &["is not a store"]);
    assert!(!stores.path("a").exists());
    stop(broker);
}

/// Directories that may be read and not written, or not entered.
#[tokio::test]
async fn missing_rights() {
    let stores = Stores::new();
    let set_mode = |name: &str, mode: u32| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(stores.path(name), permissions).expect("our own directory");
    };
    set_mode("", 0o755);
    for name in ["read-only", "closed"] {
        stop(stores.broker(name));
        std::fs::create_dir(stores.path(&format!("{name}/empty"))).expect("our own directory");
    }
    // Running, so that it is asked through its socket.
    let broker = stores.broker("running");
    set_mode("read-only/lock", 0o444);
    set_mode("read-only/empty", 0o555);
    set_mode("read-only", 0o555);
    set_mode("closed", 0o000);
    let scratch = scratch();
    let serve = |name: &str| {
        let setting = format!("store.path={}", stores.path(name).display());
        run_unprivileged(
            &scratch,
            &[
                "--set",
                "mqtt.listen=127.0.0.1:0",
                "--set",
                "http.listen=",
                "--set",
                &setting,
            ],
        )
    };
    let words = [
        "Permission denied",
        "must belong to the user that runs the broker",
    ];
    expect_one_line(
        &serve("read-only"),
        &[&words[..], &["write to", "read-only/lock"]].concat(),
    );
    expect_one_line(
        &serve("read-only/empty/new"),
        &[&words[..], &["create", "empty/new"]].concat(),
    );
    expect_one_line(&serve("closed"), &[&words[..], &["closed"]].concat());
    for command in [&["store", "check"][..], &["backup", "to"]] {
        for name in ["read-only", "closed"] {
            let path = stores.path(name);
            let path = path.to_str().expect("a path of UTF-8");
            let finished = run_unprivileged(&scratch, &[command, &["--path", path]].concat());
            expect_one_line(
                &finished,
                &["Permission denied", "the user that runs the broker"],
            );
        }
    }
    if rustix::process::geteuid().is_root() {
        let path = stores.path("running");
        let path = path.to_str().expect("a path of UTF-8");
        let finished = run_unprivileged(&scratch, &["backup", "to", "--path", path]);
        expect_one_line(
            &finished,
            &["cannot talk to the broker", "Permission denied", "as root"],
        );
    }
    stop(broker);
    // Or it could not be removed.
    for name in ["closed", "read-only", "read-only/empty"] {
        set_mode(name, 0o755);
    }
}

/// Root keeps off a store that is somebody else's: its files would keep the broker out.
#[tokio::test]
async fn root_on_a_store_of_somebody_else() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else can give a directory away.
        return;
    }
    let stores = Stores::new();
    stop(stores.broker("a"));
    std::os::unix::fs::chown(stores.path("a"), Some(65_534), None).expect("root may");
    for command in [
        &["store", "check"][..],
        &["store", "compact"],
        &["backup", "to"],
    ] {
        let finished = stores.run(command, "a");
        expect_one_line(
            &finished,
            &[
                "belongs to the user with the number 65534",
                "sudo -u '#65534'",
            ],
        );
    }
}

/// The commands explain themselves.
#[test]
fn help_is_there() {
    let directory = scratch();
    for (command, words) in [
        (&["--help"][..], &["store", "backup"][..]),
        (
            &["store", "--help"],
            &["check", "compact", "export", "import"],
        ),
        (
            &["store", "check", "--help"],
            &["--path", "--config", "Exits with 0"],
        ),
        (&["store", "import", "--help"], &["standard input"]),
        (
            &["backup", "--help"],
            &["TARGET", "empty or does not exist", "store.path"],
        ),
    ] {
        let finished = run(&directory, command, &[]);
        assert!(finished.status.success(), "{command:?}");
        for word in words {
            assert!(
                finished.stdout.contains(word),
                "{word}: {}",
                finished.stdout
            );
        }
    }
}

/// A mistyped path does not fill somebody else's directory, and the one that is made is for its
/// owner alone.
#[tokio::test]
async fn a_directory_with_other_files() {
    let stores = Stores::new();
    std::fs::create_dir(stores.path("home")).expect("our own directory");
    std::fs::write(stores.path("home/letter.txt"), "x").expect("our own directory");
    let words = [
        "home is not a store",
        "other files",
        "empty or a new directory",
    ];
    expect_one_line(&serve(&stores, "home"), &words);
    stop(stores.broker("a"));
    let made = std::fs::metadata(stores.path("a")).expect("it was made");
    assert_eq!(made.permissions().mode() & 0o777, 0o700);
}

//! The control socket: who gets in, what is answered, and what it leaves behind.

use std::io::{BufRead, BufReader, Write};

use super::*;
use crate::config::Config;
use crate::store;

/// Has tokens for one user only.
fn issue() -> Issue {
    Box::new(|user, lifetime| match user {
        "bob" => Ok(format!("bob's for {lifetime:?}")),
        _ => Err(format!("there is no user {user:?}")),
    })
}

/// An open store in `directory`, with its socket.
fn start(directory: &Path) -> (Arc<dyn Store>, Control) {
    let config = Config::from_toml(&format!("store.path = {directory:?}"));
    let config = config.unwrap_or_else(|problems| panic!("{problems}")).store;
    let (store, _) = store::open(&config).expect("it opens");
    let control = Control::start(&config, &store, issue()).expect("it listens");
    (store, control)
}

fn read(stream: BlockingStream) -> String {
    let mut answer = String::new();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("it takes a deadline");
    BufReader::new(stream)
        .read_line(&mut answer)
        .expect("it answers");
    answer
}

fn ask(directory: &Path, request: &str) -> String {
    let mut stream = connect(directory).expect("it listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    read(stream)
}

/// What is asked blocks; the broker's side needs the runtime's other thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_request_is_answered_with_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_store, _control) = start(dir.path());
    let too_long = format!("{{\"command\":\"{}\"}}\n", "x".repeat(LINE_MAX as usize));
    for (request, expected) in [
        ("{\"command\":\"dance\"}\n", "unknown command \\\"dance\\\""),
        ("backup\n", "one JSON object on one line"),
        (
            "{\"command\":\"backup\",\"to\":\"/x\"}\n",
            "unknown field `to`",
        ),
        ("{\"command\":\"backup\"}\n", "needs a \\\"target\\\""),
        (
            "{\"command\":\"backup\",\"target\":\"x\"}\n",
            "an absolute path",
        ),
        (
            "{\"command\":\"token\",\"user\":\"bob\"}\n",
            "needs a \\\"user\\\" and \\\"expires_secs\\\"",
        ),
        (
            "{\"command\":\"token\",\"user\":\"eve\",\"expires_secs\":60}\n",
            "there is no user \\\"eve\\\"",
        ),
        (
            "{\"command\":\"token\",\"user\":\"bob\",\"expires_secs\":-1}\n",
            "expected u64",
        ),
        (&too_long, "at most 65536 bytes"),
    ] {
        let answer = ask(dir.path(), request);
        assert!(answer.starts_with("{\"ok\":false,"), "{answer}");
        assert!(answer.contains(expected), "{expected}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_is_in_the_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_store, _control) = start(dir.path());
    let request = "{\"command\":\"token\",\"user\":\"bob\",\"expires_secs\":60}\n";
    let answer = ask(dir.path(), request);
    assert_eq!(answer, "{\"ok\":true,\"token\":\"bob's for 60s\"}\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_may_ask_twice_and_a_target_is_used_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, target) = (dir.path().join("store"), dir.path().join("copy"));
    let (_store, _control) = start(&path);
    let request = format!("{{\"command\":\"backup\",\"target\":{target:?}}}\n");
    let mut stream = connect(&path).expect("it listens");
    stream
        .write_all(format!("{request}{request}").as_bytes())
        .expect("it reads");
    let mut lines = BufReader::new(stream).lines();
    let mut next = || lines.next().expect("it answers").expect("it answers");
    assert_eq!(next(), "{\"ok\":true}");
    let refused = next();
    assert!(refused.contains("is not empty"), "{refused}");
    assert!(
        store::admin::check(&target)
            .expect("it is a store")
            .is_sound()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_socket_is_private_and_goes_with_the_broker() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join(SOCKET);
    // Left over from a broker that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("it binds"));
    let (store, control) = start(dir.path());
    let mode = fs::metadata(&socket)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(control);
    assert!(!socket.exists());
    let refused = connect(dir.path()).map(drop).expect_err("nobody listens");
    assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    store.close().expect("it closes");
}

/// A path that is too long for a socket's name, and not for a file's.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_path_of_the_store_may_be_long() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("long".repeat(40));
    let (_store, control) = start(&path);
    assert!(path.join(SOCKET).exists());
    let answer = ask(&path, "{\"command\":\"dance\"}\n");
    assert!(answer.contains("unknown command"), "{answer}");
    drop(control);
    assert!(!path.join(SOCKET).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_client_too_many_is_told_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_store, _control) = start(dir.path());
    // Each is known to be served: it has an answer.
    let served: Vec<BlockingStream> = (0..CLIENTS_MAX)
        .map(|_| {
            let mut stream = connect(dir.path()).expect("it listens");
            stream.write_all(b"x\n").expect("it reads");
            read(stream.try_clone().expect("it is open"));
            stream
        })
        .collect();
    let refused = read(connect(dir.path()).expect("it listens"));
    assert!(refused.contains("too many connections"), "{refused}");
    drop(served);
}

#[tokio::test]
async fn who_asks_nothing_is_sent_away() {
    tokio::time::pause();
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let served = Arc::new(Served {
        store: Weak::<store::MemoryStore>::new(),
        backup: Mutex::new(()),
        issue: issue(),
    });
    // Time passes by itself when nothing else can happen.
    serve(theirs, served).await;
    let mut answer = Vec::new();
    let mut ours = ours;
    ours.read_to_end(&mut answer).await.expect("it was closed");
    let answer = String::from_utf8(answer).expect("it is text");
    assert!(
        answer.contains("no request came for 10 seconds"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_store_in_memory_has_no_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = format!(
        "store = {{ path = {:?}, durability = \"memory\" }}",
        dir.path()
    );
    let config = Config::from_toml(&text).unwrap_or_else(|problems| panic!("{problems}"));
    let (store, _) = store::open(&config.store).expect("it opens");
    assert!(Control::start(&config.store, &store, issue()).is_none());
    assert_eq!(
        fs::read_dir(dir.path()).expect("it can be listed").count(),
        0
    );
}

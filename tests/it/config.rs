//! The real binary: its command line, its configuration from all sources, and what it says when
//! that is wrong.

use std::net::TcpListener;

use tempfile::TempDir;

use crate::harness::process::{run, run_with_input};
use crate::harness::*;

fn write(directory: &TempDir, name: &str, text: &str) -> String {
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("a file in a temporary directory");
    path.to_str().expect("a path of UTF-8").to_owned()
}

/// Port 0 works, and the ready line says which one it became.
#[tokio::test]
async fn port_0_works_and_the_ready_line_tells_it() {
    let broker = ProcessBroker::start(&[]);
    assert_ne!(broker.address().port(), 0);
    let mut client = broker.connect(Connect::v5("a")).await;
    client.subscribe_to("t", 1).await;
    client.publish_text("t", "x", 1).await;
    client.receive_exactly("t", "x").await;
}

/// Several listeners are all in the ready line, and all serve.
#[tokio::test]
async fn several_listeners() {
    let broker = ProcessBroker::start_raw(
        scratch(),
        &["--set", r#"mqtt.listen=["127.0.0.1:0", "127.0.0.1:0"]"#],
        &[],
    );
    let addresses: Vec<std::net::SocketAddr> = broker
        .field("mqtt")
        .split(',')
        .map(|address| address.parse().expect("an address"))
        .collect();
    assert_eq!(addresses.len(), 2);
    let mut first = Client::connect(addresses[0], Connect::v5("a")).await;
    let mut second = Client::connect(addresses[1], Connect::v5("b")).await;
    first.subscribe_to("t", 1).await;
    second.publish_text("t", "x", 1).await;
    first.receive_exactly("t", "x").await;
}

/// `serve` is the default command and may be written.
#[tokio::test]
async fn serve_is_the_default_command() {
    let broker = ProcessBroker::start_raw(
        scratch(),
        &["serve", "--set", "mqtt.listen=127.0.0.1:0"],
        &[],
    );
    broker.connect(Connect::v311("a")).await;
}

/// The environment sets what the file leaves, and `--set` wins over both.
#[tokio::test]
async fn the_sources_of_configuration_and_their_order() {
    let directory = scratch();
    let file = write(
        &directory,
        "broker.toml",
        "[mqtt]\nlisten = '127.0.0.1:0'\nreceive_maximum = 11\ntopic_alias_maximum = 11\nmax_packet_size = 5000\n",
    );
    let broker = ProcessBroker::start_raw(
        directory,
        &["--config", &file, "--set", "mqtt.max_packet_size=7000"],
        &[
            ("TIDINGS_MQTT_TOPIC_ALIAS_MAXIMUM", "12"),
            ("TIDINGS_MQTT_MAX_PACKET_SIZE", "6000"),
        ],
    );
    let client = broker.connect(Connect::v5("a")).await;
    let properties = &client.connack.properties;
    assert_eq!(
        property!(properties, ReceiveMaximum),
        Some(11),
        "from the file"
    );
    assert_eq!(
        property!(properties, TopicAliasMaximum),
        Some(12),
        "from the environment"
    );
    assert_eq!(
        property!(properties, MaximumPacketSize),
        Some(7000),
        "from the command line"
    );
}

/// The environment variable that scripts rely on.
#[tokio::test]
async fn the_listen_address_from_the_environment() {
    let broker =
        ProcessBroker::start_raw(scratch(), &[], &[("TIDINGS_MQTT_LISTEN", "127.0.0.1:0")]);
    broker.connect(Connect::v5("a")).await;
}

/// All problems are reported at once, each with its place and what was expected, and nothing is
/// bound.
#[test]
fn a_bad_configuration_reports_everything_and_binds_nothing() {
    let directory = scratch();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let file = write(
        &directory,
        "broker.toml",
        &format!(
            "[mqtt]\nlisten = '{address}'\nmax_qos = 7\nrecieve_maximum = 5\n\n[limits]\nqueue_full = 'explode'\nsessions_max = 'many'\n\n[nonsense]\nx = 1\n"
        ),
    );
    let finished = run(
        &directory,
        &["--config", &file, "--set", "sys.interval=soon"],
        &[("TIDINGS_MQTT_MAX_QOS_X", "1")],
    );
    assert!(!finished.status.success());
    for part in [
        "max_qos",
        "recieve_maximum",
        "queue_full",
        "explode",
        "sessions_max",
        "nonsense",
        "sys.interval",
        "soon",
        "MAX_QOS_X",
    ] {
        assert!(
            finished.stderr.contains(part),
            "{part} is not mentioned:\n{}",
            finished.stderr
        );
    }
    // Line 3 of the file is the QoS, and the values that it may have are named.
    assert!(
        finished.stderr.contains("broker.toml:3"),
        "no line number:\n{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("drop_oldest"),
        "not what was expected:\n{}",
        finished.stderr
    );
    assert!(!finished.stderr.contains("ready"), "{}", finished.stderr);
    TcpListener::bind(address).expect("the port is still free");
}

/// A file that does not parse, and one that is not there.
#[test]
fn an_unreadable_configuration_is_refused() {
    let directory = scratch();
    let file = write(&directory, "broker.toml", "[mqtt\nlisten = ");
    let finished = run(&directory, &["--config", &file], &[]);
    assert!(!finished.status.success());
    assert!(
        finished.stderr.contains("broker.toml:1"),
        "{}",
        finished.stderr
    );
    let finished = run(&directory, &["--config", "/nonexistent/broker.toml"], &[]);
    assert!(!finished.status.success());
    assert!(
        finished.stderr.contains("/nonexistent/broker.toml"),
        "{}",
        finished.stderr
    );
}

/// A port that is taken is an error that names it.
#[test]
fn a_taken_port_is_an_error() {
    let directory = scratch();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let finished = run(
        &directory,
        &["--set", &format!("mqtt.listen={address}")],
        &[],
    );
    assert!(!finished.status.success());
    assert!(finished.stderr.contains(&address), "{}", finished.stderr);
}

/// Without users the broker listens on loopback only, unless anonymous access is configured in so
/// many words.
#[tokio::test]
async fn beyond_loopback_authentication_is_required() {
    let directory = scratch();
    let finished = run(&directory, &["--set", "mqtt.listen=0.0.0.0:0"], &[]);
    assert!(!finished.status.success());
    assert!(
        finished.stderr.contains("allow_anonymous"),
        "says what would allow it:\n{}",
        finished.stderr
    );
    let open = [
        "--set",
        "mqtt.listen=0.0.0.0:0",
        "--set",
        "access.allow_anonymous=true",
    ];
    ProcessBroker::start_raw(directory, &open, &[]);
}

/// A password file that is missing or damaged keeps the broker from starting; it never means that
/// all are allowed.
#[test]
fn a_bad_password_file_refuses_to_start() {
    let directory = scratch();
    let broken = write(&directory, "broken", "alice:plaintext\n");
    let missing = "/nonexistent/users".to_owned();
    for file in [broken, missing] {
        let finished = run(
            &directory,
            &[
                "--set",
                "mqtt.listen=127.0.0.1:0",
                "--set",
                &format!("access.password_file={file}"),
            ],
            &[],
        );
        assert!(!finished.status.success());
        assert!(finished.stderr.contains(&file), "{}", finished.stderr);
        assert!(
            !finished.stderr.contains("plaintext"),
            "what may be a password is not repeated:\n{}",
            finished.stderr
        );
    }
}

/// `check` says whether a configuration is good, without starting anything.
#[test]
fn check_judges_a_configuration() {
    let directory = scratch();
    let good = write(&directory, "good.toml", "[mqtt]\nlisten = '127.0.0.1:0'\n");
    let bad = write(&directory, "bad.toml", "[mqtt]\nlisten = 5\nmax_qos = 9\n");
    assert!(
        run(&directory, &["check", "--config", &good], &[])
            .status
            .success()
    );
    let finished = run(&directory, &["check", "--config", &bad], &[]);
    assert!(!finished.status.success());
    let said = finished.stdout + &finished.stderr;
    assert!(
        said.contains("listen") && said.contains("max_qos"),
        "{said}"
    );
}

/// Unknown arguments are refused with a word of help, and `--help` and `--version` work.
#[test]
fn the_command_line_explains_itself() {
    let directory = scratch();
    assert!(!run(&directory, &["--frobnicate"], &[]).status.success());
    let help = run(&directory, &["--help"], &[]);
    assert!(help.status.success());
    for word in ["--config", "--set", "passwd", "check"] {
        assert!(
            help.stdout.contains(word),
            "{word} is not in:\n{}",
            help.stdout
        );
    }
    let version = run(&directory, &["--version"], &[]);
    assert!(
        version.stdout.contains(env!("CARGO_PKG_VERSION")),
        "{}",
        version.stdout
    );
}

/// `passwd` makes users that can log in, by password and by SCRAM, and changes their password.
#[tokio::test]
async fn passwd_makes_users() {
    let directory = scratch();
    let users = directory
        .path()
        .join("users")
        .to_str()
        .expect("a path of UTF-8")
        .to_owned();
    for (name, password) in [
        ("alice", "first"),
        ("bob", "builder"),
        ("alice", "wonderland"),
    ] {
        let finished = run_with_input(
            &directory,
            &["passwd", &users, name],
            &[],
            &format!("{password}\n"),
        );
        assert!(
            finished.status.success(),
            "{}\n{}",
            finished.stdout,
            finished.stderr
        );
    }
    let text = std::fs::read_to_string(&users).expect("the file is there");
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("alice:"))
            .count(),
        1,
        "replaced, not added:\n{text}"
    );
    assert!(!text.contains("wonderland"), "{text}");
    let setting = format!("access.password_file={users}");
    let broker = ProcessBroker::start_raw(
        directory,
        &["--set", "mqtt.listen=127.0.0.1:0", "--set", &setting],
        &[],
    );
    broker
        .connect(Connect::v5("a").username("alice").password("wonderland"))
        .await;
    broker
        .connect(Connect::v311("b").username("bob").password("builder"))
        .await;
    let (mut client, connack) = Client::attempt(
        broker.address(),
        Connect::v5("c").username("alice").password("first"),
    )
    .await;
    assert_eq!(connack.reason, Reason::BAD_USER_NAME_OR_PASSWORD);
    client.expect_closed().await;
}

/// A mistake of a client is logged with its Client Identifier, its address and the clause.
#[tokio::test]
async fn a_clients_mistake_is_logged_with_client_address_and_clause() {
    let broker = ProcessBroker::start(&["log.level=debug"]);
    let mut client = broker.connect(Connect::v5("careless")).await;
    client.send(Publish::new("a/#", "x")).await;
    client.expect_disconnect(Reason::MALFORMED_PACKET).await;
    broker.expect_log(&["careless", "127.0.0.1", "MQTT-3.3.2-2"]);
}

/// Log lines can be JSON, the ready line among them.
#[test]
fn logs_can_be_json() {
    let directory = scratch();
    let finished = run(
        &directory,
        &[
            "--set",
            "log.format=json",
            "--set",
            "mqtt.listen=192.0.2.1:1",
            "--set",
            "access.allow_anonymous=true",
        ],
        &[],
    );
    assert!(!finished.status.success());
    for line in finished.stderr.lines().filter(|line| line.starts_with('{')) {
        assert!(line.ends_with('}'), "{line}");
    }
}

//! The command line, and the commands that talk to a broker.

use super::*;

fn task(arguments: &[&str]) -> Result<Task, clap::Error> {
    let arguments = std::iter::once(&"tidings").chain(arguments);
    CommandLine::try_parse_from(arguments)?.task()
}

#[test]
fn the_command_line_is_well_formed() {
    use clap::CommandFactory;
    CommandLine::command().debug_assert();
}

#[test]
fn options_before_and_after_the_command_add_up() {
    let check = |arguments: &[&str], config: Option<&str>, set: &[&str]| match task(arguments) {
        Ok(Task::Serve(options) | Task::Check(options)) => {
            assert_eq!(
                options.config.as_deref(),
                config.map(Path::new),
                "{arguments:?}"
            );
            assert_eq!(options.set, set, "{arguments:?}");
        }
        other => panic!("{arguments:?}: {other:?}"),
    };
    check(&[], None, &[]);
    check(&["--set", "a=1", "--set", "b=2"], None, &["a=1", "b=2"]);
    check(
        &["serve", "--config", "f", "--set=a=1"],
        Some("f"),
        &["a=1"],
    );
    check(
        &["--set", "a=1", "--config", "f", "serve", "--set", "b=2"],
        Some("f"),
        &["a=1", "b=2"],
    );
    check(&["--config", "f", "check", "--config", "g"], Some("g"), &[]);
}

#[test]
fn what_has_no_meaning_is_refused() {
    for arguments in [
        &["--set", "a=1", "passwd", "f", "u"][..],
        &["--config", "f", "config"],
        &["passwd", "f"],
        &["passwd", "f", "u", "--batch"],
        &["passwd", "f", "u", "--delete", "--stdin"],
        &[
            "passwd",
            "f",
            "u",
            "--no-scram",
            "--scram-iterations",
            "5000",
        ],
        &["passwd", "f", "u", "--scram-iterations", "1"],
        &["token"],
        &["token", "--user", "bob", "--expires", "1"],
        &["token", "--user", "bob", "--expires", "1500ms"],
        &["start"],
    ] {
        assert!(task(arguments).is_err(), "{arguments:?}");
    }
}

async fn broker(settings: &str) -> (tidings::Server, String) {
    let settings = format!(
        "mqtt.listen = \"127.0.0.1:0\"\nhttp.listen = \"\"\nstore.durability = \"memory\"\n{settings}"
    );
    let config = Config::from_toml(&settings).unwrap_or_else(|problems| panic!("{problems}"));
    let server = tidings::Server::start(config).await.unwrap();
    let address = server.addresses().mqtt[0].to_string();
    (server, address)
}

async fn publish(arguments: &[&str]) -> anyhow::Result<()> {
    match task(&[&["pub"], arguments].concat()).unwrap() {
        Task::Publish(options) => publish::run(&options).await,
        other => panic!("{other:?}"),
    }
}

async fn subscribe(arguments: &[&str]) -> anyhow::Result<String> {
    let Ok(Task::Subscribe(options)) = task(&[&["sub"], arguments].concat()) else {
        panic!("{arguments:?}")
    };
    let mut out = Vec::new();
    let run = subscribe::run(&options, &mut out, std::future::pending::<()>());
    tokio::time::timeout(std::time::Duration::from_secs(20), run)
        .await
        .expect("in time")?;
    Ok(String::from_utf8(out)?)
}

#[tokio::test]
async fn what_is_published_is_received() {
    let (server, address) = broker("").await;
    for version in ["3.1", "3.1.1", "5"] {
        for qos in ["0", "1", "2"] {
            let common = ["-b", &address, "-V", version, "-q", qos];
            for (topic, message) in [("a/1", "one"), ("a/2", "t w o")] {
                publish(&[&common[..], &["-r", "-t", topic, "-m", message]].concat())
                    .await
                    .unwrap();
            }
            let out =
                subscribe(&[&common[..], &["-v", "-t", "a/1", "-t", "a/2", "-n", "2"]].concat())
                    .await;
            let out = out.unwrap();
            let mut lines: Vec<&str> = out.lines().collect();
            lines.sort_unstable();
            assert_eq!(
                lines,
                ["a/1 one", "a/2 t w o"],
                "version {version}, QoS {qos}"
            );
            // A count is kept, whatever else is there.
            let out = subscribe(&[&common[..], &["-t", "a/#", "-n", "1"]].concat())
                .await
                .unwrap();
            assert_eq!(out.lines().count(), 1);
            publish(&[&common[..], &["-r", "-t", "a/2", "-m", ""]].concat())
                .await
                .unwrap();
        }
    }
    server.shutdown().await;
}

#[tokio::test]
async fn refusals_are_told_with_their_reason() {
    let (server, address) =
        broker("access.rule = [{ user = '*', allow = ['publish'], topics = 'a' }]").await;
    let error = publish(&["-b", &address, "-t", "b", "-m", "x"])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("the message is refused: Not authorized"),
        "{error}"
    );
    let error = subscribe(&["-b", &address, "-t", "b"])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("b is refused: Not authorized"), "{error}");
    publish(&["-b", &address, "-t", "a", "-m", "x"])
        .await
        .unwrap();
    server.shutdown().await;
    let error = publish(&["-b", &address, "-t", "a", "-m", "x"])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("cannot connect to 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn topics_that_are_none_are_refused_before_anything_is_sent() {
    assert!(
        publish(&["-b", "127.0.0.1:1", "-t", "a/#", "-m", ""])
            .await
            .unwrap_err()
            .to_string()
            .contains("wildcards")
    );
    assert!(
        subscribe(&["-b", "127.0.0.1:1", "-t", "a/#/b"])
            .await
            .unwrap_err()
            .to_string()
            .contains("a/#/b")
    );
}

#[tokio::test]
async fn a_subscriber_that_is_stopped_leaves_in_good_order() {
    let (server, address) = broker("").await;
    let Ok(Task::Subscribe(options)) = task(&["sub", "-b", &address, "-t", "a"]) else {
        panic!()
    };
    let stop = tokio::time::sleep(std::time::Duration::from_millis(50));
    let mut out = Vec::new();
    subscribe::run(&options, &mut out, stop).await.unwrap();
    assert!(out.is_empty());
    server.shutdown().await;
}

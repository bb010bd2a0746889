//! What is said about wrong configurations, to the letter, and how the layers lie.

use std::time::Duration;

use super::*;

/// Loads `text` as `broker.toml`, and compares what is wrong with it.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    check_sources(Sources::new().file("broker.toml", text), expected);
}

#[track_caller]
fn check_sources(sources: Sources, expected: &[&str]) {
    let problems = match Config::load(&sources) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    };
    assert_eq!(problems, expected.join("\n"));
}

fn load(text: &str) -> Config {
    Config::from_toml(text).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_defaults_are_those_of_the_plan() {
    let config = Config::default();
    assert_eq!(config.mqtt.listen, ["127.0.0.1:1883".parse().unwrap()]);
    assert_eq!(config.mqtt.max_packet_size, 16 << 20);
    assert_eq!(
        config.mqtt.keep_alive_max,
        Some(Duration::from_secs(18 * 3600))
    );
    assert_eq!(
        config.mqtt.session_expiry_max,
        Duration::from_secs(30 * 24 * 3600)
    );
    assert_eq!(config.limits.connections_per_address_max, None);
    assert_eq!(config.limits.queue_full, QueueFull::DropNewest);
    assert_eq!(config.store.durability, Durability::Fsync);
    assert_eq!(config.access.password_file, None);
    assert!(config.access.anonymous_allowed() && config.access.unrestricted());
    let http: Vec<String> = config.http.listen.iter().map(ToString::to_string).collect();
    assert_eq!(http, ["127.0.0.1:8080"]);
    assert_eq!(config.http.cors_origins, [""; 0]);
    assert_eq!(config.http.hosts, [""; 0]);
    assert_eq!(config.warnings(), [""; 0]);
    // The repository's own file says what the defaults are, and changes none of them.
    assert_eq!(load(DEFAULTS), config);
}

#[test]
fn bodies_fit_into_packets_and_into_all_that_bodies_may_hold() {
    // What is in a body goes out in an MQTT packet, with a topic and properties beside it.
    assert_eq!(load("http.body_max = \"255MiB\"").http.body_max, 255 << 20);
    check(
        "http.body_max = \"256MiB\"",
        &[
            "broker.toml:1:17: http.body_max: found \"256MiB\", expected a size from 1 to 255MiB, such as \"16MiB\"",
        ],
    );
    let lowered = load("http.bodies_max = \"1MiB\"").http;
    assert_eq!((lowered.body_max, lowered.bodies_max), (1 << 20, 1 << 20));
    check(
        "http.bodies_max = \"1MiB\"\nhttp.body_max = \"2MiB\"",
        &[
            "broker.toml:2:17: http.body_max: 2097152 bytes is more than http.bodies_max, which is 1048576",
        ],
    );
}

#[test]
fn a_login_is_no_longer_than_a_token() {
    assert_eq!(
        Config::default().http.login_expires,
        Duration::from_secs(12 * 3600)
    );
    let lowered = load("access.token_expires_max = \"1h\"").http;
    assert_eq!(lowered.login_expires, Duration::from_secs(3600));
    check(
        "access.token_expires_max = \"1h\"\nhttp.login_expires = \"2h\"",
        &[
            "broker.toml:2:22: http.login_expires: 2h is more than access.token_expires_max, which is 1h",
        ],
    );
}

#[test]
fn an_empty_file_changes_nothing() {
    for text in ["", "\n", "# only a comment", "[mqtt]\n[access]\n"] {
        assert_eq!(load(text), Config::default(), "{text:?}");
    }
}

#[test]
fn unknown_names_are_refused_with_the_nearest_known_one() {
    check(
        "[mqtt]\nlisen = \"127.0.0.1:1883\"\n",
        &["broker.toml:2:1: unknown setting mqtt.lisen; did you mean mqtt.listen?"],
    );
    check(
        "[mqtt]\n  path = \"x\"\n",
        &["broker.toml:2:3: unknown setting mqtt.path; did you mean store.path?"],
    );
    check(
        "[mqtt]\nwebsocket = true\n",
        &["broker.toml:2:1: unknown setting mqtt.websocket"],
    );
    check(
        "[mqtts]\nlisten = \"x\"\nlistn = 1\n",
        &["broker.toml:1:2: unknown setting mqtts; did you mean mqtt?"],
    );
    check("[tls]\n", &["broker.toml:1:2: unknown setting tls"]);
    check(
        "listen = \"127.0.0.1:1883\"\n",
        &["broker.toml:1:1: unknown setting listen"],
    );
    check(
        "mqtt.max_qoss = 1\n",
        &["broker.toml:1:6: unknown setting mqtt.max_qoss; did you mean mqtt.max_qos?"],
    );
}

#[test]
fn wrong_types_and_ranges_are_refused() {
    check(
        "mqtt = 1\n",
        &["broker.toml:1:1: mqtt: found 1, expected a section: [mqtt]"],
    );
    check(
        "[mqtt]\nmax_qos = 3\n",
        &["broker.toml:2:11: mqtt.max_qos: found 3, expected a whole number from 0 to 2"],
    );
    check(
        "[mqtt]\nmax_qos = \"2\"\n",
        &["broker.toml:2:11: mqtt.max_qos: found \"2\", expected a whole number from 0 to 2"],
    );
    check(
        "[mqtt]\nmax_qos = -1\n",
        &["broker.toml:2:11: mqtt.max_qos: found -1, expected a whole number from 0 to 2"],
    );
    check(
        "[mqtt]\nmax_qos = 1.0\n",
        &["broker.toml:2:11: mqtt.max_qos: found 1.0, expected a whole number from 0 to 2"],
    );
    check(
        "[mqtt]\nreceive_maximum = 0\n",
        &[
            "broker.toml:2:19: mqtt.receive_maximum: found 0, expected a whole number from 1 to 65535",
        ],
    );
    check(
        "[limits]\nsessions_max = 99999999999999999999\n",
        &[
            "broker.toml:2:16: limits.sessions_max: found 99999999999999999999, expected a whole number from 1 to 4294967295",
        ],
    );
    check(
        "[mqtt]\nretain_available = \"yes\"\n",
        &["broker.toml:2:20: mqtt.retain_available: found \"yes\", expected true or false"],
    );
    check(
        "[mqtt]\nconnect_timeout = 10\n",
        &[
            "broker.toml:2:19: mqtt.connect_timeout: found 10, expected a duration from 1ms to 1h, such as \"10s\"",
        ],
    );
    check(
        "[mqtt]\nkeep_alive_max = \"1d\"\n",
        &[
            "broker.toml:2:18: mqtt.keep_alive_max: found \"1d\", expected \"0s\" or a duration from 1s to 65535s, such as \"10s\"",
        ],
    );
    check(
        "[mqtt]\nmax_packet_size = \"16MB\"\n",
        &[
            "broker.toml:2:19: mqtt.max_packet_size: found \"16MB\", expected a size from 64 to 268435460, such as \"16MiB\"",
        ],
    );
    check(
        "[limits]\nqueue_full = \"drop\"\n",
        &[
            "broker.toml:2:14: limits.queue_full: found \"drop\", expected \"drop_newest\", \"drop_oldest\" or \"disconnect\"",
        ],
    );
    check(
        "[store]\ndurability = 1979-05-27\n",
        &[
            "broker.toml:2:14: store.durability: found 1979-05-27, expected \"fsync\", \"interval\" or \"memory\"",
        ],
    );
    check(
        "[log]\nlevel = \"inof\"\n",
        &[
            "broker.toml:2:9: log.level: found \"inof\", expected \"error\", \"warn\", \"info\", \"debug\", \"trace\" or \"off\", \
           or a list such as \"info,tidings::access=debug\"",
        ],
    );
    check(
        "[store]\npath = \"\"\n",
        &["broker.toml:2:8: store.path: found \"\", expected the path of a directory"],
    );
    check(
        "[mqtt]\nmax_qos = { a = 1 }\n",
        &["broker.toml:2:11: mqtt.max_qos: found a table, expected a whole number from 0 to 2"],
    );
}

const LISTEN: &str =
    "expected \"host:port\", such as \"127.0.0.1:1883\" or \"[::1]:1883\", or an array of them";

#[test]
fn listen_addresses_are_judged_one_by_one() {
    let config = load("[mqtt]\nlisten = [\"127.0.0.1:0\", \"[::1]:1883\", \"localhost:1884\"]\n");
    assert_eq!(config.mqtt.listen.len(), 3);
    check(
        "[mqtt]\nlisten = [\"127.0.0.1\", \"[::1]:1883\", 5]\n",
        &[
            &format!("broker.toml:2:11: mqtt.listen: found \"127.0.0.1\", {LISTEN}"),
            &format!("broker.toml:2:38: mqtt.listen: found 5, {LISTEN}"),
        ],
    );
    check(
        "[mqtt]\nlisten = []\n",
        &[&format!(
            "broker.toml:2:10: mqtt.listen: found an empty list, {LISTEN}"
        )],
    );
    check(
        "[mqtt]\nlisten = 1883\n",
        &[&format!(
            "broker.toml:2:10: mqtt.listen: found 1883, {LISTEN}"
        )],
    );
    check(
        "[mqtt]\nlisten = [\"[::1]:1883\", \"[::1]:1883\"]\n",
        &["broker.toml:2:25: mqtt.listen: [::1]:1883 is listed twice"],
    );
    // Port 0 is another port each time.
    load("[mqtt]\nlisten = [\"[::1]:0\", \"[::1]:0\"]\n");
}

#[test]
fn the_network_is_let_in_only_in_so_many_words() {
    let refused = |at: &str, address: &str| {
        format!(
            "{at}: mqtt.listen: {address} can be reached from other machines, and there are no users: name them with \
             access.password_file (`tidings passwd` writes one), or let everyone in with access.allow_anonymous = true"
        )
    };
    check(
        "[mqtt]\nlisten = \"0.0.0.0:1883\"\n",
        &[&refused("broker.toml:2:10", "0.0.0.0:1883")],
    );
    check(
        "[mqtt]\nlisten = [\"127.0.0.1:1883\", \"example.org:1883\", \"[::]:1883\"]\n",
        &[
            &refused("broker.toml:2:29", "example.org:1883"),
            &refused("broker.toml:2:49", "[::]:1883"),
        ],
    );
    // Rules without users do not make it safe: nobody has to say who they are.
    check(
        "[mqtt]\nlisten = \"0.0.0.0:1883\"\n[[access.rule]]\nuser = \"*\"\nallow = \"publish\"\ntopics = \"#\"\n",
        &[&refused("broker.toml:2:10", "0.0.0.0:1883")],
    );
    check_sources(
        Sources::new().environment([("TIDINGS_MQTT_LISTEN", "0.0.0.0:1883")]),
        &[&refused("environment TIDINGS_MQTT_LISTEN", "0.0.0.0:1883")],
    );
    load("[mqtt]\nlisten = \"0.0.0.0:1883\"\n[access]\nallow_anonymous = true\n");
    load("[mqtt]\nlisten = \"0.0.0.0:1883\"\n[access]\npassword_file = \"passwd\"\n");
}

#[test]
fn rules_are_read_and_judged() {
    let config = load(
        "[access]\npassword_file = \"p\"\n\
         [[access.rule]]\nuser = \"anonymous\"\ndeny = [\"receive\", \"publish\"]\ntopics = \"a/#\"\n\
         [[access.rule]]\nuser = \"bob\"\nallow = \"subscribe\"\ntopics = [\"b/%u/+\", \"%c\"]\n",
    );
    let template = |text| Template::parse(text).unwrap();
    assert_eq!(
        config.access.rules,
        [
            Rule {
                subject: Subject::Anonymous,
                effect: Effect::Deny,
                actions: vec![Action::Receive, Action::Publish],
                topics: vec![template("a/#")],
            },
            Rule {
                subject: Subject::User("bob".to_owned()),
                effect: Effect::Allow,
                actions: vec![Action::Subscribe],
                topics: vec![template("b/%u/+"), template("%c")],
            },
        ]
    );

    const TOPICS: &str = "expected Topic Filters, such as [\"devices/%u/#\"]";
    const ACTION: &str = "expected \"publish\", \"subscribe\" or \"receive\", or an array of them";
    const USER: &str = "expected a user's name, \"anonymous\", or \"*\" for everyone";
    check(
        "[[access.rule]]\n\n[[access.rule]]\nuser = 1\nallow = [\"read\", 2]\ndenny = []\ntopics = [\"a/#/b\", \"%x\", \"ok\", 3]\n",
        &[
            &format!("broker.toml:1:1: access.rule.user: found a rule without it, {USER}"),
            "broker.toml:1:1: access.rule: found a rule with neither allow nor deny, expected one of them, such as allow = [\"publish\"]",
            &format!("broker.toml:1:1: access.rule.topics: found a rule without it, {TOPICS}"),
            &format!("broker.toml:4:8: access.rule.user: found 1, {USER}"),
            &format!("broker.toml:5:10: access.rule.allow: found \"read\", {ACTION}"),
            &format!("broker.toml:5:18: access.rule.allow: found 2, {ACTION}"),
            "broker.toml:6:1: unknown setting access.rule.denny; did you mean deny?",
            &format!(
                "broker.toml:7:11: access.rule.topics: found \"a/#/b\" (the wildcard # must be the whole last level of a Topic Filter), {TOPICS}"
            ),
            &format!(
                "broker.toml:7:20: access.rule.topics: found \"%x\" (% is followed by u, c or another %), {TOPICS}"
            ),
            &format!("broker.toml:7:32: access.rule.topics: found 3, {TOPICS}"),
        ],
    );
    check(
        "[[access.rule]]\nuser = \"*\"\nallow = \"publish\"\ndeny = \"receive\"\ntopics = []\n",
        &[
            "broker.toml:4:1: access.rule: a rule either allows or denies; write a second rule for the other",
            &format!("broker.toml:5:10: access.rule.topics: found an empty list, {TOPICS}"),
        ],
    );
    check(
        "[[access.rule]]\nuser = \"*\"\nallow = \"subscribe\"\ntopics = \"$share/g/a\"\n",
        &[&format!(
            "broker.toml:4:10: access.rule.topics: found \"$share/g/a\" \
             (a rule names the filter of a shared subscription without $share and group), {TOPICS}"
        )],
    );
    check(
        "[[access.rule]]\nuser = \"bob\"\nallow = \"publish\"\ntopics = \"a\"\n",
        &[
            "broker.toml:2:8: access.rule.user: a rule for \"bob\", but there are no users: access.password_file is empty",
        ],
    );
    check(
        "[access]\nrule = 5\n",
        &["broker.toml:2:8: access.rule: found 5, expected tables: [[access.rule]]"],
    );
    check(
        "[access]\nrule = [5]\n",
        &["broker.toml:2:9: access.rule: found 5, expected tables: [[access.rule]]"],
    );
}

#[test]
fn rules_can_come_from_the_command_line() {
    let rule = "access.rule=[{user = \"*\", allow = [\"publish\"], topics = [\"a\"]}]";
    let config = Config::load(&Sources::new().set([rule])).unwrap();
    assert_eq!(config.access.rules.len(), 1);
    check_sources(
        Sources::new().set(["access.rule=allow everything"]),
        &[
            "--set access.rule: access.rule: found \"allow everything\", expected tables: [[access.rule]]",
        ],
    );
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    check(
        "[mqtt]\nmax_packet_size = \"1KiB\"\nconnect_packet_size_max = \"2KiB\"\n",
        &[
            "broker.toml:3:27: mqtt.connect_packet_size_max: 2048 bytes is more than mqtt.max_packet_size, which is 1024",
        ],
    );
    // The default gives way.
    assert_eq!(
        load("[mqtt]\nmax_packet_size = \"1KiB\"\n")
            .mqtt
            .connect_packet_size_max,
        1024
    );
}

#[test]
fn later_layers_win_and_each_is_judged() {
    let sources = Sources::new()
        .file(
            "broker.toml",
            "[mqtt]\nlisten = \"127.0.0.1:1\"\nmax_qos = 0\n[limits]\nsessions_max = 5\n",
        )
        .environment([
            ("TIDINGS_MQTT_LISTEN", "127.0.0.1:2"),
            ("TIDINGS_MQTT_MAX_QOS", "1"),
            ("HOME", "/"),
            ("TIDING", ""),
        ])
        .set([
            "mqtt.listen=127.0.0.1:3",
            "mqtt.listen=127.0.0.1:4, [::1]:4",
            "store.path='./a b'",
        ]);
    let config = Config::load(&sources).unwrap();
    assert_eq!(
        config.mqtt.listen,
        ["127.0.0.1:4".parse().unwrap(), "[::1]:4".parse().unwrap()]
    );
    assert_eq!(config.mqtt.max_qos, 1);
    assert_eq!(config.limits.sessions_max, 5);
    assert_eq!(config.store.path.to_str(), Some("./a b"));

    check_sources(
        Sources::new()
            .file("broker.toml", "[mqtt]\nmax_qos = 7\n")
            .environment([
                ("TIDINGS_MQTT_MAX_QOS", "8"),
                ("TIDINGS_MQTT_LISEN", ""),
                ("TIDINGS_", "x"),
            ])
            .set([
                "mqtt.max_qos=9",
                "mqtt.lisen=1",
                "listen",
                "mqtt.max_qos=1",
                "mqtt=5",
            ]),
        &[
            "broker.toml:2:11: mqtt.max_qos: found 7, expected a whole number from 0 to 2",
            "environment TIDINGS_: unknown setting TIDINGS_",
            "environment TIDINGS_MQTT_LISEN: unknown setting TIDINGS_MQTT_LISEN; did you mean TIDINGS_MQTT_LISTEN?",
            "environment TIDINGS_MQTT_MAX_QOS: mqtt.max_qos: found \"8\", expected a whole number from 0 to 2",
            "--set listen: found \"listen\", expected section.key=value, such as mqtt.listen=127.0.0.1:1883",
            "--set mqtt: unknown setting mqtt",
            "--set mqtt.lisen: unknown setting mqtt.lisen; did you mean mqtt.listen?",
            "--set mqtt.max_qos: mqtt.max_qos: found \"9\", expected a whole number from 0 to 2",
        ],
    );
}

#[test]
fn text_is_what_the_setting_takes_it_for() {
    let set =
        |arguments: &[&str]| Config::load(&Sources::new().set(arguments.iter().copied())).unwrap();
    assert_eq!(
        set(&["mqtt.max_packet_size=2MiB"]).mqtt.max_packet_size,
        2 << 20
    );
    assert_eq!(
        set(&["mqtt.max_packet_size= 4096 "]).mqtt.max_packet_size,
        4096
    );
    assert_eq!(
        set(&["mqtt.connect_timeout=250ms"]).mqtt.connect_timeout,
        Duration::from_millis(250)
    );
    assert_eq!(set(&["sys.interval=0s"]).sys.interval, None);
    assert_eq!(
        set(&["limits.connections_max=1_000"])
            .limits
            .connections_max,
        1000
    );
    assert!(!set(&["mqtt.retain_available=false"]).mqtt.retain_available);
    assert_eq!(
        set(&["mqtt.listen=[::1]:1883"]).mqtt.listen,
        ["[::1]:1883".parse().unwrap()]
    );
    assert_eq!(
        set(&["mqtt.listen=[\"[::1]:1883\"]"]).mqtt.listen,
        ["[::1]:1883".parse().unwrap()]
    );
    assert_eq!(
        set(&["mqtt.listen=\"[::1]:1883\""]).mqtt.listen,
        ["[::1]:1883".parse().unwrap()]
    );
    assert_eq!(set(&["access.password_file="]).access.password_file, None);
    assert_eq!(
        set(&["store.durability=memory"]).store.durability,
        Durability::Memory
    );
}

#[test]
fn mistakes_of_syntax_are_reported_with_the_rest() {
    check(
        "[mqtt]\nlisten = \"127.0.0.1:1883\nmax_qos = 3\n[mqtt]\nmax_qos = 1\n",
        &[
            "broker.toml:2:25: invalid basic string, expected `\"`",
            "broker.toml:3:11: mqtt.max_qos: found 3, expected a whole number from 0 to 2",
            "broker.toml:4:2: duplicate key",
            "broker.toml:5:1: duplicate key",
        ],
    );
    check(
        "[mqtt\n",
        &["broker.toml:1:6: unclosed table, expected `]`"],
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_unicode_is_reported() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(vec![0xff]);
    check_sources(
        Sources::new().environment([("TIDINGS_STORE_PATH", value)]),
        &["environment TIDINGS_STORE_PATH: the value is not UTF-8"],
    );
}

#[test]
fn what_is_hardly_meant_is_warned_about() {
    let check = |text, expected: &[&str]| assert_eq!(load(text).warnings(), expected);
    check(
        "[access]\npassword_file = \"p\"\n",
        &[
            "access.password_file is set, but there is no [[access.rule]]: users can connect, and may neither publish nor subscribe",
        ],
    );
    check(
        "[access]\npassword_file = \"p\"\n[[access.rule]]\nuser = \"anonymous\"\nallow = \"publish\"\ntopics = \"a\"\n",
        &[
            "there is a rule for anonymous clients, but none are let in: access.allow_anonymous is false",
        ],
    );
}

#[test]
fn streams_are_read_with_defaults_and_all_their_problems_are_told() {
    let config = Config::from_toml(
        "[[stream]]\nname = \"orders\"\nfilters = [\"orders/#\", \"a\"]\nmax_age = \"2h\"\n\
         [[stream]]\nname = \"all\"\nfilters = \"#\"\nqos0 = false\nmax_bytes = \"1MiB\"\nmax_messages = 7\n",
    )
    .expect("two good streams");
    let [orders, all] = &config.streams[..] else {
        panic!("{:?}", config.streams)
    };
    assert_eq!(orders.filters, ["a", "orders/#"]);
    assert_eq!(
        (orders.qos0, orders.max_age),
        (true, Duration::from_secs(7200))
    );
    assert_eq!(
        (orders.max_bytes, orders.max_messages),
        (1 << 30, 1_000_000)
    );
    assert_eq!(
        (all.qos0, all.max_bytes, all.max_messages),
        (false, 1 << 20, 7)
    );

    for (text, expected) in [
        ("name = \"a b\"\nfilters = \"x\"", "letters, digits"),
        ("filters = \"x\"", "a stream without it"),
        ("name = \"a\"", "a stream without it"),
        ("name = \"a\"\nfilters = []", "an empty list"),
        ("name = \"a\"\nfilters = \"a/#/b\"", "stream.filters"),
        ("name = \"a\"\nfilters = \"$share/g/x\"", "cannot share"),
        ("name = \"a\"\nfilters = \"$SYS/#\"", "under $"),
        (
            "name = \"a\"\nfilters = \"x\"\nmax_age = \"1ms\"",
            "a duration from 1s",
        ),
        (
            "name = \"a\"\nfilters = \"x\"\nmax_mesages = 1",
            "max_messages",
        ),
        (
            "name = \"a\"\nfilters = \"x\"\n[[stream]]\nname = \"a\"\nfilters = \"y\"",
            "two streams",
        ),
    ] {
        let problems = Config::from_toml(&format!("[[stream]]\n{text}\n")).expect_err(text);
        let told = problems.to_string();
        assert!(told.contains(expected), "{text}: {told}");
    }
}

//! In the middle of a rotation: it is made or it is not, and whoever was shown a secret can verify
//! with it what is sent.

use tidings_protocol::time::parse_rfc3339;
use tidings_protocol::webhook::PublicKey;

use super::*;

/// Old secrets that sign beside the present one at most.
const OLD_MAX: usize = 3;

fn text(shown: &Value, name: &str) -> String {
    let text = shown[name].as_str();
    text.unwrap_or_else(|| panic!("no {name}: {shown}"))
        .to_owned()
}

fn timestamp(request: &Request) -> u64 {
    let seconds = request.header("webhook-timestamp");
    seconds.parse().expect("seconds")
}

/// The `v1` signatures, that of the present secret first.
fn signatures(request: &Request) -> Vec<&str> {
    let all = request.header("webhook-signature").split(' ');
    all.filter(|it| it.starts_with("v1,")).collect()
}

fn is_signature(request: &Request, secret: &str, signature: &str) -> bool {
    let secret: Secret = secret.parse().expect("a secret");
    let id = request.header("webhook-id");
    secret.verify_v1(id, timestamp(request), &request.body, signature)
}

/// Whether a secret verifies a request.
fn verifies(request: &Request, secret: &str) -> bool {
    is_signature(request, secret, request.header("webhook-signature"))
}

/// Publishes a number and answers the request with it. Everything that arrives until then is given
/// to `each`.
async fn sent(
    broker: &ProcessBroker,
    receiver: &mut Receiver,
    marker: u32,
    mut each: impl FnMut(&Request),
) -> Request {
    publish_all(broker, "t", marker..marker + 1).await;
    loop {
        let request = receiver.request().await;
        each(&request);
        if number(&request) == marker {
            return request;
        }
    }
}

/// The last secret that was shown verifies everything, whether or not somebody was rotating it when
/// the broker was killed; and one whose rotation was answered signs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_is_made_or_it_is_not() {
    let mut killer = Killer::new(61);
    let mut receiver = Receiver::start().await;
    let mut broker = process(LOCAL);
    let fields = json!({"url": receiver.url(), "topics": ["t"], "signature_v1a": true});
    let (path, made) = register(&broker, fields).await;
    let rotate = format!("{path}/rotate-secret");
    let mut current = text(&made, "secret");
    let mut signing = 1;
    let mut unseen = 0;
    let (mut next, mut acknowledged, mut delivered) = (0, Vec::new(), Vec::new());
    for round in rounds(8) {
        let live = publish_until_killed(&broker, "t", next, 1_000).await;
        next += 1_000;
        let rotation = ("POST", rotate.clone(), Value::Null);
        // One more that nobody sees, and the last that was shown would have to go.
        let answer = match unseen + 1 == OLD_MAX {
            true => killer.once_answered(&mut broker, rotation).await,
            false => killer.while_asked(&mut broker, rotation).await,
        };
        acknowledged.extend(live.await.expect("no panic"));
        broker.start_again();

        let shown = done(&broker, "GET", &path, Value::Null).await;
        assert_eq!(shown["state"], "active", "its secret is there");
        let request = sent(&broker, &mut receiver, next, |request| {
            assert!(
                verifies(request, &current),
                "round {round}: the last that was shown"
            );
            delivered.push(number(request));
        })
        .await;
        next += 1;
        let public: PublicKey = text(&shown, "public_key").parse().expect("a key");
        let (id, signature) = (
            request.header("webhook-id"),
            request.header("webhook-signature"),
        );
        let is_public = public.verify_v1a(id, timestamp(&request), &request.body, signature);
        assert!(is_public, "round {round}: what is shown verifies");
        let now_signing = signatures(&request).len();
        let one_more = (signing + 1).min(1 + OLD_MAX);
        match answer {
            Some((200, rotated)) => {
                current = text(&rotated, "secret");
                let first = signatures(&request)[0];
                assert!(
                    is_signature(&request, &current, first),
                    "round {round}: the new one is the first"
                );
                assert_eq!(
                    now_signing, one_more,
                    "round {round}: and the old ones sign"
                );
                for name in ["old_secret_until", "public_key", "updated"] {
                    assert_eq!(shown[name], rotated[name], "round {round}: {name}");
                }
                unseen = 0;
            }
            Some(other) => panic!("round {round}: {other:?}"),
            None => {
                assert!(
                    [signing, one_more].contains(&now_signing),
                    "round {round}: {now_signing} signatures after {signing}"
                );
                // Of four nobody can tell whether they are the same: better believe that not.
                unseen += usize::from(now_signing == one_more);
            }
        }
        signing = now_signing;
    }
    until_shown(&broker, &path, |shown| shown["queued"] == 0).await;
    delivered.extend(receiver.arrived().iter().map(number));
    acknowledged.retain(|number| !delivered.contains(number));
    assert!(acknowledged.is_empty(), "{acknowledged:?} are lost");
}

/// The old secret signs as long as was answered, and no longer, whatever is killed in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grace_period_goes_on_over_a_kill() {
    let mut receiver = Receiver::start().await;
    let mut broker = process(&format!("{LOCAL}webhooks.rotation_grace = \"2s\"\n"));
    let fields = json!({"url": receiver.url(), "topics": ["t"]});
    let (path, made) = register(&broker, fields).await;
    let rotation = ("POST", format!("{path}/rotate-secret"), Value::Null);
    let mut killer = Killer::new(62);
    let answer = killer.once_answered(&mut broker, rotation).await;
    let (status, rotated) = answer.expect("an answer");
    assert_eq!(status, 200);
    let (old, new) = (text(&made, "secret"), text(&rotated, "secret"));
    let until_ms = parse_rfc3339(&text(&rotated, "old_secret_until")).expect("a time");
    broker.start_again();
    let request = sent(&broker, &mut receiver, 0, |_| {}).await;
    assert!(verifies(&request, &new));
    // What is signed within a second has the time of its beginning.
    if (timestamp(&request) + 1) * 1000 <= until_ms {
        assert!(verifies(&request, &old), "within the grace period");
    }
    elapse(3).await;
    let request = sent(&broker, &mut receiver, 1, |_| {}).await;
    assert!(verifies(&request, &new));
    assert!(!verifies(&request, &old), "the grace period is over");
    let shown = done(&broker, "GET", &path, Value::Null).await;
    assert_eq!(shown["old_secret_until"], Value::Null);
}

//! Publishing: the body as the payload, or JSON envelopes.

use std::sync::Arc;

use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidings_protocol::mqtt::QoS;

use super::Edge;
use super::bodies;
use super::envelope::{self, Outgoing, Properties, Unfit, json_problem, parse_qos};
use super::idempotency::Begin;
use super::problem::Problem;
use super::query::{Query, topic_of};
use super::respond::{self, Body};
use crate::access::Principal;
use crate::broker::stats::Drop as Dropped;
use crate::broker::{Publication, Published, Remembered};
use crate::store::{until_durable, until_unpressed};

/// Parameters of `POST /v1/topics/{topic}`.
pub(super) const TO_TOPIC_QUERY: &[&str] = &[
    "qos",
    "retain",
    "expiry",
    "content_type",
    "response_topic",
    "correlation_data",
    "user.",
];

/// Messages in one array.
const MESSAGES_MAX: usize = 10_000;

/// What curl says of a body that it was given without a type; nobody means it.
const CURL_DEFAULT: &str = "application/x-www-form-urlencoded";

/// Waits while more waits for the disk than should, as a publisher of QoS 1 and 2 does over MQTT.
/// What the store has no part in does not wait.
pub(super) async fn until_taken(edge: &Edge, message: &Outgoing) {
    if message.qos != QoS::AtMostOnce || message.retain {
        until_unpressed(edge.broker.store()).await;
    }
}

/// Publishes; whoever gets the answer has to wait for its ticket before a promise is made. To be
/// called after [`until_taken`].
pub(super) fn publish(
    edge: &Edge,
    principal: &Principal,
    message: &Outgoing,
) -> Result<Published, Problem> {
    publish_with(edge, principal, message, None)
}

fn publish_with(
    edge: &Edge,
    principal: &Principal,
    message: &Outgoing,
    remembered: Option<Remembered>,
) -> Result<Published, Problem> {
    let stats = &edge.broker.stats;
    let unfit = |Unfit { problem, counted }| {
        if let Some(reason) = counted {
            stats.dropped(reason, 1);
        }
        problem
    };
    let properties = message.check(edge).map_err(unfit)?;
    let publication = Publication {
        qos: message.qos,
        retain: message.retain,
        properties: properties.as_properties(),
        payload: &message.payload,
        packet_id: None,
        shared_payload: Some(&message.payload),
    };
    let mut batch = edge.broker.batch();
    if let Some(remembered) = remembered {
        batch.remember(remembered);
    }
    stats.publish_received.add(1);
    let published = batch.publish_one(principal, &message.topic, publication);
    published.map_err(|refused| {
        batch.refused(refused.counted_as(), 1);
        refused.into()
    })
}

/// What is said of a message that was published.
pub(super) fn result(message: &Outgoing, published: &Published) -> Value {
    json!({"matched": published.matched, "qos": message.qos.as_u8()})
}

/// `POST /v1/topics/{topic}`.
pub(super) async fn to_topic(
    edge: &Arc<Edge>,
    principal: &Principal,
    topic: &str,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(parts.uri.query(), TO_TOPIC_QUERY)?;
    query.no_plus("correlation_data", "the + of base64")?;
    query.no_plus("content_type", "a +, as in application/ld%2Bjson")?;
    let topic = topic_of(topic, &edge.broker.topic_limits())
        .inspect_err(|_| edge.broker.stats.dropped(Dropped::TopicInvalid, 1))?;
    let qos = query
        .parsed("qos", "0, 1 or 2", |it| it.parse().ok())?
        .unwrap_or(1);
    let content_type = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|it| it.to_str().ok());
    let properties = Properties {
        payload_format_indicator: None,
        content_type: query
            .get("content_type")
            .or(content_type.filter(|it| *it != CURL_DEFAULT))
            .map(str::to_owned),
        response_topic: query.get("response_topic").map(str::to_owned),
        correlation_data: query.get("correlation_data").map(str::to_owned),
        message_expiry_interval: query
            .parsed("expiry", "a number of seconds", |it| it.parse().ok())?,
        user_properties: query
            .with_prefix("user.")
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    };
    let (qos, retain) = (parse_qos(qos)?, query.flag("retain")?);
    let body = bodies::read(edge, body).await?;
    let message = Outgoing {
        topic,
        payload: body.bytes.clone(),
        qos,
        retain,
        properties,
    };
    publish_one(edge, principal, parts, &message).await
}

/// Publishes one message, once if the request has an `Idempotency-Key`, and answers.
async fn publish_one(
    edge: &Arc<Edge>,
    principal: &Principal,
    parts: &Parts,
    message: &Outgoing,
) -> Result<Response<Body>, Problem> {
    let claim = match edge.keys.begin(&edge.broker, principal, parts, message)? {
        None => None,
        Some(Begin::New(claim)) => Some(claim),
        Some(Begin::Known(answer, ticket)) => {
            until_durable(edge.broker.store(), ticket).await?;
            let mut response = respond::json(&answer);
            let replayed = HeaderName::from_static("idempotent-replayed");
            response
                .headers_mut()
                .insert(replayed, HeaderValue::from_static("true"));
            return Ok(response);
        }
    };
    until_taken(edge, message).await;
    let qos = message.qos.as_u8();
    let remembered = claim
        .as_ref()
        .map(|claim| claim.document(move |matched| json!({"matched": matched, "qos": qos})));
    let published = publish_with(edge, principal, message, remembered)?;
    let answer = result(message, &published);
    let promised = claim.is_some();
    if let Some(claim) = claim {
        claim.answered(answer.clone(), published.ticket);
    }
    if promised {
        until_durable(edge.broker.store(), published.ticket).await?;
    } else {
        settle(edge, message, &published).await?;
    }
    Ok(respond::json(&answer))
}

/// Waits until what the answer promises is true: for QoS 0 that is nothing.
async fn settle(edge: &Edge, message: &Outgoing, published: &Published) -> Result<(), Problem> {
    if message.qos != QoS::AtMostOnce {
        until_durable(edge.broker.store(), published.ticket).await?;
    }
    Ok(())
}

/// `POST /v1/publish`: one envelope, or an array with one result for each.
pub(super) async fn envelopes(
    edge: &Arc<Edge>,
    principal: &Principal,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    Query::parse(parts.uri.query(), &[])?;
    let body = bodies::read(edge, body).await?;
    let text = body.text()?;
    if !text.trim_start().starts_with('[') {
        let message = envelope::read(text)?;
        return publish_one(edge, principal, parts, &message).await;
    }
    if parts.headers.contains_key("idempotency-key") {
        return Err(Problem::bad_request(
            "invalid-key",
            "An Idempotency-Key is for one message",
            "send the messages one by one, each with a key of its own; nothing was published",
        ));
    }
    let all: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|it| json_problem(&it, text, text))?;
    if all.len() > MESSAGES_MAX {
        return Err(Problem::bad_request(
            "too-many",
            "Too many messages at once",
            format!("an array holds at most {MESSAGES_MAX} messages; nothing was published"),
        ));
    }
    // Each has its own result: what is wrong with one is no reason to keep back another.
    let mut results: Vec<(Value, Option<Published>)> = Vec::with_capacity(all.len());
    for raw in all {
        let published = match envelope::read_within(text, raw.get()) {
            Ok(message) => {
                until_taken(edge, &message).await;
                publish(edge, principal, &message).map(|published| (published, message))
            }
            Err(problem) => Err(problem),
        };
        results.push(match published {
            Ok((published, message)) => (result(&message, &published), Some(published)),
            Err(problem) => (problem.json(), None),
        });
    }
    let last = results
        .iter()
        .filter_map(|(_, it)| it.as_ref())
        .map(|it| it.ticket)
        .max();
    if let Some(ticket) = last {
        until_durable(edge.broker.store(), ticket).await?;
    }
    let results: Vec<Value> = results.into_iter().map(|(result, _)| result).collect();
    Ok(respond::json(&Value::Array(results)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use hyper::{Request, StatusCode};
    use tokio::task::{JoinHandle, yield_now};

    use super::*;
    use crate::access::Access;
    use crate::broker::Broker;
    use crate::config::Config;
    use crate::store::{Recovered, SlowStore};
    use crate::webhooks::Webhooks;

    fn edge(store: &Arc<SlowStore>) -> Arc<Edge> {
        let config = Config::default();
        let access = Access::new(&config).expect("the defaults are in order");
        let store = Arc::clone(store);
        let recovered = Recovered::default();
        let (mqtt, limits) = (config.mqtt.clone(), config.limits.clone());
        let (broker, _) = Broker::restore(mqtt, limits, store, recovered, &access);
        let broker = Arc::new(broker);
        let webhooks = Webhooks::start(Arc::clone(&broker), access.clone(), &config, &[]);
        Arc::new(Edge::new(
            broker,
            access,
            webhooks,
            1,
            config.http,
            None,
            &[],
            Box::new(|_, _| Box::pin(async {})),
        ))
    }

    /// Publishes a message; one of QoS 1 or 2 has to be kept.
    fn publishing(edge: &Arc<Edge>, qos: QoS) -> JoinHandle<Result<StatusCode, Problem>> {
        let edge = Arc::clone(edge);
        tokio::spawn(async move {
            let principal = edge.access.anonymous("").expect("anonymous clients may");
            let (parts, ()) = Request::new(()).into_parts();
            let message = Outgoing {
                topic: "t".to_owned(),
                payload: Bytes::from_static(b"x"),
                qos,
                retain: qos != QoS::AtMostOnce,
                properties: Properties::default(),
            };
            let answer = publish_one(&edge, &principal, &parts, &message).await;
            answer.map(|answer| answer.status())
        })
    }

    /// While more waits for the disk than should, nothing of QoS 1 and 2 is added to it.
    #[tokio::test]
    async fn a_publish_waits_until_the_store_is_not_under_pressure() {
        let store = Arc::new(SlowStore::new());
        let edge = edge(&store);
        store.set_pressure(true);
        let waiting = [QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| publishing(&edge, qos));
        let before = store.appends().0;
        // One that takes nothing of the store does not wait, and comes after the others.
        let published = publishing(&edge, QoS::AtMostOnce).await.expect("no panic");
        assert_eq!(published.expect("published"), StatusCode::OK);
        assert_eq!(store.appends().0, before);
        store.set_pressure(false);
        let all = async {
            while store.appends().0 < before + 2 {
                yield_now().await;
            }
            store.commit();
            for one in waiting {
                let published = one.await.expect("no panic");
                assert_eq!(published.expect("published"), StatusCode::OK);
            }
        };
        let patience = Duration::from_secs(30);
        tokio::time::timeout(patience, all)
            .await
            .expect("they are woken");
    }
}

//! The fields of a webhook as options.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::{Map, Value};

/// What a webhook is told to be, beside where and what to deliver.
#[derive(Debug, Default, Args)]
pub struct Fields {
    /// 0: each message is attempted once
    #[arg(long, value_name = "0, 1 OR 2")]
    qos: Option<u8>,
    /// cloudevents-structured, cloudevents-binary, raw or batch
    #[arg(long, value_name = "MODE")]
    payload_mode: Option<String>,
    /// What happens to raw payloads that are not UTF-8: envelope or refuse
    #[arg(long, value_name = "envelope OR refuse")]
    binary_payload: Option<String>,
    /// A header to send with each request; may be given many times. Without a value, as in "Name:",
    /// it is not sent any more
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// none, key (in order for each topic) or fifo (all in order)
    #[arg(long, value_name = "ORDERING")]
    ordering: Option<String>,
    /// Requests at a time
    #[arg(long, value_name = "NUMBER")]
    max_in_flight: Option<u32>,
    /// Deliveries a second; 0 for as many as there are
    #[arg(long, value_name = "NUMBER")]
    rate_limit: Option<u32>,
    /// The delays before each retry, such as 5s,5m,2h
    #[arg(long, value_name = "DELAYS", value_delimiter = ',')]
    retry_schedule: Option<Vec<String>>,
    /// For the whole of an attempt, such as 15s
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// For people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A Topic Name to which responses are published
    #[arg(long, value_name = "TOPIC")]
    reply_topic: Option<String>,
    /// Sign with ed25519 too
    #[arg(long, value_name = "true OR false", num_args = 0..=1, default_missing_value = "true")]
    signature_v1a: Option<bool>,
    /// A file with certificates in PEM that the server's may be signed with
    #[arg(long, value_name = "FILE")]
    ca_certificate: Option<PathBuf>,
    /// A file with the certificate, in PEM, with which the broker shows who it is
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<PathBuf>,
    /// A file with its key, in PEM
    #[arg(long, value_name = "FILE")]
    client_key: Option<PathBuf>,
}

impl Fields {
    /// Those that were given, as the API takes them.
    pub fn read(&self) -> anyhow::Result<Map<String, Value>> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        put("qos", self.qos.map(Value::from));
        put("payload_mode", self.payload_mode.clone().map(Value::from));
        put(
            "binary_payload",
            self.binary_payload.clone().map(Value::from),
        );
        put("headers", self.read_headers()?);
        put("ordering", self.ordering.clone().map(Value::from));
        put("max_in_flight", self.max_in_flight.map(Value::from));
        put("rate_limit", self.rate_limit.map(Value::from));
        put(
            "retry_schedule",
            self.retry_schedule.clone().map(Value::from),
        );
        put("timeout", self.timeout.clone().map(Value::from));
        put("description", self.description.clone().map(Value::from));
        put("reply_topic", self.reply_topic.clone().map(Value::from));
        put("signature_v1a", self.signature_v1a.map(Value::from));
        put("ca_certificate", read_file(self.ca_certificate.as_deref())?);
        put(
            "client_certificate",
            read_file(self.client_certificate.as_deref())?,
        );
        put("client_key", read_file(self.client_key.as_deref())?);
        Ok(fields)
    }

    fn read_headers(&self) -> anyhow::Result<Option<Value>> {
        let mut headers = Map::new();
        for header in &self.headers {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| anyhow!("{header:?} should be a header such as \"Name: value\""))?;
            let value = match value.trim() {
                "" => Value::Null,
                value => value.into(),
            };
            headers.insert(name.to_owned(), value);
        }
        Ok((!headers.is_empty()).then_some(Value::Object(headers)))
    }
}

fn read_file(path: Option<&Path>) -> anyhow::Result<Option<Value>> {
    let Some(path) = path else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(Some(text.into()))
}

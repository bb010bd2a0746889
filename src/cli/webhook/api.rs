//! Requests to the HTTP API of a broker: one connection each.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::terminal;

/// How long the broker may take for an answer: a stream that is counted takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// What needs no encoding in a part of a path or a query (RFC 3986 §2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where the broker is, and as whom to ask.
#[derive(Debug, Args)]
pub struct ConnectOptions {
    /// The HTTP address of the broker
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    url: String,
    /// Show this token, as `tidings token` prints it; others on this machine can see it for as long
    /// as the command runs
    #[arg(long, global = true, conflicts_with = "user")]
    token: Option<String>,
    /// Log in as this user; the password is asked for, unless it is given
    #[arg(short, long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// The password, which others on this machine can see for as long as the command runs
    #[arg(short = 'P', long, global = true, requires = "user")]
    password: Option<String>,
}

/// Some text, as it may stand in a path or in a query.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

pub struct Api {
    /// Host and port.
    authority: String,
    authorization: Option<String>,
}

impl Api {
    pub fn new(options: &ConnectOptions) -> anyhow::Result<Api> {
        let url = &options.url;
        let authority = url.strip_prefix("http://").with_context(|| {
            format!("{url} should begin with http://; TLS is not spoken by this command")
        })?;
        let authority = authority.trim_end_matches('/');
        if authority.contains(['/', '?', '#', '@']) {
            bail!("{url} should be a host and a port alone, such as http://127.0.0.1:8080");
        }
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = match has_port {
            true => authority.to_owned(),
            false => format!("{authority}:80"),
        };
        let authorization = match (&options.token, &options.user, &options.password) {
            (Some(token), ..) => Some(format!("Bearer {token}")),
            (None, Some(user), password) => {
                let password = match password {
                    Some(password) => password.clone(),
                    None => terminal::ask_secret("Password: ").context("no password")?,
                };
                let pair = STANDARD.encode(format!("{user}:{password}"));
                Some(format!("Basic {pair}"))
            }
            (None, None, _) => None,
        };
        Ok(Api {
            authority,
            authorization,
        })
    }

    /// The answer to a request; null if there is none to it but that it was done.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let asked = timeout(PATIENCE, self.exchange(method, path, body)).await;
        asked.map_err(|_| anyhow!("{} does not answer", self.authority))?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let at = &self.authority;
        let stream = TcpStream::connect(at)
            .await
            .with_context(|| format!("cannot connect to {at}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends when the sender is gone.
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, at);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request
            .body(Full::new(body))
            .context("that cannot be sent as a request")?;
        let lost = || format!("the connection to {at} was lost");
        let answer = sender.send_request(request).await.with_context(lost)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.with_context(lost)?;
        connection.abort();
        let body = body.to_bytes();
        let value = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body)
                .with_context(|| format!("{at} answers {status} without JSON: is it a broker?"))?,
        };
        match status.is_success() {
            true => Ok(value),
            false => Err(refusal(&value, status.as_u16())),
        }
    }
}

/// What a problem (RFC 9457) says, and what is wrong with each field.
fn refusal(problem: &Value, status: u16) -> anyhow::Error {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let errors = problem["errors"].as_array();
    let fields: Vec<String> = errors
        .into_iter()
        .flatten()
        .map(|it| format!("  {}: {}", text(&it["field"]), text(&it["detail"])))
        .collect();
    let title = text(&problem["title"]);
    match fields.is_empty() {
        true => anyhow!("{title} ({status}): {}", text(&problem["detail"])),
        false => anyhow!("{title} ({status}):\n{}", fields.join("\n")),
    }
}

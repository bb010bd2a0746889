//! Configuration: `broker.toml`, the environment and `--set`, in that order of precedence.
//!
//! The defaults are `broker.toml` of the repository, embedded, so that file, defaults and
//! documentation cannot differ. [`Config::load`] reports everything that is wrong at once,
//! each problem with its place, what was found and what is expected; nothing has been
//! bound, opened or logged by then. What a section means is said in `broker.toml`, its types
//! stand in `sections` and `access`. Reading files, beyond the text of `broker.toml` itself,
//! is not done here: the password file is read by [`crate::access`].

mod access;
mod http;
mod listen;
mod problem;
mod reader;
mod sections;
mod streams;
mod template;
#[cfg(test)]
mod tests;
mod units;
mod value;
mod webhook;

use std::ffi::OsString;
use std::path::Path;

pub use access::{AccessConfig, Action, Effect, Rule, Subject};
pub use http::HttpConfig;
pub use listen::ListenAddress;
pub use problem::{Origin, Problem, ProblemKind, Problems};
pub use sections::{
    Durability, LimitsConfig, LogConfig, LogFormat, MqttConfig, QueueFull, StoreConfig, SysConfig,
};
pub use streams::StreamConfig;
pub use template::{Template, Unfilled};
pub use units::{parse_duration, show_duration};
pub use webhook::{
    BinaryPayload, DEFINITION_FIELDS, DeclaredWebhook, Definition, FieldError, GENERATED_PREFIX,
    HIDDEN, Hidden, Ordering, PayloadMode, Policy, Proxy, Target, TargetError, WebhooksConfig,
};
pub(crate) use webhook::{Fields, check_address};

use reader::Reader;

/// The text of the defaults: every setting, with a comment for the person who runs the broker.
pub const DEFAULTS: &str = include_str!("../../broker.toml");

/// Every setting of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub mqtt: MqttConfig,
    pub limits: LimitsConfig,
    pub store: StoreConfig,
    pub access: AccessConfig,
    pub log: LogConfig,
    pub sys: SysConfig,
    pub http: HttpConfig,
    pub streams: Vec<StreamConfig>,
    pub webhooks: WebhooksConfig,
    /// The endpoints that are declared here, beside those that are registered over the API.
    pub declared_webhooks: Vec<DeclaredWebhook>,
}

impl Default for Config {
    /// What `broker.toml` of the repository says.
    fn default() -> Self {
        Config::load(&Sources::new()).expect("the embedded defaults are in order")
    }
}

/// Where settings come from, apart from the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    file: Option<(String, String)>,
    environment: Vec<(OsString, OsString)>,
    set: Vec<String>,
}

impl Sources {
    /// No sources: the defaults alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file's text, and the name by which problems call it.
    pub fn file(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.file = Some((name.into(), text.into()));
        self
    }

    /// A file, read now.
    pub fn read_file(self, path: &Path) -> Result<Self, Problems> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(self.file(path.display().to_string(), text)),
            Err(error) => {
                let at = Origin::WholeFile(path.display().to_string().into());
                Err(Problems::one(
                    at,
                    "",
                    ProblemKind::Unreadable(error.to_string()),
                ))
            }
        }
    }

    /// Environment variables, of which those that begin with `TIDINGS_` are settings:
    /// `TIDINGS_MQTT_LISTEN` is `mqtt.listen`.
    pub fn environment<N, V>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        self.environment.extend(variables);
        self
    }

    /// `section.key=value` arguments; the last one for a key counts.
    pub fn set<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.set.extend(arguments.into_iter().map(Into::into));
        self
    }
}

impl Config {
    /// Reads the layers: defaults, file, environment, `--set`, each over the one before.
    pub fn load(sources: &Sources) -> Result<Config, Problems> {
        let mut reader = Reader::new(value::parse_defaults(DEFAULTS));
        let mut problems = Vec::new();
        if let Some((name, text)) = &sources.file {
            reader.document(value::parse_document(name, text, &mut problems));
        }
        for (name, value) in &sources.environment {
            reader.environment(&name.to_string_lossy(), value.to_str());
        }
        for argument in &sources.set {
            reader.set(argument);
        }
        let access = AccessConfig::read(&mut reader);
        let http = HttpConfig::read(&mut reader, &access);
        let webhooks = WebhooksConfig::read(&mut reader);
        let config = Config {
            mqtt: MqttConfig::read(&mut reader, &access),
            limits: LimitsConfig::read(&mut reader),
            store: StoreConfig::read(&mut reader),
            access,
            log: LogConfig::read(&mut reader),
            sys: SysConfig::read(&mut reader),
            http,
            streams: StreamConfig::read_all(&mut reader),
            declared_webhooks: DeclaredWebhook::read_all(&mut reader, &webhooks),
            webhooks,
        };
        problems.extend(reader.finish());
        Problems::none_or(problems, config)
    }

    /// The defaults, changed by `text` as by a file: for programs that embed the broker, and tests.
    pub fn from_toml(text: &str) -> Result<Config, Problems> {
        Config::load(&Sources::new().file("configuration", text))
    }

    /// What is allowed but hardly meant. To be logged once at start, and shown by `check`.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        self.access.warnings(&mut warnings);
        warnings
    }
}

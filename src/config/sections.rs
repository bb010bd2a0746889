//! The sections of `broker.toml`. What each setting means to the person who runs the broker
//! is said there; here stand its type and its range.

use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::access::AccessConfig;
use super::listen::ListenAddress;
use super::problem::Origin;
use super::reader::Reader;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The largest packet there can be: a remaining length of four bytes [MQTT-1.5.5], and the
/// fixed header's five.
const PACKET_MAX: u64 = 268_435_455 + 5;
/// A count that fits `usize` on every machine we build for.
const COUNT_MAX: u64 = u32::MAX as u64;
/// Bytes of memory: what a 32-bit machine can name.
pub(super) const MEMORY_MAX: u64 = if cfg!(target_pointer_width = "32") {
    u32::MAX as u64
} else {
    1 << 44
};
const DISK_MAX: u64 = 1 << 50;

/// `[mqtt]`: the MQTT listener and what it offers to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttConfig {
    /// Never empty.
    pub listen: Vec<ListenAddress>,
    pub max_packet_size: usize,
    /// Never more than `max_packet_size`.
    pub connect_packet_size_max: usize,
    pub connect_timeout: Duration,
    /// `None`: no maximum, and a Keep Alive of 0 is honoured.
    pub keep_alive_max: Option<Duration>,
    pub receive_maximum: NonZeroU16,
    pub inflight_max: NonZeroU16,
    pub topic_alias_maximum: u16,
    pub topic_alias_maximum_out: u16,
    pub session_expiry_max: Duration,
    /// 0, 1 or 2.
    pub max_qos: u8,
    pub validate_utf8_payload: bool,
    pub retain_available: bool,
    pub shutdown_deadline: Duration,
    pub allow_zero_length_client_id: bool,
}

impl MqttConfig {
    pub(super) fn read(r: &mut Reader, access: &AccessConfig) -> Self {
        let mut config = MqttConfig {
            listen: read_listen(r, access),
            max_packet_size: r.size("mqtt.max_packet_size", 64..=PACKET_MAX),
            connect_packet_size_max: r.size("mqtt.connect_packet_size_max", 64..=PACKET_MAX),
            connect_timeout: r.duration("mqtt.connect_timeout", MS..=HOUR),
            keep_alive_max: r.duration_or_off(
                "mqtt.keep_alive_max",
                Duration::from_secs(1)..=Duration::from_secs(65_535),
            ),
            receive_maximum: r
                .integer::<NonZero<_>>("mqtt.receive_maximum", 1..=65_535)
                .0,
            inflight_max: r.integer::<NonZero<_>>("mqtt.inflight_max", 1..=65_535).0,
            topic_alias_maximum: r.integer("mqtt.topic_alias_maximum", 0..=65_535),
            topic_alias_maximum_out: r.integer("mqtt.topic_alias_maximum_out", 0..=65_535),
            session_expiry_max: r.duration("mqtt.session_expiry_max", Duration::ZERO..=100 * YEAR),
            max_qos: r.integer("mqtt.max_qos", 0..=2),
            validate_utf8_payload: r.flag("mqtt.validate_utf8_payload"),
            retain_available: r.flag("mqtt.retain_available"),
            shutdown_deadline: r.duration("mqtt.shutdown_deadline", Duration::ZERO..=HOUR),
            allow_zero_length_client_id: r.flag("mqtt.allow_zero_length_client_id"),
        };
        if config.connect_packet_size_max > config.max_packet_size {
            let at = r.origin("mqtt.connect_packet_size_max");
            if at == super::Origin::Default {
                // Who lowers the one means the other too.
                config.connect_packet_size_max = config.max_packet_size;
            } else {
                let (connect, all) = (config.connect_packet_size_max, config.max_packet_size);
                let why =
                    format!("{connect} bytes is more than mqtt.max_packet_size, which is {all}");
                r.conflict(at, "mqtt.connect_packet_size_max", why);
            }
        }
        config
    }
}

/// The network is not let in where nobody has to say who they are, unless that was asked for
/// in so many words.
fn read_listen(r: &mut Reader, access: &AccessConfig) -> Vec<ListenAddress> {
    let expected =
        "\"host:port\", such as \"127.0.0.1:1883\" or \"[::1]:1883\", or an array of them";
    let mut listen: Vec<ListenAddress> = Vec::new();
    for (address, at) in r.list("mqtt.listen", expected, |text| {
        text.parse::<ListenAddress>().ok()
    }) {
        may_listen(r, access, "mqtt.listen", &address, at, &listen);
        listen.push(address);
    }
    listen
}

/// Notes what is wrong with listening on `address`, where `others` are listened on.
pub(super) fn may_listen(
    r: &mut Reader,
    access: &AccessConfig,
    key: &str,
    address: &ListenAddress,
    at: Origin,
    others: &[ListenAddress],
) {
    let open_to_all = access.password_file.is_none() && !access.allow_anonymous;
    if open_to_all && !address.is_loopback() {
        let why = format!(
            "{address} can be reached from other machines, and there are no users: \
             name them with access.password_file (`tidings passwd` writes one), \
             or let everyone in with access.allow_anonymous = true"
        );
        r.conflict(at.clone(), key, why);
    }
    if address.port() != 0 && others.contains(address) {
        r.conflict(at, key, format!("{address} is listed twice"));
    }
}

/// `NonZeroU16` of the integers that a range has checked.
struct NonZero<T>(T);

impl TryFrom<u64> for NonZero<NonZeroU16> {
    type Error = ();
    fn try_from(number: u64) -> Result<Self, ()> {
        let number = u16::try_from(number).map_err(|_| ())?;
        NonZeroU16::new(number).map(NonZero).ok_or(())
    }
}

/// `[limits]`: what any one peer, or all of them together, can make the broker keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    pub connections_max: usize,
    /// `None`: no limit.
    pub connections_per_address_max: Option<NonZeroUsize>,
    pub connections_pending_max: usize,
    pub topic_bytes_max: usize,
    pub topic_levels_max: usize,
    pub subscriptions_per_session_max: usize,
    pub subscriptions_max: usize,
    pub replays_per_session_max: usize,
    pub user_properties_max: usize,
    pub mailbox_bytes_max: usize,
    pub mailbox_messages_max: usize,
    pub queue_messages_max: usize,
    pub queue_bytes_max: u64,
    pub queue_full: QueueFull,
    pub queue_qos0: bool,
    pub retained_messages_max: usize,
    pub retained_bytes_max: u64,
    pub sessions_max: usize,
    pub memory_queue_bytes_max: u64,
    pub wills_max: usize,
}

/// What happens when a queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueFull {
    DropNewest,
    DropOldest,
    Disconnect,
}

impl LimitsConfig {
    pub(super) fn read(r: &mut Reader) -> Self {
        LimitsConfig {
            connections_max: r.integer("limits.connections_max", 1..=COUNT_MAX),
            connections_per_address_max: NonZeroUsize::new(
                r.integer("limits.connections_per_address_max", 0..=COUNT_MAX),
            ),
            connections_pending_max: r.integer("limits.connections_pending_max", 1..=COUNT_MAX),
            topic_bytes_max: r.integer("limits.topic_bytes_max", 1..=65_535),
            topic_levels_max: r.integer("limits.topic_levels_max", 1..=65_536),
            subscriptions_per_session_max: r
                .integer("limits.subscriptions_per_session_max", 1..=COUNT_MAX),
            subscriptions_max: r.integer("limits.subscriptions_max", 1..=COUNT_MAX),
            replays_per_session_max: r.integer("limits.replays_per_session_max", 0..=1024),
            user_properties_max: r.integer("limits.user_properties_max", 0..=COUNT_MAX),
            mailbox_bytes_max: r.size("limits.mailbox_bytes_max", 1024..=MEMORY_MAX),
            mailbox_messages_max: r.integer("limits.mailbox_messages_max", 1..=COUNT_MAX),
            queue_messages_max: r.integer("limits.queue_messages_max", 1..=COUNT_MAX),
            queue_bytes_max: r.size("limits.queue_bytes_max", 1024..=DISK_MAX),
            queue_full: r.choice(
                "limits.queue_full",
                &[
                    ("drop_newest", QueueFull::DropNewest),
                    ("drop_oldest", QueueFull::DropOldest),
                    ("disconnect", QueueFull::Disconnect),
                ],
            ),
            queue_qos0: r.flag("limits.queue_qos0"),
            retained_messages_max: r.integer("limits.retained_messages_max", 0..=COUNT_MAX),
            retained_bytes_max: r.size("limits.retained_bytes_max", 0..=DISK_MAX),
            sessions_max: r.integer("limits.sessions_max", 1..=COUNT_MAX),
            memory_queue_bytes_max: r.size("limits.memory_queue_bytes_max", 1024..=MEMORY_MAX),
            wills_max: r.integer("limits.wills_max", 0..=COUNT_MAX),
        }
    }
}

/// `[store]`: where messages and sessions are kept, and how safely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    pub path: PathBuf,
    pub durability: Durability,
    pub checkpoint_bytes: u64,
    pub segment_bytes: u64,
    pub disk_free_min: u64,
    pub commit_bytes_max: usize,
}

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is on disk, flushed.
    Fsync,
    /// It is written, and flushed at intervals.
    Interval,
    /// It is in memory.
    Memory,
}

impl StoreConfig {
    pub(super) fn read(r: &mut Reader) -> Self {
        StoreConfig {
            path: r.string("store.path", "the path of a directory", |text| {
                (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
            }),
            durability: r.choice(
                "store.durability",
                &[
                    ("fsync", Durability::Fsync),
                    ("interval", Durability::Interval),
                    ("memory", Durability::Memory),
                ],
            ),
            checkpoint_bytes: r.size("store.checkpoint_bytes", 4096..=DISK_MAX),
            segment_bytes: r.size("store.segment_bytes", 4096..=1 << 40),
            disk_free_min: r.size("store.disk_free_min", 0..=DISK_MAX),
            commit_bytes_max: r.size("store.commit_bytes_max", 4096..=MEMORY_MAX),
        }
    }
}

/// `[log]`: what is logged, and how. Always to standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or directives such as `info,tidings::access=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl LogConfig {
    pub(super) fn read(r: &mut Reader) -> Self {
        let expected = "\"error\", \"warn\", \"info\", \"debug\", \"trace\" or \"off\", or a list such as \"info,tidings::access=debug\"";
        LogConfig {
            level: r.string("log.level", expected, |text| {
                crate::ops::logging::level_is_valid(text).then(|| text.to_owned())
            }),
            format: r.choice(
                "log.format",
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
        }
    }
}

/// `[sys]`: the broker's own topics, `$SYS/broker/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysConfig {
    /// `None`: they are not published.
    pub interval: Option<Duration>,
}

impl SysConfig {
    pub(super) fn read(r: &mut Reader) -> Self {
        SysConfig {
            interval: r.duration_or_off("sys.interval", 100 * MS..=DAY),
        }
    }
}

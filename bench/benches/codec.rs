//! The protocol crate: time per packet, with the packets as they lie in a read buffer, one after
//! the other. `cargo bench -p tidings-bench --bench codec`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidings_protocol::mqtt::{
    Ack, AckKind, PacketId, Properties, PropertiesBuilder, Property, Publish, QoS, Version, decode,
    fixed_header,
};
use tidings_protocol::topic::{self, Filter, TopicLimits};

/// Packets in the buffer: enough to fill a few cache lines, few enough for the first-level cache.
const PACKETS: usize = 64;

const MAX_PACKET_SIZE: usize = 1 << 20;

struct Case {
    name: &'static str,
    version: Version,
    qos: QoS,
    user_properties: usize,
    payload: usize,
}

const CASES: &[Case] = &[
    Case {
        name: "3.1.1, QoS 0, 64 bytes",
        version: Version::V311,
        qos: QoS::AtMostOnce,
        user_properties: 0,
        payload: 64,
    },
    Case {
        name: "3.1.1, QoS 1, 64 bytes",
        version: Version::V311,
        qos: QoS::AtLeastOnce,
        user_properties: 0,
        payload: 64,
    },
    Case {
        name: "5, QoS 0, 64 bytes",
        version: Version::V5,
        qos: QoS::AtMostOnce,
        user_properties: 0,
        payload: 64,
    },
    Case {
        name: "5, QoS 1, 64 bytes, 3 user properties",
        version: Version::V5,
        qos: QoS::AtLeastOnce,
        user_properties: 3,
        payload: 64,
    },
    Case {
        name: "5, QoS 0, 1 KiB",
        version: Version::V5,
        qos: QoS::AtMostOnce,
        user_properties: 0,
        payload: 1024,
    },
];

const TOPIC: &str = "building/7/floor/3/room/12/temperature";

impl Case {
    fn with_packet<T>(&self, take: impl FnOnce(Publish<'_>) -> T) -> T {
        let payload = vec![b'x'; self.payload];
        let mut properties = PropertiesBuilder::default();
        for _ in 0..self.user_properties {
            properties.push(Property::UserProperty("content-encoding", "identity"));
        }
        take(Publish {
            dup: false,
            qos: self.qos,
            retain: false,
            topic: TOPIC,
            packet_id: (self.qos != QoS::AtMostOnce)
                .then(|| PacketId::new(7))
                .flatten(),
            properties: properties.as_properties(),
            payload: &payload,
        })
    }

    /// The read buffer.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.with_packet(|packet| {
            for _ in 0..PACKETS {
                packet.encode(self.version, &mut bytes);
            }
        });
        bytes
    }
}

fn decode_all(version: Version, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(header) = fixed_header(rest, MAX_PACKET_SIZE).expect("made by the encoder") {
        let (packet, after) = rest.split_at(header.total_len());
        let decoded = decode(version, header, packet).expect("made by the encoder");
        black_box(&decoded);
        rest = after;
    }
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode PUBLISH");
    group.throughput(Throughput::Elements(PACKETS as u64));
    for case in CASES {
        let bytes = case.bytes();
        group.bench_with_input(
            BenchmarkId::from_parameter(case.name),
            &bytes,
            |bencher, bytes| {
                bencher.iter(|| decode_all(case.version, black_box(bytes)));
            },
        );
    }
    group.finish();

    let mut group = criterion.benchmark_group("encode PUBLISH");
    group.throughput(Throughput::Elements(PACKETS as u64));
    for case in CASES {
        let mut out = Vec::with_capacity(1 << 17);
        group.bench_function(BenchmarkId::from_parameter(case.name), |bencher| {
            case.with_packet(|packet| {
                bencher.iter(|| {
                    out.clear();
                    for _ in 0..PACKETS {
                        black_box(black_box(&packet).encode(case.version, &mut out));
                    }
                });
            });
        });
    }
    group.finish();
}

fn acknowledgements(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("PUBACK");
    group.throughput(Throughput::Elements(PACKETS as u64));
    for version in [Version::V311, Version::V5] {
        let mut bytes = Vec::new();
        let encode = |out: &mut Vec<u8>| {
            for number in 1..=PACKETS as u16 {
                let ack = Ack {
                    packet_id: PacketId::new(number).expect("above 0"),
                    reason: tidings_protocol::mqtt::ReasonCode::Success,
                    properties: Properties::default(),
                };
                ack.encode(AckKind::PubAck, version, out);
            }
        };
        encode(&mut bytes);
        group.bench_function(
            BenchmarkId::new("decode", format!("{version:?}")),
            |bencher| {
                bencher.iter(|| decode_all(version, black_box(&bytes)));
            },
        );
        let mut out = Vec::with_capacity(1 << 12);
        group.bench_function(
            BenchmarkId::new("encode", format!("{version:?}")),
            |bencher| {
                bencher.iter(|| {
                    out.clear();
                    encode(black_box(&mut out));
                });
            },
        );
    }
    group.finish();
}

fn topics(criterion: &mut Criterion) {
    let limits = TopicLimits::default();
    let mut group = criterion.benchmark_group("topic");
    group.bench_function("name_is_valid", |bencher| {
        bencher.iter(|| topic::name_is_valid(black_box(TOPIC), &limits));
    });
    for filter in [
        TOPIC,
        "building/+/floor/+/room/+/temperature",
        "building/7/#",
    ] {
        group.bench_function(BenchmarkId::new("parse", filter), |bencher| {
            bencher.iter(|| Filter::parse(black_box(filter), &limits).is_ok());
        });
        group.bench_function(BenchmarkId::new("matches", filter), |bencher| {
            bencher.iter(|| topic::matches(black_box(filter), black_box(TOPIC)));
        });
    }
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = publish, acknowledgements, topics
}
criterion_main!(benches);

//! Instructions instead of nanoseconds: the same on a busy machine, so a change of a few percent
//! is seen. `cargo bench -p tidings-bench --bench counts`, with valgrind and gungraun-runner
//! installed (see the README beside the sources).

use std::process::{Command, ExitCode, Stdio};

/// The version of gungraun in Cargo.lock, which that of the runner must be.
const RUNNER: &str = "0.20.0";

fn main() -> ExitCode {
    // The runner starts this program again, once for each benchmark.
    if std::env::args().nth(1).as_deref() != Some("--gungraun-run") {
        let runner = std::env::var("GUNGRAUN_RUNNER");
        let runner = runner.as_deref().unwrap_or("gungraun-runner");
        let missing = [
            ("valgrind", "apt-get install valgrind".to_owned()),
            (
                runner,
                format!("cargo install gungraun-runner --version {RUNNER} --locked"),
            ),
        ];
        for (program, install) in missing {
            if !is_there(program) {
                eprintln!("counts: there is no {program}; install it with: {install}");
                return ExitCode::FAILURE;
            }
        }
    }
    counted::run();
    ExitCode::SUCCESS
}

/// Whether it can be started at all, whatever it says then.
fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

mod counted {
    use std::hint::black_box;

    use gungraun::prelude::*;
    use tidings::broker::outgoing::{Acknowledgement, Body, Next, Outgoing, Slot};

    use tidings::broker::topics::{Matched, SubscriptionTable};
    use tidings::store::Ticket;
    use tidings_protocol::mqtt::{PacketId, Publish, QoS, Version, decode, fixed_header};

    use super::kit::{self, Bed, Client, Filters, Kind, publication};

    const TOPIC: &str = "building/7/floor/3/room/12/temperature";

    /// Packets in the read buffer, and messages in a run.
    const PACKETS: usize = 16;

    fn read_buffer(version: Version, qos: QoS) -> (Version, Vec<u8>) {
        let mut bytes = Vec::new();
        for number in 0..PACKETS as u64 {
            let packet = Publish {
                dup: false,
                qos,
                retain: false,
                topic: TOPIC,
                packet_id: (qos != QoS::AtMostOnce).then(|| kit::packet_id(number)),
                properties: tidings_protocol::mqtt::Properties::EMPTY,
                payload: &kit::PAYLOAD,
            };
            packet.encode(version, &mut bytes);
        }
        (version, bytes)
    }

    #[library_benchmark]
    #[bench::v311_qos0(read_buffer(Version::V311, QoS::AtMostOnce))]
    #[bench::v311_qos1(read_buffer(Version::V311, QoS::AtLeastOnce))]
    #[bench::v5_qos0(read_buffer(Version::V5, QoS::AtMostOnce))]
    #[bench::v5_qos1(read_buffer(Version::V5, QoS::AtLeastOnce))]
    fn decode_16((version, bytes): (Version, Vec<u8>)) -> Vec<u8> {
        let mut rest = black_box(&bytes[..]);
        while let Some(header) = fixed_header(rest, 1 << 20).expect("made by the encoder") {
            let (packet, after) = rest.split_at(header.total_len());
            let decoded = decode(version, header, packet).expect("made by the encoder");
            black_box(&decoded);
            rest = after;
        }
        bytes
    }

    fn table(filters: Filters) -> (SubscriptionTable, String) {
        let bed = Bed::new();
        let sessions = bed.sessions(100);
        let table = kit::table(filters, 10_000, &sessions);
        // Looked at once before: the first look sizes buffers and finds the caches cold.
        let topic = filters.topic(5_000);
        drop(table.matches(&topic));
        (table, topic)
    }

    #[library_benchmark]
    #[bench::exact(table(Filters::Exact))]
    #[bench::plus(table(Filters::Plus))]
    #[bench::hash(table(Filters::Hash))]
    #[bench::shared(table(Filters::Shared))]
    fn match_one_of_10000(
        (table, topic): (SubscriptionTable, String),
    ) -> (SubscriptionTable, Matched) {
        let matched = table.matches(black_box(&topic));
        (table, matched)
    }

    struct Crowd {
        bed: Bed,
        publisher: Client,
        subscribers: Vec<Client>,
        qos: QoS,
    }

    impl Crowd {
        fn round(&mut self) {
            let publications = [publication(self.qos); PACKETS];
            self.publisher
                .publish(&self.bed.broker, TOPIC, black_box(&publications));
            for subscriber in &mut self.subscribers {
                black_box(subscriber.collect(&self.bed.broker));
                if self.qos != QoS::AtMostOnce {
                    subscriber.acknowledge(&self.bed.broker, PACKETS);
                }
            }
        }
    }

    fn crowd(count: usize, qos: QoS, kind: Kind) -> Crowd {
        let bed = Bed::new();
        let publisher = bed.client("publisher", Kind::CLEAN);
        let subscribers: Vec<Client> = (0..count)
            .map(|index| bed.client(&format!("subscriber{index}"), kind))
            .collect();
        for subscriber in &subscribers {
            subscriber.subscribe(&bed.broker, TOPIC, qos);
        }
        let mut crowd = Crowd {
            bed,
            publisher,
            subscribers,
            qos,
        };
        for _ in 0..3 {
            crowd.round();
        }
        crowd
    }

    #[library_benchmark]
    #[bench::to_1_qos0(crowd(1, QoS::AtMostOnce, Kind::CLEAN))]
    #[bench::to_1_qos1(crowd(1, QoS::AtLeastOnce, Kind::CLEAN))]
    #[bench::to_1_qos1_durable(crowd(1, QoS::AtLeastOnce, Kind::DURABLE))]
    #[bench::to_100_qos0(crowd(100, QoS::AtMostOnce, Kind::CLEAN))]
    #[bench::to_100_qos1(crowd(100, QoS::AtLeastOnce, Kind::CLEAN))]
    #[bench::to_100_qos1_durable(crowd(100, QoS::AtLeastOnce, Kind::DURABLE))]
    fn publish_collect_16(mut crowd: Crowd) -> Crowd {
        crowd.round();
        crowd
    }

    fn slot() -> Slot {
        Slot::waiting(Body::None, None, QoS::AtLeastOnce, false)
    }

    /// A queue that has been in use.
    fn queue() -> Outgoing {
        let mut queue = Outgoing::default();
        cycle(&mut queue, 0);
        queue
    }

    fn cycle(queue: &mut Outgoing, first: u64) {
        for _ in 0..PACKETS {
            queue.push(slot());
        }
        while let Next::Send(slot, id) = queue.next(1000, Ticket(0), |_, _| false) {
            black_box((slot, id));
        }
        for number in first..first + PACKETS as u64 {
            let id: PacketId = kit::packet_id(number);
            let done = queue.acknowledge(Acknowledgement::Ack, black_box(id));
            assert!(done.is_ok(), "not in flight");
        }
    }

    #[library_benchmark]
    #[bench::qos1(queue())]
    fn outgoing_cycle_16(mut queue: Outgoing) -> Outgoing {
        cycle(&mut queue, PACKETS as u64);
        queue
    }

    library_benchmark_group!(
        name = core,
        benchmarks = [
            decode_16,
            match_one_of_10000,
            publish_collect_16,
            outgoing_cycle_16
        ]
    );

    gungraun::main!(library_benchmark_groups = core);

    pub fn run() {
        main();
    }
}

mod kit;

//! Disks that are slow, that fail and that are full. The shim makes flushes of the log wait, and
//! flushes and writes fail.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::timeout;

use crate::broker::{Running, Setup};
use crate::disk::Shim;
use crate::harness::{
    Ack, Client, Connect, Packet, Publish, Reason, Subscribe, Unsubscribe, Version, scratch,
};
use crate::link::{DEADLINE, Step, Stop};

/// A broker whose log is at the mercy of the shim.
struct Patient {
    setup: Setup,
    running: Running,
    faults: PathBuf,
    _directory: TempDir,
}

impl Patient {
    async fn start(settings: &[&str]) -> Patient {
        let directory = scratch();
        let faults = directory.path().join("faults");
        std::fs::create_dir(&faults).expect("a new directory");
        let mut setup = Setup::new(&directory.path().join("data"));
        setup.environment = Shim::new().fail(directory.path(), &faults);
        let settings = settings.iter().map(|setting| (*setting).to_owned());
        setup.settings.extend(settings);
        let running = right(setup.start().await);
        Patient {
            setup,
            running,
            faults,
            _directory: directory,
        }
    }

    async fn connect(&self, connect: Connect) -> Client {
        Client::connect(self.running.address, connect).await
    }

    fn set(&self, fault: &str) {
        std::fs::write(self.faults.join(fault), "").expect("our own directory");
    }

    fn clear(&self, fault: &str) {
        std::fs::remove_file(self.faults.join(fault)).expect("it is there");
    }

    /// A flush is waiting.
    async fn is_held(&self) {
        let started = Instant::now();
        while !Path::exists(&self.faults.join("held")) {
            assert!(started.elapsed() < DEADLINE, "nothing is flushed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Kills it, and starts it again with a disk that is in order.
    async fn recover(&mut self) {
        self.running.process.kill();
        self.setup.environment.clear();
        self.running = right(self.setup.start().await);
    }
}

fn right<T>(step: Step<T>) -> T {
    match step {
        Ok(value) => value,
        Err(Stop::Gone) => panic!("the connection ended"),
        Err(Stop::Violation(what)) => panic!("{what}"),
    }
}

fn message(topic: &str, text: &str, qos: u8, id: u16) -> Packet {
    Publish::new(topic, text).qos(qos).id(id).into()
}

/// While the disk takes its time, whatever would be a promise waits: PUBACK, PUBREC, PUBCOMP,
/// SUBACK, UNSUBACK, PUBREL towards a receiver, and CONNACK for a session that is to be kept. QoS 0,
/// PINGRESP and sessions that promise nothing do not.
#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_flushed() {
    for version in [Version::V311, Version::V5] {
        let patient = Patient::start(&[]).await;
        let persistent = |name: &str| Connect::new(version, name).persistent();
        let clean = |name: &str| Connect::new(version, name);
        let mut receiver = patient.connect(persistent("receiver")).await;
        receiver.subscribe_to("t/#", 2).await;
        let mut absent = patient.connect(persistent("absent")).await;
        absent.subscribe_to("t/#", 1).await;
        absent.disconnect().await;
        let mut listener = patient.connect(clean("listener")).await;
        listener.subscribe_to("zero", 0).await;
        let mut speaker = patient.connect(clean("speaker")).await;
        let mut publisher = patient.connect(persistent("publisher")).await;
        let mut releasing = patient.connect(persistent("releasing")).await;
        let mut subscribing = patient.connect(persistent("subscribing")).await;
        subscribing.subscribe_to("a", 1).await;
        let mut clean_publisher = patient.connect(clean("clean publisher")).await;
        // One message is received and its release still to come, on both sides.
        releasing.send(message("t/1", "released", 2, 7)).await;
        releasing.expect_pubrec(7).await;
        let received = receiver.expect_publish().await;

        patient.set("hold");
        publisher
            .send_all([
                message("t/2", "one", 1, 1),
                message("t/2", "two", 2, 2),
                message("nobody", "two", 2, 3),
            ])
            .await;
        patient.is_held().await;
        clean_publisher
            .send_all([message("t/3", "one", 1, 1), message("t/3", "two", 2, 2)])
            .await;
        releasing.send(Packet::PubRel(Ack::new(7))).await;
        let mut subscribe = Subscribe::new([("b", 1)]);
        subscribe.packet_id = 21;
        let mut unsubscribe = Unsubscribe::new(&["a"]);
        unsubscribe.packet_id = 22;
        subscribing
            .send_all([subscribe.into(), unsubscribe.into()])
            .await;
        let answer = Packet::PubRec(Ack::new(received.packet_id));
        receiver.send(answer).await;
        let mut new = Client::open(patient.running.address, version).await;
        new.send(persistent("new")).await;
        let mut resumed = Client::open(patient.running.address, version).await;
        resumed.send(persistent("absent")).await;

        for client in [
            &mut publisher,
            &mut clean_publisher,
            &mut releasing,
            &mut subscribing,
        ] {
            client.expect_nothing().await;
        }
        receiver.fence().await;
        // What needs no disk goes on.
        for _ in 0..20 {
            speaker.publish_text("zero", "0", 0).await;
            assert_eq!(listener.expect_publish().await.text(), "0");
        }
        drop(patient.connect(clean("promised nothing")).await);
        for client in [&mut new, &mut resumed] {
            let early = timeout(Duration::from_millis(50), client.next()).await;
            assert!(early.is_err(), "{early:?} before its flush");
        }
        for client in [&mut publisher, &mut clean_publisher, &mut releasing] {
            client.expect_nothing().await;
        }

        patient.clear("hold");
        publisher.expect_puback(1).await;
        publisher.expect_pubrec(2).await;
        publisher.expect_pubrec(3).await;
        clean_publisher.expect_puback(1).await;
        clean_publisher.expect_pubrec(2).await;
        releasing.expect_pubcomp(7).await;
        subscribing.expect_suback(21).await;
        subscribing.expect_unsuback(22).await;
        receiver.expect_pubrel(received.packet_id).await;
        assert!(!new.expect_connack().await.session_present);
        assert!(resumed.expect_connack().await.session_present);
    }
}

/// A flush that fails says nothing about what is on the disk, and one that succeeds after it does
/// not either. So nothing is acknowledged any more.
#[tokio::test]
async fn after_a_flush_that_failed_nothing_is_acknowledged() {
    nothing_is_acknowledged_after("fail-sync").await;
}

/// A disk that fills up under the broker is a disk that failed.
#[tokio::test]
async fn after_a_write_that_failed_nothing_is_acknowledged() {
    nothing_is_acknowledged_after("no-space").await;
}

async fn nothing_is_acknowledged_after(fault: &str) {
    let mut patient = Patient::start(&[]).await;
    let mut receiver = patient.connect(Connect::v5("receiver").persistent()).await;
    receiver.subscribe_to("t/#", 2).await;
    receiver.disconnect().await;
    let mut listener = patient.connect(Connect::v5("listener")).await;
    listener.subscribe_to("zero", 0).await;
    let mut publisher = patient.connect(Connect::v5("publisher").persistent()).await;
    for number in 0..50 {
        let qos = 1 + number % 2;
        publisher
            .publish_text("t/before", &number.to_string(), qos)
            .await;
    }
    let kept = Publish::new("r/before", "kept").qos(1).retain();
    publisher.publish(kept).await;

    patient.set(fault);
    publisher.send(message("t/after", "lost", 1, 1000)).await;
    expect_no_promise(&mut publisher).await;
    right(
        patient
            .running
            .process
            .expect_log("the store has failed")
            .await,
    );
    // It is not as if it were tried again: the disk could be in order by now.
    if fault == "no-space" {
        patient.clear(fault);
    }
    for version in [Version::V311, Version::V5] {
        let mut late = patient.connect(Connect::new(version, "late")).await;
        late.send(message("t/after", "lost", 1, 1)).await;
        expect_no_promise(&mut late).await;
        let mut late = patient.connect(Connect::new(version, "late")).await;
        late.send(message("t/after", "lost", 2, 1)).await;
        expect_no_promise(&mut late).await;
        let persistent = Connect::new(version, "late and persistent").persistent();
        let mut late = Client::open(patient.running.address, version).await;
        late.send(persistent).await;
        expect_no_promise(&mut late).await;
        // Its session was there and is still promised.
        let mut late = Client::open(patient.running.address, version).await;
        late.send(Connect::new(version, "receiver").persistent())
            .await;
        expect_no_promise(&mut late).await;
    }
    // QoS 0 goes on.
    let mut speaker = patient.connect(Connect::v311("speaker")).await;
    for _ in 0..20 {
        speaker.publish_text("zero", "0", 0).await;
        assert_eq!(listener.expect_publish().await.text(), "0");
    }

    patient.recover().await;
    let persistent = Connect::v5("receiver").persistent();
    let mut receiver = patient.connect(persistent).await;
    assert!(receiver.connack.session_present);
    for number in 0..50 {
        let publish = receiver.receive().await;
        assert_eq!(publish.text(), number.to_string());
    }
    receiver.subscribe_to("r/#", 0).await;
    loop {
        // What was not acknowledged may be there, or not.
        match receiver.receive().await {
            publish if publish.topic == "t/after" => {}
            publish => {
                assert_eq!(publish.text(), "kept");
                break;
            }
        }
    }
    let publisher = patient.connect(Connect::v5("publisher").persistent()).await;
    assert!(publisher.connack.session_present);
}

/// No answer that promises anything: none at all, one that says no, or the end of the connection.
async fn expect_no_promise(client: &mut Client) {
    loop {
        let next = timeout(Duration::from_millis(100), client.next_or_closed());
        let Ok(next) = next.await else { return };
        let reason = match &next {
            None => return,
            Some(Packet::Disconnect(_)) => continue,
            Some(Packet::PubAck(ack) | Packet::PubRec(ack)) => ack.reason,
            Some(Packet::ConnAck(ack)) => ack.reason,
            Some(other) => panic!("{other:?}"),
        };
        // The return codes of version 3 begin at 1.
        let refused = match client.version {
            Version::V5 => reason.is_error(),
            _ => reason != Reason::SUCCESS,
        };
        assert!(refused, "{next:?} after the store has failed");
    }
}

/// When space gets short, new messages of QoS 1 and 2 are refused, and nothing else is.
#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_new_messages() {
    let directory = scratch();
    let mut setup = Setup::new(&directory.path().join("data"));
    let running = right(setup.start().await);
    let mut receiver = Client::connect(running.address, Connect::v5("receiver").persistent()).await;
    receiver.subscribe_to("t/#", 2).await;
    receiver.disconnect().await;
    let mut publisher = Client::connect(running.address, Connect::v5("publisher")).await;
    publisher.publish_text("t/before", "kept", 1).await;
    drop(running);

    setup
        .settings
        .push("store.disk_free_min=1000000GiB".to_owned());
    let running = right(setup.start().await);
    let mut publisher = Client::connect(running.address, Connect::v5("publisher")).await;
    for qos in [1, 2] {
        let refused = publisher
            .publish(Publish::new("t/x", "refused").qos(qos))
            .await;
        assert_eq!(refused, Reason::QUOTA_EXCEEDED);
    }
    // An MQTT 3 client can only be told by the end of its connection.
    let mut old = Client::connect(running.address, Connect::v311("old")).await;
    old.send(message("t/x", "refused", 1, 1)).await;
    old.expect_closed().await;
    let mut receiver = Client::connect(running.address, Connect::v5("receiver").persistent()).await;
    assert!(receiver.connack.session_present);
    receiver.receive_exactly("t/before", "kept").await;
    receiver.subscribe_to("zero", 0).await;
    publisher.publish_text("zero", "0", 0).await;
    receiver.receive_exactly("zero", "0").await;
    receiver.expect_nothing().await;
}

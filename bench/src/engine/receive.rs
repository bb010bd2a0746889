//! What comes: packets, events and answers, walked in place.

use anyhow::{Result, bail};
use memchr::memrchr;

use super::hooks::{self, ANSWER};
use super::stamp::Stamp;
use super::{Engine, Role};
use crate::process::now_ns;
use crate::web::Language;
use crate::web::head::Head;
use crate::wire;

impl Engine {
    /// Reads once and handles every whole packet.
    pub(super) fn receive(&mut self, index: usize, measure_from: u64) -> Result<()> {
        let conn = &mut self.conns[index];
        if conn.dead {
            return Ok(());
        }
        let mut read = std::mem::take(&mut self.read);
        let filled = conn.read_into(&mut read);
        let result = match filled {
            Ok(filled) => {
                let now = now_ns();
                let bytes = &read[..filled];
                let used = match self.conns[index].language {
                    Language::Mqtt => self.packets(index, bytes, now, measure_from),
                    Language::Lines => Ok(self.text(index, bytes, b"\n", now, measure_from)),
                    Language::Events => Ok(self.text(index, bytes, b"\n\n", now, measure_from)),
                    Language::Answers => self.answers(index, bytes),
                    Language::Requests => self.requests(bytes, now, measure_from),
                };
                match used {
                    Ok(used) => {
                        self.conns[index].keep(&read[used..filled]);
                        self.send_written(index);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        self.read = read;
        result
    }

    /// The answer is how many bytes were whole packets. Answers are gathered in `self.write`.
    fn packets(&mut self, conn: usize, bytes: &[u8], now: u64, measure_from: u64) -> Result<usize> {
        let mut used = 0;
        while let Some(packet) = wire::next_packet(&bytes[used..])? {
            used += packet.total_len;
            match (packet.kind(), self.roles[conn]) {
                (wire::PUBLISH, Role::Subscriber(subscriber)) => {
                    let publish = wire::received(self.version, &packet)?;
                    match publish.qos {
                        0 => {}
                        1 => wire::ack(&mut self.write, wire::PUBACK << 4, publish.packet_id),
                        _ => wire::ack(&mut self.write, wire::PUBREC << 4, publish.packet_id),
                    }
                    if let Some(stamp) = Stamp::read_binary(publish.payload, self.mark) {
                        self.note(subscriber, stamp, now, measure_from);
                    }
                }
                (wire::PUBREL, Role::Subscriber(_)) => {
                    wire::ack(&mut self.write, wire::PUBCOMP << 4, packet_id(&packet)?);
                }
                (wire::PUBACK | wire::PUBCOMP, Role::Publisher(publisher)) => {
                    if is_failure(&packet) {
                        self.outcome.refused += 1;
                    }
                    self.acknowledge(publisher);
                }
                (wire::PUBREC, Role::Publisher(publisher)) => {
                    if is_failure(&packet) {
                        self.outcome.refused += 1;
                        self.acknowledge(publisher);
                    } else {
                        let id = packet_id(&packet)?;
                        wire::ack(&mut self.write, wire::PUBREL << 4 | 2, id);
                    }
                }
                (wire::DISCONNECT, _) => {
                    let code = packet.body.first().copied().unwrap_or(0);
                    anyhow::bail!("the broker disconnected with code 0x{code:02X}");
                }
                (kind, _) => anyhow::bail!("unexpected packet type {kind}"),
            }
        }
        Ok(used)
    }

    /// Messages in text: all that is there up to the last `end` of one.
    fn text(&mut self, conn: usize, bytes: &[u8], end: &[u8], now: u64, from: u64) -> usize {
        let Role::Subscriber(subscriber) = self.roles[conn] else {
            return bytes.len();
        };
        let whole = whole(bytes, end);
        let mut rest = &bytes[..whole];
        while let Some((stamp, stamp_end)) = Stamp::find_text(rest, self.mark) {
            self.note(subscriber, stamp, now, from);
            rest = &rest[stamp_end..];
        }
        whole
    }

    /// What a server says to the requests of a publisher.
    fn answers(&mut self, conn: usize, bytes: &[u8]) -> Result<usize> {
        let Role::Publisher(publisher) = self.roles[conn] else {
            return Ok(bytes.len());
        };
        let mut used = 0;
        while let Some(head) = Head::read(&bytes[used..]) {
            let len = head.len + head.body_len()?;
            if bytes.len() - used < len {
                break;
            }
            if !(200..300).contains(&head.status()?) {
                self.outcome.refused += 1;
                if self.outcome.errors.is_empty() {
                    let said = String::from_utf8_lossy(&bytes[used..used + len]).into_owned();
                    self.outcome.errors.push(said);
                }
            }
            used += len;
            self.acknowledge(publisher);
        }
        Ok(used)
    }

    /// Deliveries to webhook endpoints.
    fn requests(&mut self, bytes: &[u8], now: u64, measure_from: u64) -> Result<usize> {
        let mut used = 0;
        while let Some(request) = hooks::read(&bytes[used..])? {
            used += request.len;
            self.write.extend_from_slice(ANSWER);
            if request.endpoint >= self.subscribers.len() {
                bail!(
                    "a delivery to endpoint {}, which there is not",
                    request.endpoint
                );
            }
            let mut rest = request.body;
            while let Some((stamp, end)) = Stamp::find_text(rest, self.mark) {
                let known = self.deliveries.note(&request, &stamp);
                if !known {
                    self.outcome.wrong_ids += 1;
                }
                self.note(request.endpoint, stamp, now, measure_from);
                rest = &rest[end..];
            }
        }
        Ok(used)
    }

    fn acknowledge(&mut self, publisher: usize) {
        self.publishers[publisher].acknowledged += 1;
        self.totals.acknowledged += 1;
        self.list(publisher);
    }

    /// Notes one message at one subscriber.
    #[inline]
    fn note(&mut self, subscriber: usize, stamp: Stamp, now: u64, measure_from: u64) {
        let index = stamp.publisher as usize;
        let subscriber = &mut self.subscribers[subscriber];
        let local = index.wrapping_sub(subscriber.first_publisher);
        let Some(stream) = subscriber.streams.get_mut(local) else {
            return;
        };
        let group = &mut self.groups[subscriber.group];
        let moved = if group.shared {
            group.shared_received += 1;
            self.publishers[index].progress.count_one();
            true
        } else {
            let from = stream.next;
            if !stream.receive(stamp.sequence) {
                return;
            }
            let to = stream.next;
            to > from && self.publishers[index].progress.advance(from, to)
        };
        self.totals.delivered += 1;
        if stamp.at_ns >= measure_from {
            self.outcome.latency.record(now.saturating_sub(stamp.at_ns));
        }
        if moved {
            self.list(index);
        }
    }
}

/// How many bytes are there up to the last `end`, which is one line feed or two.
fn whole(bytes: &[u8], end: &[u8]) -> usize {
    let mut to = bytes.len();
    while let Some(at) = memrchr(b'\n', &bytes[..to]) {
        if bytes[..=at].ends_with(end) {
            return at + 1;
        }
        to = at;
    }
    0
}

fn packet_id(packet: &wire::Raw<'_>) -> Result<[u8; 2]> {
    let id = packet.body.first_chunk::<2>();
    id.copied()
        .ok_or_else(|| anyhow::anyhow!("an acknowledgement without a packet identifier"))
}

/// Version 5: a reason code of 0x80 or more.
fn is_failure(packet: &wire::Raw<'_>) -> bool {
    packet.body.get(2).is_some_and(|code| *code >= 0x80)
}

//! When publishers send, and what.

use super::plan::Pace;
use super::stamp::Stamp;
use super::{CATCH_UP, Engine, Publisher};

impl Engine {
    /// Fills the windows that have room.
    pub(super) fn publish_closed(&mut self, now: u64) {
        let mut ready = std::mem::take(&mut self.ready);
        for index in ready.drain(..) {
            let publisher = &mut self.publishers[index];
            publisher.listed = false;
            let Pace::Closed { window, batch } = publisher.pace else {
                continue;
            };
            let conn = &self.conns[publisher.conn];
            if conn.dead || conn.has_unsent() {
                continue;
            }
            let mut done = publisher.sent;
            let mut room = window;
            if !publisher.unheard {
                done = done.min(publisher.progress.done());
            }
            if publisher.answered {
                done = done.min(publisher.acknowledged + publisher.forgiven);
                room = room.min(publisher.receive_maximum);
            }
            room = room.saturating_sub(publisher.sent - done);
            let left = publisher.limit - publisher.sent;
            if left == 0 {
                if done == publisher.sent && !publisher.finished {
                    publisher.finished = true;
                    self.totals.finished += 1;
                }
                continue;
            }
            let batch = batch.min(publisher.receive_maximum.div_ceil(2)).min(left);
            if room < batch {
                continue;
            }
            let count = room.min(left);
            for _ in 0..count {
                publisher.append(&mut self.write, now, index, self.mark);
            }
            self.totals.sent += count;
            let conn = publisher.conn;
            self.send_written(conn);
        }
        if self.ready.is_empty() {
            // Keeps the allocation.
            self.ready = ready;
        }
    }

    /// Sends what is due. The time in the payload is the time at which it was due, so a generator
    /// or a broker that stands still cannot hide it.
    pub(super) fn publish_open(&mut self, now: u64, measure_from: u64) {
        if now < self.due_ns {
            return;
        }
        let mut due = u64::MAX;
        self.behind = false;
        for index in 0..self.publishers.len() {
            let publisher = &mut self.publishers[index];
            let Pace::Open { interval_ns, .. } = publisher.pace else {
                continue;
            };
            let conn = &self.conns[publisher.conn];
            if conn.dead || publisher.finished {
                continue;
            }
            let mut room = CATCH_UP.min(publisher.limit - publisher.sent);
            if conn.has_unsent() {
                room = 0;
            }
            if publisher.answered {
                let unacknowledged = publisher.sent - publisher.acknowledged;
                let allowed = publisher.receive_maximum.min(60_000);
                room = room.min(allowed.saturating_sub(unacknowledged));
            }
            self.behind |= room == CATCH_UP && publisher.next_due_ns + room * interval_ns <= now;
            while publisher.next_due_ns <= now && room > 0 {
                let at = publisher.next_due_ns;
                publisher.append(&mut self.write, at, index, self.mark);
                publisher.next_due_ns += interval_ns;
                room -= 1;
                self.totals.sent += 1;
                if at >= measure_from {
                    self.outcome.send_delay.record(now - at);
                }
            }
            if publisher.sent < publisher.limit {
                due = due.min(publisher.next_due_ns);
            } else {
                publisher.finished = true;
                self.totals.finished += 1;
            }
            let conn = publisher.conn;
            self.send_written(conn);
        }
        self.due_ns = due;
        if due != u64::MAX && due > now && !self.spin {
            // A timer that cannot be set would show as latency; the next wait ends soon anyway.
            let _ = self.poll.wake_at(due);
        }
    }
}

impl Publisher {
    /// Appends one PUBLISH with its sequence number and time.
    #[inline]
    fn append(&mut self, out: &mut Vec<u8>, at_ns: u64, index: usize, mark: u32) {
        let template = &self.templates[self.next_template % self.templates.len()];
        self.next_template += 1;
        let start = out.len();
        out.extend_from_slice(&template.bytes);
        let packet = &mut out[start..];
        if template.packet_id_at > 0 {
            let id = (self.sent % 65_535) as u16 + 1;
            packet[template.packet_id_at..][..2].copy_from_slice(&id.to_be_bytes());
        }
        let stamp = Stamp {
            sequence: self.sent,
            at_ns,
            publisher: index as u32,
            mark,
        };
        let payload = &mut packet[template.payload_at..];
        match template.text {
            true => stamp.write_text(payload),
            false => stamp.write_binary(payload),
        }
        self.sent += 1;
    }
}

//! What is done with dead letters: found, read, discarded, put back.
//!
//! One that is put back keeps its place in the queue, as a message whose next attempt is due.

use super::change::test_topic;
use super::documents::{DeadRecord, RetryRecord, dead_key, retry_key};
use super::endpoint::{Endpoint, Waiting};
use super::error::WebhookError;
use super::registry::Webhooks;
use super::selection::Selection;
use crate::access::Principal;
use crate::broker::endpoint::{Change, Queued};
use crate::store::{Seq, Ticket};

/// Dead letters in one append.
const STEP: usize = 500;

/// How many messages are meant, and how many of them are put back or gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub matched: u64,
    pub done: u64,
    /// What the store must have before that is certain.
    pub ticket: Ticket,
}

impl Webhooks {
    /// The first `max` selected dead letters behind `after`, in order.
    ///
    /// # Errors
    /// When there is no such endpoint.
    pub fn dead_letters(
        &self,
        principal: &Principal,
        id: &str,
        after: Seq,
        max: usize,
        selection: &Selection,
    ) -> Result<Vec<(Seq, DeadRecord)>, WebhookError> {
        let endpoint = self.get(principal, id)?;
        Ok(endpoint.dead.list(after, max, selection))
    }

    /// One dead letter.
    ///
    /// # Errors
    /// When there is no such endpoint or dead letter, or its message is not for the principal.
    pub fn dead_letter(
        &self,
        principal: &Principal,
        id: &str,
        seq: Seq,
    ) -> Result<DeadRecord, WebhookError> {
        let endpoint = self.get(principal, id)?;
        let letter = endpoint.dead.get(seq).ok_or(WebhookError::NoDeadLetter)?;
        // Its own test messages are under $, where few may read.
        let is_test = *letter.topic == *test_topic(id);
        match is_test || principal.may_receive(&letter.topic) {
            true => Ok(letter),
            false => Err(WebhookError::NotAuthorized(format!(
                "no right to read {:?}",
                letter.topic
            ))),
        }
    }

    /// Discards one dead letter.
    ///
    /// # Errors
    /// When there is no such endpoint or dead letter.
    pub fn discard(
        &self,
        principal: &Principal,
        id: &str,
        seq: Seq,
    ) -> Result<Ticket, WebhookError> {
        let endpoint = self.get(principal, id)?;
        let letter = endpoint
            .dead
            .remove(seq)
            .ok_or(WebhookError::NoDeadLetter)?;
        let ticket = discard(&endpoint, &[(seq, letter)]);
        endpoint.changed();
        Ok(ticket)
    }

    /// Discards the selected dead letters, or counts them.
    ///
    /// # Errors
    /// When there is no such endpoint.
    pub fn discard_all(
        &self,
        principal: &Principal,
        id: &str,
        selection: &Selection,
        dry_run: bool,
    ) -> Result<Counts, WebhookError> {
        let endpoint = self.get(principal, id)?;
        let mut counts = Counts::default();
        if dry_run {
            counts.matched = endpoint.dead.count(selection) as u64;
            return Ok(counts);
        }
        each_taken(&endpoint, selection, |taken| {
            counts.done += taken.len() as u64;
            counts.ticket = counts.ticket.max(discard(&endpoint, &taken));
        });
        counts.matched = counts.done;
        endpoint.changed();
        Ok(counts)
    }

    /// Puts the selected dead letters back to be delivered, at most `rate` a second, or counts them.
    ///
    /// # Errors
    /// When there is no such endpoint.
    pub fn replay_dead(
        &self,
        principal: &Principal,
        id: &str,
        selection: &Selection,
        rate: Option<u32>,
        dry_run: bool,
    ) -> Result<Counts, WebhookError> {
        let endpoint = self.get(principal, id)?;
        let mut counts = Counts::default();
        if dry_run {
            counts.matched = endpoint.dead.count(selection) as u64;
            return Ok(counts);
        }
        let now_ms = self.broker.clock.now().0;
        each_taken(&endpoint, selection, |taken| {
            let waiting: Vec<Waiting> = taken
                .iter()
                .zip(counts.done..)
                .map(|(&(seq, _), before)| {
                    let wait_ms = rate.map_or(0, |rate| before * 1000 / u64::from(rate.max(1)));
                    Waiting {
                        seq,
                        record: RetryRecord {
                            attempts: 0,
                            due_ms: now_ms + wait_ms,
                            first_ms: now_ms,
                            status: None,
                            error: None,
                            batch: None,
                        },
                    }
                })
                .collect();
            counts.done += taken.len() as u64;
            counts.ticket = counts.ticket.max(put_back(&endpoint, waiting));
        });
        counts.matched = counts.done;
        endpoint.changed();
        Ok(counts)
    }
}

/// Takes the selected dead letters out, some at a time.
fn each_taken(
    endpoint: &Endpoint,
    selection: &Selection,
    mut each: impl FnMut(Vec<(Seq, DeadRecord)>),
) {
    let mut after = 0;
    loop {
        let page = endpoint.dead.list(after, STEP, selection);
        let Some(&(last, _)) = page.last() else {
            return;
        };
        after = last;
        // Somebody else may have taken one meanwhile.
        let taken = page.into_iter().filter_map(|(seq, _)| {
            let letter = endpoint.dead.remove(seq)?;
            Some((seq, letter))
        });
        each(taken.collect());
    }
}

fn discard(endpoint: &Endpoint, letters: &[(Seq, DeadRecord)]) -> Ticket {
    let entries: Vec<Queued> = letters.iter().map(|(seq, it)| it.queued(*seq)).collect();
    let keys: Vec<String> = letters
        .iter()
        .map(|(seq, _)| dead_key(&endpoint.id, *seq))
        .collect();
    let changes: Vec<Change<'_>> = keys.iter().map(|key| Change::Remove { key }).collect();
    endpoint.queue.done(&entries, &changes)
}

fn put_back(endpoint: &Endpoint, waiting: Vec<Waiting>) -> Ticket {
    let documents: Vec<(String, String, Vec<u8>)> = waiting
        .iter()
        .map(|it| {
            (
                dead_key(&endpoint.id, it.seq),
                retry_key(&endpoint.id, it.seq),
                it.record.to_json(),
            )
        })
        .collect();
    let changes: Vec<Change<'_>> = documents
        .iter()
        .flat_map(|(dead, retry, value)| {
            [
                Change::Remove { key: dead },
                Change::Put {
                    key: retry,
                    value,
                    expires_ms: None,
                },
            ]
        })
        .collect();
    let ticket = endpoint.queue.keep(&changes);
    endpoint.revive(waiting);
    ticket
}

//! One-time tickets: for those who can say who they are in one request and cannot in the next.
//!
//! A browser's EventSource and WebSocket set no headers, and what stands in a URL ends up in logs
//! and histories. So the page asks for a ticket with a request that can have a header, and puts
//! that into the URL: it is good for one use within half a minute. Tickets are kept in memory; after
//! a restart one asks again.

use std::collections::{BTreeSet, HashMap};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use parking_lot::Mutex;

use super::crypto::{random, sha256};
use super::{Access, Authenticated};

/// For how long a ticket can be used, in milliseconds.
pub const TICKET_LIFETIME_MS: u64 = 30_000;

/// 128 bits: not to be guessed.
const TICKET_BYTES: usize = 16;
/// The same in base64url without padding.
const TICKET_TEXT_BYTES: usize = (TICKET_BYTES * 8).div_ceil(6);

/// There are `access.tickets_max` tickets that were neither used nor have expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many tickets wait to be used; try again in half a minute")]
pub struct TicketsFull;

/// The tickets that can be used. To be shared by reference.
pub struct Tickets {
    access: Access,
    tickets_max: usize,
    table: Mutex<Table>,
}

/// A ticket is kept by its hash: how long a look-up takes tells about hashes only, and from those
/// nobody gets to the ticket.
type Hash = [u8; 32];

#[derive(Default)]
struct Table {
    by_hash: HashMap<Hash, Ticket>,
    /// By the time of their end.
    ends: BTreeSet<(u64, Hash)>,
}

struct Ticket {
    ends_at_ms: u64,
    holder: Authenticated,
}

impl Table {
    fn insert(&mut self, hash: Hash, ticket: Ticket) {
        self.ends.insert((ticket.ends_at_ms, hash));
        self.by_hash.insert(hash, ticket);
    }

    fn remove(&mut self, hash: &Hash) -> Option<Ticket> {
        let ticket = self.by_hash.remove(hash)?;
        self.ends.remove(&(ticket.ends_at_ms, *hash));
        Some(ticket)
    }

    /// Forgets what cannot be used any more.
    fn expire(&mut self, now_ms: u64) {
        while let Some((ends_at_ms, hash)) = self.ends.first().copied()
            && ends_at_ms <= now_ms
        {
            self.remove(&hash);
        }
    }
}

impl Tickets {
    /// No tickets; there can be `tickets_max`, which is `access.tickets_max`.
    pub fn new(access: Access, tickets_max: usize) -> Tickets {
        Tickets {
            access,
            tickets_max,
            table: Mutex::default(),
        }
    }

    /// A ticket for the one who asks, to be used once within [`TICKET_LIFETIME_MS`], and never after
    /// the token with which it was asked for has expired. `now_ms` is in milliseconds since the Unix
    /// epoch.
    ///
    /// # Errors
    /// When there are as many as there can be; those that exist stay good.
    pub fn issue(&self, holder: &Authenticated, now_ms: u64) -> Result<String, TicketsFull> {
        let mut ticket = [0; TICKET_BYTES];
        random(&mut ticket);
        let ticket = BASE64.encode(ticket);
        let ends_at_ms = now_ms.saturating_add(TICKET_LIFETIME_MS);
        let mut table = self.table.lock();
        table.expire(now_ms);
        if table.by_hash.len() >= self.tickets_max {
            return Err(TicketsFull);
        }
        let kept = Ticket {
            ends_at_ms: ends_at_ms.min(holder.expires_at_ms.unwrap_or(u64::MAX)),
            holder: holder.clone(),
        };
        table.insert(sha256(ticket.as_bytes()), kept);
        Ok(ticket)
    }

    /// Uses up the ticket. Answers the one who asked for it, as a client with the Client Identifier
    /// and with the rights of now. `None` if there is no such ticket, if it was used or has expired,
    /// or if the one who asked for it would not be let in any more.
    pub fn redeem(&self, client_id: &str, ticket: &str, now_ms: u64) -> Option<Authenticated> {
        if ticket.len() != TICKET_TEXT_BYTES {
            return None;
        }
        let hash = sha256(ticket.as_bytes());
        let found = {
            let mut table = self.table.lock();
            table.expire(now_ms);
            table.remove(&hash)
        };
        let holder = found?.holder;
        let principal = self.access.renew_as(&holder.principal, client_id).ok()?;
        Some(Authenticated {
            principal,
            expires_at_ms: holder.expires_at_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{access_with, config, line};
    use super::*;

    const NOW: u64 = 1_700_000_000_000;
    const RULES: &str = "tickets_max = 3\n[[access.rule]]\nuser = \"bob\"\nallow = [\"subscribe\", \"receive\"]\ntopics = \"%u/%c/#\"\n";

    fn bob(access: &Access, expires_at_ms: Option<u64>) -> Authenticated {
        Authenticated {
            principal: access.absent("asks", Some("bob")).unwrap(),
            expires_at_ms,
        }
    }

    #[test]
    fn a_ticket_is_good_once() {
        let (_file, access) = access_with(&line("bob", "secret", None), RULES);
        let tickets = Tickets::new(access.clone(), 3);
        let expiry = Some(NOW + 3_600_000);
        let ticket = tickets.issue(&bob(&access, expiry), NOW).unwrap();
        assert_eq!(ticket.len(), TICKET_TEXT_BYTES);
        let mut other = ticket.clone().into_bytes();
        other[0] = if other[0] == b'A' { b'B' } else { b'A' };
        let other = String::from_utf8(other).unwrap();
        for wrong in [
            "",
            "x",
            &other,
            &ticket[..21],
            &format!("{ticket}="),
            &"x".repeat(1 << 20),
        ] {
            assert!(tickets.redeem("c", wrong, NOW).is_none(), "{wrong:.30}");
        }
        let redeemed = tickets.redeem("c", &ticket, NOW + 1).unwrap();
        assert_eq!(redeemed.principal.user(), Some("bob"));
        assert_eq!(redeemed.expires_at_ms, expiry);
        // The client is the one who uses it.
        assert_eq!(redeemed.principal.client_id(), "c");
        assert!(redeemed.principal.may_subscribe("bob/c/x"));
        assert!(!redeemed.principal.may_subscribe("bob/asks/x"));
        assert!(tickets.redeem("c", &ticket, NOW + 1).is_none());
    }

    #[test]
    fn a_ticket_ends_after_half_a_minute_or_with_the_token() {
        let (_file, access) = access_with(&line("bob", "secret", None), RULES);
        let tickets = Tickets::new(access.clone(), 3);
        for (expires_at_ms, lifetime_ms) in [
            (None, 30_000),
            (Some(NOW + 40_000), 30_000),
            (Some(NOW + 10_000), 10_000),
        ] {
            for (after_ms, good) in [(lifetime_ms - 1, true), (lifetime_ms, false)] {
                let ticket = tickets.issue(&bob(&access, expires_at_ms), NOW).unwrap();
                let redeemed = tickets.redeem("c", &ticket, NOW + after_ms);
                assert_eq!(redeemed.is_some(), good, "{expires_at_ms:?} {after_ms}");
            }
        }
    }

    #[test]
    fn there_is_a_limit_and_what_is_over_makes_room() {
        let (_file, access) = access_with(&line("bob", "secret", None), RULES);
        let tickets = Tickets::new(access.clone(), 3);
        let holder = bob(&access, None);
        let first: Vec<String> = (0..3)
            .map(|_| tickets.issue(&holder, NOW).unwrap())
            .collect();
        assert_eq!(tickets.issue(&holder, NOW), Err(TicketsFull));
        assert!(tickets.redeem("c", &first[1], NOW).is_some());
        tickets.issue(&holder, NOW + 10_000).unwrap();
        assert_eq!(tickets.issue(&holder, NOW + 29_999), Err(TicketsFull));
        // Two of the first three have expired now.
        for _ in 0..2 {
            tickets.issue(&holder, NOW + 30_000).unwrap();
        }
        assert_eq!(tickets.issue(&holder, NOW + 30_000), Err(TicketsFull));
        let table = tickets.table.lock();
        assert_eq!((table.by_hash.len(), table.ends.len()), (3, 3));
    }

    #[test]
    fn who_is_not_let_in_any_more_has_no_ticket() {
        let both = [line("bob", "secret", None), line("eve", "secret", None)].join("\n");
        let (file, access) = access_with(&both, RULES);
        let tickets = Tickets::new(access.clone(), 3);
        let ticket = tickets.issue(&bob(&access, None), NOW).unwrap();
        let other_password = line("bob", "other", None);
        std::fs::write(file.path(), &other_password).unwrap();
        access.reload(&config(file.path(), RULES)).unwrap();
        assert!(tickets.redeem("c", &ticket, NOW).is_none());

        let ticket = tickets.issue(&bob(&access, None), NOW).unwrap();
        access.reload(&config(file.path(), "")).unwrap();
        let redeemed = tickets.redeem("c", &ticket, NOW).unwrap();
        assert!(
            !redeemed.principal.may_subscribe("bob/c/x"),
            "rights of now"
        );
    }
}

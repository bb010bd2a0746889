//! Beginning to read a stream: by SUBSCRIBE, and after a restart.

use std::sync::Arc;

use tidings_protocol::mqtt::{QoS, RetainHandling};
use tidings_protocol::sse::Since;
use tidings_protocol::topic::Filter;

use super::{Places, Reading};
use crate::broker::Broker;
use crate::broker::feed::{Cursor, OpenReader, Start};
use crate::broker::session::{Held, Session, State};
use crate::broker::subscribe::{Request, SubscribeError, parse_held};
use crate::store::Ticket;

impl Broker {
    /// Subscribes a session to a stream: to what it has from `since` on, and to what comes.
    ///
    /// A subscription that the session has already begins again, as any is replaced. With Retain
    /// Handling 1 or 2, by which a client says that it wants no history again, it goes on.
    pub(in crate::broker) fn subscribe_reading(
        &self,
        session: &Arc<Session>,
        epoch: u64,
        request: Request<'_>,
        parsed: &Filter<'_>,
        since: &str,
    ) -> Result<(QoS, Ticket), SubscribeError> {
        let since = since
            .parse::<Since>()
            .map_err(|error| SubscribeError::since(since, error))?;
        let mut state = session.lock();
        let replaces = self.may_hold(&state, epoch, request.filter)?;
        let readings_max = self.limits.replays_per_session_max;
        if !replaces && state.readings.len() >= readings_max {
            return Err(SubscribeError::TooManyReplays(readings_max));
        }
        if !self.has_stream(parsed.filter) {
            return Err(SubscribeError::no_stream(parsed.filter));
        }
        let goes_on = replaces && request.options.retain_handling != RetainHandling::Send;
        if !goes_on {
            let start = Start::of(since, self.clock.now());
            let mut reading = Reading::new(request.filter, start);
            // What it is to begin with may be gone when its turn comes, and that would be a gap. A
            // time is enough to see one.
            if !matches!(start, Start::Since(_)) && !self.begin_reading(&mut reading) {
                return Err(SubscribeError::no_stream(parsed.filter));
            }
            state.readings.retain(|it| *it.written != *request.filter);
            state.readings.push_back(reading);
        }
        let held = Held {
            options: self.granted(request.options),
            identifier: request.identifier,
        };
        self.hold(session, &mut state, request.filter, parsed, held, replaces);
        let ticket = match state.kept {
            true => self.keep_reading(session, &mut state, request.filter, held),
            false => Ticket::default(),
        };
        Ok((held.options.qos, ticket))
    }

    /// A session that the store kept goes on where it was.
    pub(in crate::broker) fn restore_reading(
        &self,
        state: &mut State,
        written: &str,
        places: &Places,
    ) {
        let since = || parse_held(written).since?.parse::<Since>().ok();
        let place = places
            .find(written)
            .or_else(|| Some(Start::of(since()?, self.clock.now())));
        let reading = Reading::new(written, place.unwrap_or(Start::Earliest));
        state.readings.push_back(reading);
    }

    /// Opens the reader of a reading at its place. False if there is no stream for it.
    ///
    /// May wait for the disk if the place is a time.
    pub(super) fn begin_reading(&self, reading: &mut Reading) -> bool {
        let filter = parse_held(&reading.written).filter;
        let Some(opened) = self.open_stream(filter, reading.place) else {
            tracing::warn!(
                filter = &*reading.written,
                "no stream has what is to be replayed: it waits until one does"
            );
            reading.is_stranded = true;
            return false;
        };
        let OpenReader { reader, gap, .. } = opened;
        match gap {
            Some(gap) => reading.missed(gap, self),
            None => reading.place = self.place_behind(reader.cursor()),
        }
        reading.reader = Some(Box::new(reader));
        true
    }

    pub(super) fn place_behind(&self, offset: crate::store::Offset) -> Start {
        Start::After(Cursor {
            epoch: self.log_epoch(),
            offset,
        })
    }
}

//! A stream of events as what carries it sees it: text that goes on, and the place that it takes.

use std::task::{Context, Poll, ready};

use super::admission::Place;
use super::event_stream::EventStream;
use super::session_stream::SessionStream;

/// What is streamed.
pub(super) enum Stream {
    Feed(EventStream),
    Session(SessionStream),
}

/// A stream and its place.
pub(super) struct Streaming {
    stream: Stream,
    ended: bool,
    _place: Place,
}

impl Streaming {
    pub(super) fn new(stream: Stream, place: Place) -> Streaming {
        Streaming {
            stream,
            ended: false,
            _place: place,
        }
    }

    /// Adds what is to be sent to `out`, and is pending while that is nothing. Not to be called again
    /// once the stream has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<()> {
        let goes_on = ready!(match &mut self.stream {
            Stream::Feed(stream) => stream.poll(cx, out),
            Stream::Session(stream) => stream.poll(cx, out),
        });
        self.ended = !goes_on;
        Poll::Ready(())
    }

    /// Whether it has said everything.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

//! A connection of HTTP/2 by prior knowledge (RFC 9113 §3.3).

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::http1::HEAD_BYTES_MAX;
use super::respond::Body;
use super::wire::{Progress, Stage, Wire};
use super::{Edge, router};
use crate::broker::Broker;
use crate::broker::stats::Drop as Reason;
use crate::edges::listen::count_panic;

/// Streams of one connection.
const STREAMS_MAX: u32 = 256;

/// Bytes of an answer that are given away at a time, so that it is seen whether they are taken.
const PIECE: usize = 16 * 1024;

tokio::task_local! {
    /// How the answer of this stream's task is getting on.
    static SENDING: Arc<Sending>;
}

/// Serves a connection of which `begun` was read already.
pub(super) async fn serve(
    edge: &Arc<Edge>,
    stream: TcpStream,
    begun: Bytes,
    peer: SocketAddr,
) -> hyper::Result<()> {
    let answers = {
        let edge = Arc::clone(edge);
        service_fn(move |request| answer(Arc::clone(&edge), peer, request))
    };
    // Only its writes have a deadline: whether the client is there is asked by pings.
    let progress = Progress::new(Mutex::new(Stage::Busy));
    let wire = Wire::new(stream, begun, Instant::now(), progress, &edge.config);
    let tasks = Tasks::new(&edge.broker, edge.config.send_timeout);
    let connection = http2::Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(edge.config.heartbeat.max(Duration::from_secs(1)))
        .serve_connection(TokioIo::new(wire), answers);
    let ending = AbortAtEnd(&tasks);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = edge.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    drop(ending);
    tasks.end().await;
    ended
}

async fn answer(
    edge: Arc<Edge>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Paced>, Infallible> {
    let response = router::answer(Arc::clone(&edge), peer, request).await;
    let sending = SENDING.with(Arc::clone);
    Ok(response.map(|body| {
        let stopped: Option<Stopped> = match body {
            Body::Events(_) => Some(Box::pin(async move { edge.stopped().await })),
            Body::Whole(_) | Body::Upgrade(_) => None,
        };
        Paced {
            body,
            stopped,
            sending,
        }
    }))
}

/// The tasks of a connection's streams.
#[derive(Clone)]
struct Tasks(Arc<Running>);

struct Running {
    broker: Arc<Broker>,
    send_timeout: Duration,
    set: Mutex<JoinSet<()>>,
}

/// No task of a stream goes on without its connection, however that ends.
struct AbortAtEnd<'t>(&'t Tasks);

impl Drop for AbortAtEnd<'_> {
    fn drop(&mut self) {
        self.0.0.set.lock().abort_all();
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let Running {
            broker,
            send_timeout,
            set,
        } = &*self.0;
        let mut set = set.lock();
        while let Some(ended) = set.try_join_next() {
            count_panic(&broker.stats, ended);
        }
        let sending = Arc::new(Sending::default());
        let serving = SENDING.scope(Arc::clone(&sending), stream);
        let (broker, send_timeout) = (Arc::clone(broker), *send_timeout);
        set.spawn(async move {
            tokio::select! {
                () = serving => {}
                // Its end resets the stream.
                () = sending.stalled(send_timeout) => {
                    if sending.is_events() {
                        broker.stats.dropped(Reason::SlowReceiver, 1);
                    }
                    tracing::debug!("an answer was ended: its client takes nothing");
                }
            }
        });
    }
}

impl Tasks {
    fn new(broker: &Arc<Broker>, send_timeout: Duration) -> Tasks {
        Tasks(Arc::new(Running {
            broker: Arc::clone(broker),
            send_timeout,
            set: Mutex::default(),
        }))
    }

    /// Waits for those that were aborted.
    async fn end(&self) {
        let mut set = std::mem::take(&mut *self.0.set.lock());
        while let Some(ended) = set.join_next().await {
            count_panic(&self.0.broker.stats, ended);
        }
    }
}

/// How an answer is getting on.
#[derive(Default)]
struct Sending {
    state: Mutex<SendingState>,
    begun: Notify,
}

#[derive(Clone, Copy, Default)]
struct SendingState {
    /// Since when the client has to take what was given; none while there is nothing to take.
    since: Option<Instant>,
    is_events: bool,
}

impl Sending {
    /// Everything given so far was taken.
    fn taken(&self) {
        self.state.lock().since = None;
    }

    fn given(&self, is_events: bool) {
        let since = Some(Instant::now());
        *self.state.lock() = SendingState { since, is_events };
        self.begun.notify_one();
    }

    fn is_events(&self) -> bool {
        self.state.lock().is_events
    }

    /// Ready once something was not taken for so long.
    async fn stalled(&self, timeout: Duration) {
        loop {
            let before = self.state.lock().since;
            let Some(since) = before else {
                self.begun.notified().await;
                continue;
            };
            sleep_until(since + timeout).await;
            if self.state.lock().since == before {
                return;
            }
        }
    }
}

type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body in pieces. The next one is asked for when the last was taken, but for what the window of
/// the stream holds.
struct Paced {
    body: Body,
    /// Until then; has a stream say goodbye.
    stopped: Option<Stopped>,
    sending: Arc<Sending>,
}

impl hyper::body::Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        this.sending.taken();
        if let Some(stopped) = &mut this.stopped
            && stopped.as_mut().poll(cx).is_ready()
        {
            this.stopped = None;
        }
        let frame = match &mut this.body {
            Body::Whole(Some(bytes)) if bytes.len() > PIECE => {
                Poll::Ready(Some(Ok(Frame::data(bytes.split_to(PIECE)))))
            }
            body => Pin::new(body).poll_frame(cx),
        };
        if let Poll::Ready(Some(_)) = &frame {
            this.sending.given(matches!(this.body, Body::Events(_)));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use hyper::rt::Executor;

    use super::*;
    use crate::broker::tests::kit::broker;

    #[tokio::test]
    async fn the_tasks_of_streams_are_counted_and_end_with_their_connection() {
        let broker = Arc::new(broker());
        let tasks = Tasks::new(&broker, Duration::from_secs(1));
        tasks.execute(async { panic!("a panic that the test wants") });
        while tasks.0.set.lock().try_join_next().map(|ended| {
            count_panic(&broker.stats, ended);
        }) != Some(())
        {
            tokio::task::yield_now().await;
        }
        assert_eq!(broker.stats.connections_panicked.get(), 1);
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        tasks.execute(async move {
            let _held = held;
            pending::<()>().await;
        });
        drop(AbortAtEnd(&tasks));
        tasks.end().await;
        assert_eq!(Arc::strong_count(&alive), 1, "it was aborted");
        assert_eq!(broker.stats.connections_panicked.get(), 1);
    }

    /// What is taken in time, however slowly, is not stalled.
    #[tokio::test(start_paused = true)]
    async fn an_answer_is_stalled_when_nothing_of_it_is_taken() {
        let sending = Arc::new(Sending::default());
        let timeout = Duration::from_secs(30);
        let stalled = tokio::spawn({
            let sending = Arc::clone(&sending);
            async move { sending.stalled(timeout).await }
        });
        for _ in 0..10 {
            sending.given(false);
            tokio::time::sleep(timeout - Duration::from_secs(1)).await;
            sending.taken();
        }
        // Nothing is there to take.
        tokio::time::sleep(10 * timeout).await;
        assert!(!stalled.is_finished());
        sending.given(true);
        let before = Instant::now();
        stalled.await.expect("no panic");
        assert_eq!(before.elapsed(), timeout);
        assert!(sending.is_events());
    }
}

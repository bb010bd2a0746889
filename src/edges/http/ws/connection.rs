//! One JSON WebSocket: requests in, replies and messages out.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidings_protocol::mqtt::{PacketId, QoS, ReasonCode};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as Code;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::super::events::{open, retained, start_of};
use super::super::named::NamedSession;
use super::super::problem::Problem;
use super::super::pull::{Pull, Rights};
use super::super::{Edge, auth, envelope, publish, render, sessions};
use super::Socket;
use super::outlet::Outlet;
use super::protocol::{self, CloseCode, Connect, End, Fault, Request, Subscribe, end};
use super::pushes::{Named, Pushes, Subscription};
use super::replies::Replies;
use crate::access::Authenticated;
use crate::broker::feed::Start;
use crate::store::Ticket;

/// Who has not said who they are by then is sent away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the connection looks after itself.
const LOOK: Duration = Duration::from_secs(1);
const PING_EVERY: Duration = Duration::from_secs(25);
/// Longer than it takes to answer a ping.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// Subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 1000;
/// Messages of a named session that are sent and not acknowledged.
const WINDOW: u16 = 1000;
/// Times that more is said before the task lets others have a turn.
const PASSES_MAX: usize = 8;

struct Connection {
    edge: Arc<Edge>,
    who: Option<Authenticated>,
    rights: Rights,
    pushes: Pushes,
    replies: Replies,
    outlet: Outlet,
    /// All that has come was read, and what answers it was written.
    is_read: bool,
}

/// What a connection cannot go on without.
enum Turn {
    /// Something came from the client, or it is gone.
    Heard(Option<Result<Message, Error>>),
    /// The client takes no more at the moment.
    Full,
    /// Its rights may have changed.
    Rights,
}

/// Serves a connection until it ends.
pub(super) async fn serve(edge: Arc<Edge>, mut socket: Socket, who: Option<Authenticated>) {
    let mut connection = Connection {
        rights: Rights::default(),
        edge,
        who,
        pushes: Pushes::default(),
        replies: Replies::default(),
        outlet: Outlet::default(),
        is_read: false,
    };
    let Some(End { code, reason }) = connection.run(&mut socket).await else {
        return;
    };
    let reconnect = code as u16 >= 4500;
    let goodbye = protocol::goodbye(reason, reconnect);
    let farewell = async {
        // Not in the middle of a frame.
        connection.outlet.finish(&mut socket).await?;
        socket.feed(Message::text(goodbye)).await?;
        let frame = CloseFrame {
            code: Code::from(code as u16),
            reason: Utf8Bytes::from_static(reason),
        };
        socket.as_mut().close(Some(frame)).await
    };
    // One that takes nothing any more is not waited for.
    if timeout(Duration::from_secs(2), farewell).await.is_err() {
        tracing::debug!(reason, "a WebSocket client did not take the goodbye");
    }
}

impl Connection {
    /// Runs until the client is gone, or there is a reason to end.
    async fn run(&mut self, socket: &mut Socket) -> Option<End> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begun = Instant::now();
        let (mut heard, mut pinged) = (begun, None);
        // Once for all turns: it is registered with all that wait for the same.
        let edge = Arc::clone(&self.edge);
        let mut stopped = pin!(edge.stopped());
        loop {
            // Nothing is sent by rights that were changed.
            if !self.rights.are_current(&self.edge.broker)
                && let Some(end) = self.look(begun)
            {
                return Some(end);
            }
            tokio::select! {
                turn = poll_fn(|cx| self.turn(cx, socket)) => match turn {
                    Ok(Turn::Heard(Some(Ok(Message::Text(text))))) => {
                        heard = Instant::now();
                        // Boxed: most sockets do not ask for anything most of the time.
                        if let Err(end) = Box::pin(self.request(&text)).await {
                            return Some(end);
                        }
                    }
                    Ok(Turn::Heard(Some(Ok(Message::Binary(_))))) => {
                        return Some(end(CloseCode::BadRequest, "requests are JSON in text frames"));
                    }
                    Ok(Turn::Heard(Some(Ok(Message::Close(_)) | Err(_)) | None)) => return None,
                    Ok(Turn::Heard(Some(Ok(_)))) => (heard, pinged) = (Instant::now(), None),
                    Ok(Turn::Full) => {
                        if let Err(end) = self.finish(socket).await {
                            return end;
                        }
                    }
                    Ok(Turn::Rights) => {}
                    Err(end) => return end,
                },
                () = &mut stopped => return Some(end(CloseCode::Stopping, "stopping")),
                _ = looks.tick() => {
                    if let Some(end) = self.look(begun) {
                        return Some(end);
                    }
                    let now = Instant::now();
                    match pinged {
                        Some(at) if now.duration_since(at) > PONG_WITHIN => return None,
                        None if now.duration_since(heard) > PING_EVERY => {
                            pinged = Some(now);
                            if socket.feed(Message::Ping(Bytes::new())).await.is_err() {
                                return None;
                            }
                            if let Err(end) = self.finish(socket).await {
                                return end;
                            }
                        }
                        Some(_) | None => {}
                    }
                }
            }
        }
    }

    /// Sends replies and messages, until there is something else to do. An error is why it ends, if the
    /// client can be told.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
    ) -> Poll<Result<Turn, Option<End>>> {
        let epoch = self.edge.broker.log_epoch();
        for _ in 0..PASSES_MAX {
            if !self.replies.is_full()
                && let Poll::Ready(heard) = self.listen(cx, socket)
            {
                return Poll::Ready(Ok(Turn::Heard(heard)));
            }
            // Others are asked for first.
            let broker = &self.edge.broker;
            if self.who.is_some() && !self.rights.are_current(broker) {
                return Poll::Ready(Ok(Turn::Rights));
            }
            let Connection {
                replies, pushes, ..
            } = self;
            let said = self.outlet.poll(cx, socket, |cx, out| {
                let replied = replies.poll(cx, broker.store(), out)?;
                let pushed = pushes.poll(cx, epoch, replies.sent(), out)?;
                match replied.is_ready() || pushed.is_ready() {
                    true => Poll::Ready(Ok(())),
                    false => Poll::Pending,
                }
            });
            if self.outlet.is_full() {
                return Poll::Ready(Ok(Turn::Full));
            }
            match ready!(said) {
                Ok(said) => said.map_err(Some)?,
                Err(_) => return Poll::Ready(Err(None)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What comes from the client. The library, which takes some steps to find that there is nothing,
    /// is asked only where there may be something.
    fn listen(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
    ) -> Poll<Option<Result<Message, Error>>> {
        if self.is_read && socket.get_mut().poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let heard = socket.poll_next_unpin(cx);
        // What answers a ping may have found no room.
        self.is_read = heard.is_pending() && socket.poll_flush_unpin(cx).is_ready();
        heard
    }

    /// Sends what the client did not take before.
    async fn finish(&mut self, socket: &mut Socket) -> Result<(), Option<End>> {
        let sending = self.outlet.finish(socket);
        match timeout(self.edge.config.send_timeout, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => {
                let stats = &self.edge.broker.stats;
                stats.dropped(crate::broker::stats::Drop::SlowReceiver, 1);
                Err(Some(end(CloseCode::TooSlow, "too-slow")))
            }
        }
    }

    /// Whether it may go on.
    fn look(&mut self, begun: Instant) -> Option<End> {
        let broker = &self.edge.broker;
        let Some(who) = &mut self.who else {
            let late = begun.elapsed() > CONNECT_TIMEOUT;
            return late.then(|| end(CloseCode::Unauthorized, "no connect in time"));
        };
        if who
            .expires_at_ms
            .is_some_and(|at| at <= broker.clock.now().0)
        {
            return Some(end(CloseCode::Unauthorized, "expired"));
        }
        let pulls = self.pushes.subscriptions.iter_mut().map(|it| &mut it.pull);
        let (access, principal) = (&self.edge.access, &mut who.principal);
        let allowed = self.rights.renew(broker, access, principal, pulls);
        (!allowed).then(|| end(CloseCode::Forbidden, "unauthorized"))
    }

    fn reply(&mut self, id: Option<&Value>, ticket: Ticket, more: Value) {
        self.replies.push(ticket, protocol::ok(id, more));
    }

    /// Handles a request. Mistakes get an error and change nothing.
    async fn request(&mut self, text: &str) -> Result<(), End> {
        let request = match protocol::read(text) {
            Ok(request) => request,
            Err(error) => {
                let fault = Fault::new("bad-request", error.to_string());
                let reply = protocol::error(protocol::id_of(text).as_ref(), &fault);
                self.replies.push(Ticket::default(), reply);
                return match error.is_data() {
                    true => Ok(()),
                    false => Err(end(CloseCode::BadRequest, "that was not JSON")),
                };
            }
        };
        let (id, result): (_, Answer) = match request {
            Request::Connect(connect) => {
                let id = connect.id.clone();
                // A wrong one never becomes an anonymous client.
                let Ok(who) = self.connect(connect).await else {
                    return Err(end(CloseCode::Unauthorized, "the credentials are wrong"));
                };
                let user = who.principal.user();
                let more = json!({"user": user, "version": env!("CARGO_PKG_VERSION")});
                self.who = Some(who);
                (id, Ok((Ticket::default(), more)))
            }
            Request::Ping(ping) => (ping.id, Ok((Ticket::default(), json!({})))),
            Request::Publish(it) => (it.id, self.publish(it.message.get()).await),
            Request::Subscribe(mut it) => {
                it.filters.extend(it.filter.take());
                let result = match it.session.take() {
                    Some(session) => self.subscribe_named(&session, &it),
                    None => match self.subscribe(&it).await {
                        Ok(()) => return Ok(()),
                        Err(fault) => Err(fault),
                    },
                };
                (it.id, result)
            }
            Request::Unsubscribe(it) => (it.id, self.unsubscribe(&it.filter)),
            Request::Ack(it) => (it.id, self.acknowledge(&it.acks)),
        };
        match result {
            Ok((ticket, more)) => self.reply(id.as_ref(), ticket, more),
            Err(fault) => {
                let reply = protocol::error(id.as_ref(), &fault);
                self.replies.push(Ticket::default(), reply);
            }
        }
        Ok(())
    }

    async fn connect(&self, given: Connect) -> Result<Authenticated, Problem> {
        let edge = &self.edge;
        let password = given.password.unwrap_or_default();
        let now = edge.broker.clock.now().0;
        match (given.token, given.ticket, given.user) {
            (Some(token), None, None) => Ok(edge.access.bearer("", &token, now)?),
            (None, Some(ticket), None) => edge
                .tickets
                .redeem("", &ticket, now)
                .ok_or_else(|| Problem::unauthorized("the ticket is not good")),
            (None, None, Some(user)) => {
                auth::by_password(edge, "", &user, password.as_bytes()).await
            }
            (None, None, None) => match &self.who {
                Some(who) => Ok(who.clone()),
                None => Err(Problem::unauthorized("say who you are")),
            },
            _ => Err(Problem::unauthorized(
                "one way to say who you are is enough",
            )),
        }
    }

    fn who(&self) -> Result<&Authenticated, Fault> {
        self.who.as_ref().ok_or_else(|| {
            Fault::new(
                "unauthorized",
                "send connect first, with a token, a ticket, or user and password",
            )
        })
    }

    async fn publish(&mut self, message: &str) -> Answer {
        self.who()?;
        let message = envelope::read(message).map_err(fault)?;
        publish::until_taken(&self.edge, &message).await;
        let who = self.who()?;
        let published = publish::publish(&self.edge, &who.principal, &message).map_err(fault)?;
        Ok((published.ticket, publish::result(&message, &published)))
    }

    /// A subscription of this connection alone, that a client resumes with `since`. Replies by itself,
    /// so that the reply is before the first message.
    async fn subscribe(&mut self, wish: &Subscribe) -> Result<(), Fault> {
        let filters = &wish.filters;
        let who = self.who()?.clone();
        if filters.is_empty() {
            let why = "name what to listen to: \"filter\":\"sensors/#\", or several as \"filters\"";
            return Err(Fault::new("no-topic", why));
        }
        if wish.qos.is_some_and(|qos| qos > 2) {
            return Err(Fault::new("bad-request", "qos is 0, 1 or 2"));
        }
        if self.pushes.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            let why = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(Fault::new("too-many", why));
        }
        let start = match &wish.since {
            Some(since) => start_of(&self.edge, since).map_err(fault)?,
            None => Start::Latest,
        };
        let label = filters.join(" ");
        if self
            .pushes
            .subscriptions
            .iter()
            .any(|it| it.filter == label)
        {
            let why = format!("{label:?} is subscribed already; unsubscribe it first");
            return Err(Fault::new("subscribed-already", why));
        }
        let wanted: Vec<&str> = filters.iter().map(String::as_str).collect();
        let opened = open(&self.edge, &who.principal, &wanted, start)
            .await
            .map_err(fault)?;
        let epoch = self.edge.broker.log_epoch();
        let cursor = render::cursor(epoch, opened.reader.cursor()).to_string();
        // The reply comes before the first message.
        self.reply(
            wish.id.as_ref(),
            Ticket::default(),
            json!({"filter": label, "cursor": cursor}),
        );
        if wish.retained {
            for message in retained(&self.edge, &wanted) {
                if who.principal.may_receive(message.topic()) {
                    let mut envelope = Vec::new();
                    render::write_envelope(&message, true, None, None, &mut envelope);
                    self.push_text(protocol::message(&label, &envelope));
                }
            }
        }
        if let Some(gap) = &opened.gap {
            self.push_text(protocol::gap(&label, epoch, gap));
        }
        let after = self.replies.count();
        let pull = Pull::new(Arc::clone(&self.edge.broker), opened.reader);
        let subscription = Subscription::new(label, pull, after);
        self.pushes.subscriptions.push(subscription);
        Ok(())
    }

    fn push_text(&mut self, text: Vec<u8>) {
        if let Ok(text) = String::from_utf8(text) {
            self.replies.push(Ticket::default(), text);
        }
    }

    /// A subscription of a named session, which outlives the connection.
    fn subscribe_named(&mut self, name: &str, wish: &Subscribe) -> Answer {
        let who = self.who()?.clone();
        if !sessions::is_name(name) {
            return Err(Fault::new("bad-session", sessions::NAME_RULE));
        }
        if wish.since.is_some() {
            let why =
                "since is for subscriptions without a session: a session knows itself where it was";
            return Err(Fault::new("bad-request", why));
        }
        let qos = match wish.qos.unwrap_or(1) {
            1 => QoS::AtLeastOnce,
            2 => QoS::ExactlyOnce,
            _ => return Err(Fault::new("bad-request", "a session takes qos 1 or 2")),
        };
        let mut ticket = Ticket::default();
        if self
            .pushes
            .named
            .as_ref()
            .is_none_or(|named| named.name != name)
        {
            if self.pushes.named.is_some() {
                let why = "a connection has one named session; open another connection";
                return Err(Fault::new("too-many", why));
            }
            let broker = &self.edge.broker;
            let expiry = sessions::expiry_secs(&self.edge, wish.session_expiry);
            let principal = sessions::owner(&self.edge, &who.principal, name).map_err(fault)?;
            let session = NamedSession::open(broker, name, &principal, expiry, WINDOW)
                .map_err(|error| fault(error.into()))?;
            ticket = session.ticket;
            self.pushes.named = Some(Named {
                name: name.to_owned(),
                session,
                // The reply to this request.
                after: self.replies.count() + 1,
                in_flight: HashMap::new(),
            });
        }
        let Some(named) = &self.pushes.named else {
            return Err(Fault::temporary("failed", "the session is gone"));
        };
        for filter in &wish.filters {
            let subscribed = named.session.subscribe(filter, qos, wish.retained);
            let (_, kept) = subscribed.map_err(|error| {
                let why = format!("{filter:?} was refused: {error}");
                Fault::new(code_of(error.reason()), why)
            })?;
            ticket = ticket.max(kept);
        }
        Ok((
            ticket,
            json!({"session": name, "present": named.session.present}),
        ))
    }

    fn unsubscribe(&mut self, filter: &str) -> Answer {
        self.who()?;
        let before = self.pushes.subscriptions.len();
        self.pushes.subscriptions.retain(|it| it.filter != filter);
        if self.pushes.subscriptions.len() < before {
            return Ok((Ticket::default(), json!({"filter": filter})));
        }
        if let Some(named) = &self.pushes.named {
            let (reason, ticket) = named.session.unsubscribe(filter);
            if reason == ReasonCode::Success {
                return Ok((ticket, json!({"filter": filter})));
            }
        }
        let why = format!("there is no subscription to {filter:?}");
        Err(Fault::new("not-subscribed", why))
    }

    fn acknowledge(&mut self, acks: &[u16]) -> Answer {
        let Some(named) = &mut self.pushes.named else {
            return Err(Fault::new(
                "no-session",
                "only messages of a named session are acknowledged",
            ));
        };
        let known: Vec<(PacketId, QoS)> = acks
            .iter()
            .filter_map(|ack| named.in_flight.remove(ack))
            .collect();
        let unknown = acks.len() - known.len() + named.session.acknowledge(&known).len();
        Ok((
            Ticket::default(),
            json!({"acknowledged": acks.len() - unknown}),
        ))
    }
}

/// What a request came to: a reply and what has to be durable first, or what is wrong.
type Answer = Result<(Ticket, Value), Fault>;

fn fault(problem: Problem) -> Fault {
    let temporary = problem.status.is_server_error();
    Fault {
        code: problem.kind,
        message: problem.detail,
        temporary,
    }
}

fn code_of(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::NotAuthorized => "forbidden",
        ReasonCode::TopicFilterInvalid => "invalid-filter",
        ReasonCode::QuotaExceeded => "too-many",
        ReasonCode::ImplementationSpecificError => "no-stream",
        _ => "refused",
    }
}

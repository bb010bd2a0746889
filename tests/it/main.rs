//! Scenarios from outside: a real broker on port 0, driven over real sockets. One scenario per
//! test, named by the clause or promise that it holds the broker to; `tests/CLAUSES.md` says which
//! statement of the standards is tested where.

mod harness;

mod auth;
mod clauses;
mod clients;
mod config;
mod connect;
mod expiry;
mod flapping;
mod flow;
mod histories;
mod http;
mod limits;
mod malformed;
mod properties;
mod publish_qos;
mod reload;
mod replay;
mod restart;
mod retained;
mod session;
mod shared;
mod shutdown;
mod store_cli;
mod store_messages;
mod subscribe;
mod sys;
mod token;
mod webhook;
mod will;

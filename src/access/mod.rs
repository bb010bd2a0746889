//! Access: who a client is, and what it may do.
//!
//! [`Access`] turns what a client says of itself (nothing, a password, an enhanced authentication,
//! or a token) into a [`Principal`], which the broker asks about each topic. The password
//! file and the rules of `[access]` can be read again at any time: [`Access::reload`] replaces
//! all of it or nothing, and [`Access::renew`] tells what that means for those already in.
//! Connections, sessions, MQTT's reason codes and HTTP's status codes are not known here.
//!
//! Start with `rights` for what rules mean, with `users` for the password file, with `token` for
//! what is shown instead of a password; [`Tickets`] and `cookie` carry tokens where a browser
//! cannot send them in a header.

mod cookie;
mod crypto;
mod hashing;
mod overlap;
mod principal;
mod rights;
mod scram;
#[cfg(test)]
mod tests;
mod tickets;
mod token;
mod users;
mod verifier;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use cookie::{COOKIE, clear_cookie, cookie_allowed, read_cookie, set_cookie};
pub use principal::Principal;
pub use tickets::{TICKET_LIFETIME_MS, Tickets, TicketsFull};
pub use token::{IssueError, SigningKey, TOKEN_BYTES_MAX, TokenError};
pub use users::{
    check_name as check_user_name, check_text as check_password_file,
    format_line as format_password_line, name_of as user_of_password_line,
};
pub use verifier::{
    ITERATIONS_DEFAULT as SCRAM_ITERATIONS_DEFAULT, ITERATIONS_MIN as SCRAM_ITERATIONS_MIN,
};

use crate::config::{AccessConfig, Config, Problems, Rule, Subject, Template};
use crypto::random;
use hashing::Hashing;
use rights::Rights;
use users::{User, Users};
use verifier::Verifier;

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Whether the user or the password is wrong is not told.
    #[error("user name or password is wrong")]
    BadCredentials,
    #[error("not let in")]
    NotAuthorized,
    #[error("too many logins at once; try again later")]
    Busy,
    /// The authentication data is not what the method wants: a mistake in the client.
    #[error("malformed authentication data: {0}")]
    Malformed(&'static str),
    /// A token was shown that is not good.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Who was let in, and until when.
#[derive(Clone, Debug)]
pub struct Authenticated {
    pub principal: Principal,
    /// When the token that was shown expires, in milliseconds since the Unix epoch: what goes on
    /// until then ends then. `None` for who proved it in another way.
    pub expires_at_ms: Option<u64>,
}

/// An enhanced authentication under way.
pub trait Exchange: Send {
    /// Takes the client's Authentication Data (empty if it sent none). After `Done` or
    /// `Failed` it is over.
    fn step(&mut self, data: &[u8]) -> Step;
}

/// What comes next in an enhanced authentication.
#[derive(Debug)]
pub enum Step {
    /// Authentication Data for the client, which has to answer.
    Continue(Vec<u8>),
    /// The client is who it says. Authentication Data for the packet that tells it so.
    Done {
        principal: Principal,
        data: Vec<u8>,
    },
    Failed(AuthError),
}

/// Begins an exchange for the client with a Client Identifier.
type Begin = fn(Access, &str) -> Box<dyn Exchange>;

/// The methods of enhanced authentication, by the name that clients ask for. Another one is
/// one more line, and a type that implements [`Exchange`].
const METHODS: &[(&str, Begin)] = &[(scram::METHOD, |access, client_id| {
    Box::new(scram::Server::new(access, client_id))
})];

/// The one authority on who is let in. Cheap to clone; all clones see a reload.
#[derive(Clone)]
pub struct Access(Arc<Shared>);

struct Shared {
    /// Of this process alone: keys digests of known passwords and made-up salts.
    key: [u8; 32],
    signing_key: ArcSwap<SigningKey>,
    state: ArcSwap<State>,
    generations: AtomicU64,
}

/// What a configuration and its password file say, as of one reading.
struct State {
    generation: u64,
    anonymous_allowed: bool,
    has_users: bool,
    users: Users,
    policy: Policy,
    hashing: Hashing,
    token_expires_max: Duration,
}

impl Access {
    /// Reads the password file that the configuration names. Tokens are signed with a key of this
    /// object alone, until [`Access::sign_with`] gives it another.
    pub fn new(config: &Config) -> Result<Access, Problems> {
        let mut key = [0; 32];
        random(&mut key);
        let state = ArcSwap::from_pointee(State::read(&config.access, 0)?);
        Ok(Access(Arc::new(Shared {
            key,
            signing_key: ArcSwap::from_pointee(SigningKey::generate()),
            state,
            generations: AtomicU64::new(1),
        })))
    }

    /// Reads rules and password file again. On an error all stays as it was.
    pub fn reload(&self, config: &Config) -> Result<(), Problems> {
        let generation = self.0.generations.fetch_add(1, Ordering::Relaxed);
        let state = State::read(&config.access, generation)?;
        self.0.state.store(Arc::new(state));
        Ok(())
    }

    /// Signs tokens with this key from now on. Those that another one signed are not good any more.
    pub fn sign_with(&self, key: SigningKey) {
        self.0.signing_key.store(Arc::new(key));
    }

    /// A token for the user, whom the caller knows to be the one who asks, or to be meant by
    /// somebody who may ask for anybody. It is good for `lifetime` from `now_ms` on (milliseconds
    /// since the Unix epoch), in whole seconds.
    ///
    /// # Errors
    /// When there is no such user, or the lifetime is less than a second or more than
    /// `access.token_expires_max`.
    pub fn issue(&self, user: &str, lifetime: Duration, now_ms: u64) -> Result<String, IssueError> {
        let state = self.0.state.load();
        if !state.has_users {
            return Err(IssueError::NoUsers);
        }
        let found = state.users.get(user);
        let user = found.ok_or_else(|| IssueError::UnknownUser(user.to_owned()))?;
        let max = state.token_expires_max;
        if lifetime < Duration::from_secs(1) || lifetime > max {
            return Err(IssueError::BadLifetime { max });
        }
        let key = self.0.signing_key.load();
        token::issue(&key, user, lifetime, now_ms).ok_or(IssueError::NameTooLong)
    }

    /// The longest that a token may be good for: `access.token_expires_max`.
    pub fn token_expires_max(&self) -> Duration {
        self.0.state.load().token_expires_max
    }

    /// Lets in a client that shows a token. `now_ms` is in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`AuthError::Token`], which says what is wrong with it. Such a client is not an anonymous
    /// one.
    pub fn bearer(
        &self,
        client_id: &str,
        token: &str,
        now_ms: u64,
    ) -> Result<Authenticated, AuthError> {
        let key = self.0.signing_key.load();
        let claims = token::verify(&key, token, now_ms)?;
        let state = self.0.state.load();
        let user = state.users.get(&claims.sub);
        let user = user.ok_or(TokenError::UnknownUser)?;
        if !claims.fits(&key, user) {
            return Err(TokenError::CredentialsChanged.into());
        }
        Ok(Authenticated {
            principal: state.principal(user, client_id)?,
            expires_at_ms: Some(claims.expires_at_ms()),
        })
    }

    /// Whether clients without a user name are let in.
    pub fn anonymous_allowed(&self) -> bool {
        self.0.state.load().anonymous_allowed
    }

    /// Lets in a client that gave no user name.
    pub fn anonymous(&self, client_id: &str) -> Result<Principal, AuthError> {
        self.0.state.load().anonymous(client_id)
    }

    /// Lets in a client that gave a user name and a password. Where there are no users, a name
    /// can neither be right nor wrong: then the client is an anonymous one.
    pub async fn password(
        &self,
        client_id: &str,
        user: &str,
        password: &[u8],
    ) -> Result<Principal, AuthError> {
        let state = self.0.state.load_full();
        if !state.has_users {
            return state.anonymous(client_id);
        }
        let digest = hashing::digest(&self.0.key, user, password);
        let found = state.users.get(user);
        if let Some(found) = found.filter(|found| hashing::is_known(found, &digest)) {
            return state.principal(found, client_id);
        }
        // An unknown user costs what a known one costs.
        let choice = hashing::digest(&self.0.key, user, b"");
        let choice =
            u64::from_be_bytes(*choice.first_chunk().expect("a digest is longer than that"));
        let Some(verified) = found.or_else(|| state.users.stand_in(choice)) else {
            return Err(AuthError::BadCredentials);
        };
        let right = state.hashing.verify(verified.clone(), password).await?;
        let Some(found) = found.filter(|_| right) else {
            return Err(AuthError::BadCredentials);
        };
        // Right for ever, or until the file is read again.
        found.known().get_or_init(|| digest);
        // It may have been read again while we were busy.
        let state = self.0.state.load();
        state.principal(found, client_id)
    }

    /// The methods of enhanced authentication that are offered.
    pub fn methods(&self) -> Vec<&'static str> {
        match self.0.state.load().users.any_scram() {
            true => METHODS.iter().map(|(name, _)| *name).collect(),
            false => Vec::new(),
        }
    }

    /// Begins an enhanced authentication; `None` if there is no such method.
    pub fn begin(&self, method: &str, client_id: &str) -> Option<Box<dyn Exchange>> {
        let (_, begin) = METHODS.iter().find(|(name, _)| *name == method)?;
        self.0
            .state
            .load()
            .has_users
            .then(|| begin(self.clone(), client_id))
    }

    /// The principal with the rights of now. Fails if its user is gone or has another password,
    /// or if anonymous clients are no longer let in: then its connection should end.
    pub fn renew(&self, principal: &Principal) -> Result<Principal, AuthError> {
        let state = self.0.state.load();
        if principal.generation() == state.generation {
            return Ok(principal.clone());
        }
        state.renew(principal, principal.client_id())
    }

    /// The same for another Client Identifier.
    fn renew_as(&self, principal: &Principal, client_id: &str) -> Result<Principal, AuthError> {
        self.0.state.load().renew(principal, client_id)
    }

    /// The principal that a session belongs to whose client is absent, as after a restart: the
    /// rights that it would have, without a proof. Fails if it would not be let in.
    pub fn absent(&self, client_id: &str, user: Option<&str>) -> Result<Principal, AuthError> {
        let state = self.0.state.load();
        match user {
            None => state.anonymous(client_id),
            Some(user) => {
                let user = state.users.get(user).ok_or(AuthError::NotAuthorized)?;
                state.principal(user, client_id)
            }
        }
    }

    fn key(&self) -> &[u8; 32] {
        &self.0.key
    }

    /// The user's SCRAM verifier; and one to imitate where there is none.
    fn scram_verifier(&self, user: &str) -> (Option<Verifier>, Option<Verifier>) {
        let state = self.0.state.load();
        let own = state.users.get(user).and_then(|user| user.scram()).cloned();
        let choice = hashing::digest(&self.0.key, user, b"");
        let choice =
            u64::from_be_bytes(*choice.first_chunk().expect("a digest is longer than that"));
        let like = state
            .users
            .stand_in(choice)
            .and_then(|user| user.scram())
            .cloned();
        (own, like)
    }

    /// Lets in a user that has proven to know the password of `verifier`.
    fn scram_principal(
        &self,
        client_id: &str,
        user: &str,
        verifier: &Verifier,
    ) -> Result<Principal, AuthError> {
        let state = self.0.state.load();
        let user = state
            .users
            .get(user)
            .filter(|user| user.scram() == Some(verifier));
        state.principal(user.ok_or(AuthError::BadCredentials)?, client_id)
    }
}

impl State {
    fn read(config: &AccessConfig, generation: u64) -> Result<State, Problems> {
        let users = match &config.password_file {
            Some(path) => Users::read(path)?,
            None => Users::default(),
        };
        Ok(State {
            generation,
            anonymous_allowed: config.anonymous_allowed(),
            has_users: config.password_file.is_some(),
            users,
            policy: Policy::new(config),
            hashing: Hashing::new(config.hash_threads),
            token_expires_max: config.token_expires_max,
        })
    }

    /// The rights of now for whom an earlier state let in.
    fn renew(&self, principal: &Principal, client_id: &str) -> Result<Principal, AuthError> {
        match principal.credentials() {
            Some(user) => self.principal(user, client_id),
            None => self.anonymous(client_id),
        }
    }

    fn anonymous(&self, client_id: &str) -> Result<Principal, AuthError> {
        if !self.anonymous_allowed {
            return Err(AuthError::NotAuthorized);
        }
        let rights = self.policy.rights(None, client_id);
        Ok(Principal::new(None, client_id, rights, self.generation))
    }

    /// The principal of a user that was verified against the credentials given, provided
    /// that those are still in force.
    fn principal(&self, user: &Arc<User>, client_id: &str) -> Result<Principal, AuthError> {
        let current = self
            .users
            .get(user.name())
            .filter(|current| current.same_credentials(user));
        let current = current.ok_or(AuthError::BadCredentials)?;
        let rights = self.policy.rights(Some(current.name()), client_id);
        Ok(Principal::new(
            Some(current.clone()),
            client_id,
            rights,
            self.generation,
        ))
    }
}

/// The rules, and the rights that come out the same for many clients.
struct Policy {
    rules: Vec<Rule>,
    unrestricted: bool,
    anonymous: Arc<Rights>,
    /// Users that no rule names.
    others: Arc<Rights>,
    named: HashMap<String, Arc<Rights>>,
    /// Whether rights depend on names, and so have to be worked out for each client.
    templated: bool,
}

impl Policy {
    fn new(config: &AccessConfig) -> Policy {
        let rules = config.rules.clone();
        let unrestricted = config.unrestricted();
        let of = |user| match unrestricted {
            true => Arc::new(Rights::everything()),
            false => Arc::new(Rights::of(&rules, user, "")),
        };
        let names = rules.iter().filter_map(|rule| match &rule.subject {
            Subject::User(name) => Some(name),
            _ => None,
        });
        Policy {
            unrestricted,
            anonymous: of(None),
            // No user has an empty name, so no rule names this one.
            others: of(Some("")),
            named: names.map(|name| (name.clone(), of(Some(name)))).collect(),
            templated: rules
                .iter()
                .flat_map(|rule| &rule.topics)
                .any(|topic| !Template::is_fixed(topic)),
            rules,
        }
    }

    fn rights(&self, user: Option<&str>, client_id: &str) -> Arc<Rights> {
        if self.templated && !self.unrestricted {
            return Arc::new(Rights::of(&self.rules, user, client_id));
        }
        match user {
            None => self.anonymous.clone(),
            Some(user) => self.named.get(user).unwrap_or(&self.others).clone(),
        }
    }
}

//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, without channel binding.
//!
//! The client proves that it knows the password without sending it, and the server that it
//! knows the verifier. Nothing here takes long: the hashing is the client's work.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::crypto::{constant_time_eq, hmac, random, sha256, xor};
use super::verifier::Verifier;
use super::{Access, AuthError, Exchange, Step};

pub(super) use super::verifier::METHOD;

/// The server's side of one authentication.
pub(super) struct Server {
    access: Access,
    client_id: Box<str>,
    /// The part of the nonce that is ours. Drawn at the start, so that tests can give it.
    nonce: String,
    stage: Stage,
}

enum Stage {
    /// `asked`: the client began without data and was asked for its first message.
    ClientFirst {
        asked: bool,
    },
    ClientFinal(Box<Challenge>),
    Over,
}

/// What was sent to the client and has to be answered.
struct Challenge {
    user: String,
    /// Whether such a user exists. The proof is checked all the same.
    exists: bool,
    verifier: Verifier,
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl Server {
    pub fn new(access: Access, client_id: &str) -> Self {
        let mut nonce = [0; 18];
        random(&mut nonce);
        Self::with_nonce(access, client_id, BASE64.encode(nonce))
    }

    fn with_nonce(access: Access, client_id: &str, nonce: String) -> Self {
        Server {
            access,
            client_id: client_id.into(),
            nonce,
            stage: Stage::ClientFirst { asked: false },
        }
    }

    /// `n,,n=user,r=nonce`
    fn client_first(&mut self, message: &str) -> Result<Step, AuthError> {
        let malformed = AuthError::Malformed;
        let (binding, rest) = message.split_once(',').ok_or(malformed("no GS2 header"))?;
        let (authzid, bare) = rest.split_once(',').ok_or(malformed("no GS2 header"))?;
        match binding {
            // "y": the client could bind to the channel and thinks that we cannot. We cannot.
            "n" | "y" => {}
            _ if binding.starts_with("p=") => {
                return Err(malformed("channel binding is not offered"));
            }
            _ => return Err(malformed("an unknown GS2 header")),
        }
        let mut attributes = bare.split(',');
        let user = attributes.next().and_then(|user| user.strip_prefix("n="));
        let user = unescape(user.ok_or(malformed(
            "no user name, or an extension that must be known",
        ))?)?;
        if !authzid.is_empty()
            && Some(&user)
                != authzid
                    .strip_prefix("a=")
                    .map(unescape)
                    .transpose()?
                    .as_ref()
        {
            return Err(AuthError::NotAuthorized);
        }
        let client_nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        let client_nonce = client_nonce
            .filter(|nonce| nonce_is_valid(nonce))
            .ok_or(malformed("no nonce"))?;

        let (known, like) = self.access.scram_verifier(&user);
        let verifier = match &known {
            Some(verifier) => verifier.clone(),
            None => Verifier::pretend(self.access.key(), &user, like.as_ref()),
        };
        let nonce = format!("{client_nonce}{}", self.nonce);
        let server_first = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(verifier.salt()),
            verifier.iterations()
        );
        let reply = server_first.clone().into_bytes();
        self.stage = Stage::ClientFinal(Box::new(Challenge {
            user,
            exists: known.is_some(),
            verifier,
            gs2_header: format!("{binding},{authzid},"),
            client_first_bare: bare.to_owned(),
            server_first,
            nonce,
        }));
        Ok(Step::Continue(reply))
    }

    /// `c=biws,r=nonce,p=proof`
    fn client_final(&self, challenge: &Challenge, message: &str) -> Result<Step, AuthError> {
        let malformed = AuthError::Malformed;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(malformed("no proof"))?;
        let proof = BASE64
            .decode(proof)
            .ok()
            .and_then(|proof| <[u8; 32]>::try_from(proof).ok());
        let proof = proof.ok_or(malformed("the proof is not 32 bytes in base64"))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes
            .next()
            .and_then(|binding| binding.strip_prefix("c="));
        if binding != Some(&BASE64.encode(&challenge.gs2_header)) {
            return Err(malformed("the GS2 header is not repeated"));
        }
        if attributes.next().and_then(|nonce| nonce.strip_prefix("r=")) != Some(&challenge.nonce) {
            return Err(malformed("the nonce is not repeated"));
        }

        let Challenge {
            verifier,
            client_first_bare,
            server_first,
            ..
        } = challenge;
        let auth_message = format!("{client_first_bare},{server_first},{without_proof}");
        let signature = hmac(verifier.stored_key(), &[auth_message.as_bytes()]);
        let client_key = xor(&proof, &signature);
        let proven = constant_time_eq(&sha256(&client_key), verifier.stored_key());
        if !(proven && challenge.exists) {
            return Err(AuthError::BadCredentials);
        }
        // The user may have gone, or have another password, since the challenge.
        let principal = self
            .access
            .scram_principal(&self.client_id, &challenge.user, verifier)?;
        let server_signature = hmac(verifier.server_key(), &[auth_message.as_bytes()]);
        let data = format!("v={}", BASE64.encode(server_signature)).into_bytes();
        Ok(Step::Done { principal, data })
    }
}

impl Exchange for Server {
    fn step(&mut self, data: &[u8]) -> Step {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Ok(message) = std::str::from_utf8(data) else {
            return Step::Failed(AuthError::Malformed("a message that is not UTF-8"));
        };
        let step = match stage {
            Stage::ClientFirst { asked: false } if message.is_empty() => {
                self.stage = Stage::ClientFirst { asked: true };
                Ok(Step::Continue(Vec::new()))
            }
            Stage::ClientFirst { .. } => self.client_first(message),
            Stage::ClientFinal(challenge) => self.client_final(&challenge, message),
            Stage::Over => Err(AuthError::Malformed(
                "a message after the end of the exchange",
            )),
        };
        step.unwrap_or_else(Step::Failed)
    }
}

/// A saslname: `=2C` and `=3D` stand for comma and equals sign, and no other `=` occurs.
fn unescape(name: &str) -> Result<String, AuthError> {
    let mut parts = name.split('=');
    let mut unescaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (c, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(AuthError::Malformed("a user name with a bare equals sign")),
        };
        unescaped.push(c);
        unescaped.push_str(rest);
    }
    match unescaped.is_empty() {
        true => Err(AuthError::Malformed("an empty user name")),
        false => Ok(unescaped),
    }
}

/// Printable ASCII without the comma.
fn nonce_is_valid(nonce: &str) -> bool {
    !nonce.is_empty()
        && nonce
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::{self, access_with};

    /// The client's side, just enough of it to try the server.
    struct Client {
        password: &'static str,
        first_bare: String,
    }

    impl Client {
        fn begin(user: &str, password: &'static str) -> (Client, String) {
            let first_bare = format!("n={user},r=rOprNGfwEbeRWgbNEkqO");
            let message = format!("n,,{first_bare}");
            (
                Client {
                    password,
                    first_bare,
                },
                message,
            )
        }

        fn answer(&self, server_first: &str) -> (String, String) {
            let field = |name: &str| {
                server_first
                    .split(',')
                    .find_map(|field| field.strip_prefix(name))
                    .unwrap()
            };
            let salt = BASE64.decode(field("s=")).unwrap();
            let salted = crate::access::crypto::pbkdf2(
                self.password.as_bytes(),
                &salt,
                field("i=").parse().unwrap(),
            );
            let client_key = hmac(&salted, &[b"Client Key"]);
            let without_proof = format!("c=biws,r={}", field("r="));
            let auth_message = format!("{},{server_first},{without_proof}", self.first_bare);
            let signature = hmac(&sha256(&client_key), &[auth_message.as_bytes()]);
            let proof = BASE64.encode(xor(&client_key, &signature));
            let server_signature =
                hmac(&hmac(&salted, &[b"Server Key"]), &[auth_message.as_bytes()]);
            (
                format!("{without_proof},p={proof}"),
                format!("v={}", BASE64.encode(server_signature)),
            )
        }
    }

    fn text(step: Step) -> String {
        match step {
            Step::Continue(data) => String::from_utf8(data).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn error(step: Step) -> AuthError {
        match step {
            Step::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    /// Both sides of a whole exchange; the server's last step.
    fn run(access: &Access, user: &str, password: &'static str) -> Step {
        let mut server = access.begin(METHOD, "c1").expect("the method is offered");
        let (client, first) = Client::begin(user, password);
        let challenge = text(server.step(first.as_bytes()));
        let (last, expected) = client.answer(&challenge);
        let step = server.step(last.as_bytes());
        if let Step::Done { data, .. } = &step {
            assert_eq!(String::from_utf8_lossy(data), expected);
        }
        assert!(
            matches!(
                server.step(last.as_bytes()),
                Step::Failed(AuthError::Malformed(_))
            ),
            "it is over"
        );
        step
    }

    /// RFC 7677 §3.
    #[test]
    fn the_example_of_the_rfc() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive("pencil", &salt, 4096);
        let hash = tests::line("user", "pencil", None);
        let (_file, access) = access_with(&format!("{hash}:{verifier}\n"), "");
        let mut server =
            Server::with_nonce(access, "c1", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned());
        assert_eq!(
            text(server.step(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        match server.step(last.as_bytes()) {
            Step::Done { principal, data } => {
                assert_eq!(data, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
                assert_eq!(
                    (principal.user(), principal.client_id()),
                    (Some("user"), "c1")
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn users_get_in_with_their_password_and_nothing_else() {
        let lines = [
            ("bob", "secret", Some(4096)),
            ("a,b=c", "secret", Some(5000)),
            ("carol", "secret", None),
        ];
        let text = lines
            .map(|(name, password, scram)| tests::line(name, password, scram))
            .join("\n");
        let (_file, access) = access_with(&text, "");
        assert!(matches!(run(&access, "bob", "secret"), Step::Done { .. }));
        assert!(matches!(
            run(&access, "a=2Cb=3Dc", "secret"),
            Step::Done { .. }
        ));
        for (user, password) in [
            ("bob", "Secret"),
            ("bob", ""),
            // She has a password, but no verifier.
            ("carol", "secret"),
            ("nobody", "secret"),
        ] {
            assert_eq!(
                error(run(&access, user, password)),
                AuthError::BadCredentials,
                "{user} {password}"
            );
        }
    }

    #[test]
    fn whether_a_user_exists_is_not_told() {
        let (_file, access) = access_with(&tests::line("bob", "secret", Some(5000)), "");
        let challenge = |user| {
            let mut server = access.begin(METHOD, "c1").unwrap();
            let challenge = text(server.step(Client::begin(user, "").1.as_bytes()));
            challenge.split_once(",s=").unwrap().1.to_owned()
        };
        // The same salt each time, of the same length, and the same iterations.
        assert_eq!(challenge("nobody"), challenge("nobody"));
        assert_ne!(challenge("nobody"), challenge("noone"));
        assert_eq!(challenge("nobody").len(), challenge("bob").len());
        assert!(challenge("nobody").ends_with(",i=5000"));
    }

    #[test]
    fn malformed_messages_are_refused() {
        let (_file, access) = access_with(&tests::line("bob", "secret", Some(4096)), "");
        let begin = || access.begin(METHOD, "c1").unwrap();
        for first in [
            "n",
            "n,",
            "n,,",
            "n,,n=bob",
            "n,,n=,r=abc",
            "n,,n=bob,r=",
            "n,,n=bob,r=a b",
            "n,,r=abc,n=bob",
            "n,,n=b=b,r=abc",
            "n,,m=x,n=bob,r=abc",
            "p=tls-unique,,n=bob,r=abc",
            "x,,n=bob,r=abc",
            "n,a=b=b,n=bob,r=abc",
            "n,,n=bob,r=\u{e9}",
        ] {
            assert!(
                matches!(
                    begin().step(first.as_bytes()),
                    Step::Failed(AuthError::Malformed(_))
                ),
                "{first}"
            );
        }
        assert!(matches!(
            begin().step(b"n,,n=\xff,r=abc"),
            Step::Failed(AuthError::Malformed(_))
        ));
        // To act for somebody else is not offered.
        assert_eq!(
            error(begin().step(b"n,a=eve,n=bob,r=abc")),
            AuthError::NotAuthorized
        );
        assert!(matches!(
            begin().step(b"n,a=bob,n=bob,r=abc"),
            Step::Continue(_)
        ));
        assert!(matches!(
            begin().step(b"y,,n=bob,r=abc,x=extension"),
            Step::Continue(_)
        ));

        let (client, first) = Client::begin("bob", "secret");
        for (good, bad) in [
            ("c=biws", "c=eSws"),
            ("c=biws,", ""),
            ("r=r", "r=x"),
            (",p=", ",q="),
            (",p=", ",p=A"),
            (",p=", ",p=!"),
        ] {
            let mut server = begin();
            let (last, _) = client.answer(&text(server.step(first.as_bytes())));
            let last = last.replacen(good, bad, 1);
            assert!(
                matches!(
                    server.step(last.as_bytes()),
                    Step::Failed(AuthError::Malformed(_))
                ),
                "{last}"
            );
        }
    }

    #[test]
    fn a_client_may_send_its_first_message_when_asked() {
        let (_file, access) = access_with(&tests::line("bob", "secret", Some(4096)), "");
        let mut server = access.begin(METHOD, "c1").unwrap();
        assert_eq!(text(server.step(b"")), "");
        let (client, first) = Client::begin("bob", "secret");
        let challenge = text(server.step(first.as_bytes()));
        assert!(matches!(
            server.step(client.answer(&challenge).0.as_bytes()),
            Step::Done { .. }
        ));

        let mut server = access.begin(METHOD, "c1").unwrap();
        server.step(b"");
        assert!(
            matches!(server.step(b""), Step::Failed(AuthError::Malformed(_))),
            "it is not asked twice"
        );
    }

    #[test]
    fn a_password_changed_meanwhile_is_the_wrong_one() {
        let (file, access) = access_with(&tests::line("bob", "secret", Some(4096)), "");
        let mut server = access.begin(METHOD, "c1").unwrap();
        let (client, first) = Client::begin("bob", "secret");
        let challenge = text(server.step(first.as_bytes()));
        std::fs::write(file.path(), tests::line("bob", "other", Some(4096))).unwrap();
        access.reload(&tests::config(file.path(), "")).unwrap();
        let last = client.answer(&challenge).0;
        assert_eq!(
            error(server.step(last.as_bytes())),
            AuthError::BadCredentials
        );
    }

    #[test]
    fn only_known_methods_are_offered() {
        let (_file, access) = access_with(&tests::line("bob", "secret", Some(4096)), "");
        assert_eq!(access.methods(), [METHOD]);
        assert!(access.begin("SCRAM-SHA-1", "c").is_none() && access.begin("", "c").is_none());
        let open = Access::new(&crate::config::Config::default()).unwrap();
        assert_eq!(open.methods(), [""; 0]);
        assert!(open.begin(METHOD, "c").is_none(), "there are no users");
    }
}

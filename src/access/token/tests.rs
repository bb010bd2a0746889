//! Tokens: what is issued is taken, and nothing else is.

use super::super::tests::{access_with, config, line};
use super::super::{Access, AuthError};
use super::*;
use proptest::prelude::*;

/// Not a whole second.
const NOW: u64 = 1_700_000_000_250;
const HOUR: Duration = Duration::from_secs(3600);
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn key() -> SigningKey {
    SigningKey([7; 32])
}

fn access() -> (tempfile::NamedTempFile, Access) {
    let users = [line("bob", "secret", Some(4096)), line("eve", "x", None)];
    let (file, access) = access_with(&users.join("\n"), "");
    access.sign_with(key());
    (file, access)
}

fn refused(access: &Access, token: &str, now_ms: u64) -> TokenError {
    match access.bearer("c", token, now_ms) {
        Err(AuthError::Token(error)) => error,
        other => panic!("{other:?} for {token:.300}"),
    }
}

/// The token's claims as JSON.
fn claims(token: &str) -> serde_json::Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64.decode(claims).unwrap()).unwrap()
}

#[test]
fn what_is_issued_is_taken() {
    let (_file, access) = access();
    let token = access.issue("bob", HOUR, NOW).unwrap();
    let bob = access.bearer("c1", &token, NOW).unwrap();
    assert_eq!(bob.principal.user(), Some("bob"));
    assert_eq!(bob.principal.client_id(), "c1");
    assert_eq!(bob.expires_at_ms, Some(1_700_003_600_000));
    assert!(access.renew(&bob.principal).is_ok());

    let claims = claims(&token);
    assert_eq!(claims["iss"], "tidings");
    assert_eq!(claims["sub"], "bob");
    assert_eq!(claims["iat"], 1_700_000_000);
    assert_eq!(claims["exp"], 1_700_003_600);
    assert_eq!(claims["jti"].as_str().unwrap().len(), 22);
    let other = access.issue("bob", HOUR, NOW).unwrap();
    assert_ne!(token, other, "each has an id of its own");
    // Any text at all can be a name.
    let name = "b\u{f6}b \"x\\ \u{1F600}.";
    let (_file, access) = access_with(&line(name, "secret", None), "");
    let token = access.issue(name, HOUR, NOW).unwrap();
    let principal = access.bearer("c", &token, NOW).unwrap().principal;
    assert_eq!(principal.user(), Some(name));
}

/// RFC 7515, appendix A.1.
#[test]
fn the_signature_is_that_of_the_standard() {
    let key = BASE64
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = hmac(&key, &[signed.as_bytes()]);
    assert_eq!(
        BASE64.encode(signature),
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    );
}

#[test]
fn a_token_is_good_for_its_time() {
    let (_file, access) = access();
    let token = access.issue("bob", HOUR, NOW).unwrap();
    for good in [NOW - 86_400_000, NOW, 1_700_003_599_999] {
        assert!(access.bearer("c", &token, good).is_ok(), "{good}");
    }
    for late in [1_700_003_600_000, 1_700_003_600_001, u64::MAX] {
        assert_eq!(refused(&access, &token, late), TokenError::Expired);
    }
    let with_nbf = |nbf: u64| {
        let mut claims = claims(&token);
        claims["nbf"] = nbf.into();
        sign(&key(), HEADER.as_bytes(), claims.to_string().as_bytes())
    };
    assert!(access.bearer("c", &with_nbf(1_700_000_000), NOW).is_ok());
    for early in [1_700_000_001, u64::MAX] {
        let error = refused(&access, &with_nbf(early), NOW);
        assert_eq!(error, TokenError::NotYetValid);
    }
}

#[test]
fn how_long_and_for_whom_a_token_can_be() {
    let (file, access) = access();
    let max = Duration::from_secs(30 * 24 * 3600);
    let over = IssueError::BadLifetime { max };
    let second = Duration::from_secs(1);
    for (lifetime, error) in [
        (second, None),
        (max, None),
        (Duration::ZERO, Some(&over)),
        (Duration::from_millis(999), Some(&over)),
        (max + Duration::from_millis(1), Some(&over)),
        (Duration::MAX, Some(&over)),
    ] {
        let issued = access.issue("bob", lifetime, NOW);
        assert_eq!(issued.as_ref().err(), error, "{lifetime:?}");
        if let Ok(token) = issued {
            assert!(access.bearer("c", &token, NOW).is_ok(), "{lifetime:?}");
        }
    }
    assert!(over.to_string().contains("for 30d at the most"), "{over}");
    let settings = config(file.path(), "token_expires_max = \"1h\"");
    access.reload(&settings).unwrap();
    let max = HOUR;
    assert!(access.issue("bob", HOUR, NOW).is_ok());
    assert_eq!(
        access.issue("bob", HOUR + second, NOW),
        Err(IssueError::BadLifetime { max })
    );
    assert_eq!(
        access.issue("carol", HOUR, NOW),
        Err(IssueError::UnknownUser("carol".into()))
    );
    let nobody = Access::new(&crate::config::Config::default()).unwrap();
    assert_eq!(nobody.issue("bob", HOUR, NOW), Err(IssueError::NoUsers));
    // Its claims alone would be longer.
    let name = "x".repeat(3000);
    let (_file, access) = access_with(&line(&name, "secret", None), "");
    assert_eq!(access.issue(&name, HOUR, NOW), Err(IssueError::NameTooLong));
}

#[test]
fn a_token_does_not_outlive_its_user_or_the_password() {
    let (file, access) = access();
    let token = access.issue("bob", HOUR, NOW).unwrap();
    let original = std::fs::read_to_string(file.path()).unwrap();
    let (bob, eve) = original.split_once('\n').unwrap();
    let without_scram = bob.rsplit_once(':').unwrap().0;
    let another = line("bob", "secret", Some(4096));
    let other_scram = another.rsplit_once(':').unwrap().1;
    for (passwords, expected) in [
        (eve.to_owned(), Some(TokenError::UnknownUser)),
        (String::new(), Some(TokenError::UnknownUser)),
        (
            line("bob", "other", Some(4096)),
            Some(TokenError::CredentialsChanged),
        ),
        // The same password with another salt has been set again: who does that means it.
        (
            line("bob", "secret", None),
            Some(TokenError::CredentialsChanged),
        ),
        (
            without_scram.to_owned(),
            Some(TokenError::CredentialsChanged),
        ),
        (
            format!("{without_scram}:{other_scram}"),
            Some(TokenError::CredentialsChanged),
        ),
        // Others may come and go.
        (format!("# moved\n{bob}\n"), None),
        (original.clone(), None),
    ] {
        std::fs::write(file.path(), &passwords).unwrap();
        access.reload(&config(file.path(), "")).unwrap();
        match expected {
            Some(error) => assert_eq!(refused(&access, &token, NOW), error, "{passwords}"),
            None => assert!(access.bearer("c", &token, NOW).is_ok(), "{passwords}"),
        }
    }
    // Where there is nobody, a token does not make one anonymous.
    access.reload(&crate::config::Config::default()).unwrap();
    assert!(access.anonymous("c").is_ok());
    assert_eq!(refused(&access, &token, NOW), TokenError::UnknownUser);
}

#[test]
fn another_key_is_no_key() {
    let (_file, access) = access();
    let token = access.issue("bob", HOUR, NOW).unwrap();
    access.sign_with(SigningKey::generate());
    assert_eq!(refused(&access, &token, NOW), TokenError::BadSignature);
    access.sign_with(SigningKey::from_bytes(key().as_bytes()).unwrap());
    assert!(access.bearer("c", &token, NOW).is_ok());
    assert_eq!(SigningKey::from_bytes(&[7; 31]), None);
    assert_eq!(SigningKey::from_bytes(&[7; 33]), None);
    assert!(!format!("{:?}", key()).contains('7'));
    // The fingerprint is keyed too: otherwise it would tell who has the same password file line.
    let cred = |key: SigningKey| {
        access.sign_with(key);
        claims(&access.issue("bob", HOUR, NOW).unwrap())["cred"].clone()
    };
    assert_ne!(cred(key()), cred(SigningKey([8; 32])));
    assert_eq!(cred(key()), cred(key()));
}

#[test]
fn what_is_no_token_is_told_why() {
    const FORM: TokenError = TokenError::Malformed("it is not three parts with a dot between them");
    const BASE64URL: TokenError =
        TokenError::Malformed("a part of it is not base64url without padding");
    const JWS: TokenError = TokenError::Malformed("its header is not that of a JWS");
    const NOT_HS256: TokenError = TokenError::Malformed("its algorithm is not HS256");
    const CLAIMS: TokenError =
        TokenError::Malformed("its claims are not those of a token of this version");
    let (_file, access) = access();
    let token = access.issue("bob", HOUR, NOW).unwrap();
    let good = claims(&token);
    let [header, body, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let mac = BASE64.decode(signature).unwrap();
    let signed = |header: &str, claims: &str| sign(&key(), header.as_bytes(), claims.as_bytes());
    let with_header = |header: &str| signed(header, &good.to_string());
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signed(HEADER, &claims.to_string())
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        signed(HEADER, &claims.to_string())
    };
    assert!(access.bearer("c", &with_header(HEADER), NOW).is_ok());
    let none = BASE64.encode(r#"{"alg":"none"}"#);
    // The first letter of a part decides its highest bits, its last letter also what must be zero.
    let other_letter = |part: &str, at: usize| {
        let mut part = part.to_owned();
        let letter = if &part[at..=at] == "E" { "I" } else { "E" };
        part.replace_range(at..=at, letter);
        part
    };
    for (token, expected) in [
        (String::new(), FORM),
        ("secret".to_owned(), FORM),
        (header.to_owned(), FORM),
        (format!("{header}.{body}"), FORM),
        (format!("{token}."), FORM),
        (format!("{header}..{body}.{signature}"), FORM),
        // JWE, which has five parts.
        (format!("{token}.x.y"), FORM),
        ("..".to_owned(), JWS),
        (format!(".{body}.{signature}"), JWS),
        (format!("{token}="), BASE64URL),
        (format!("{token} "), BASE64URL),
        (format!("{header}.{body}.{}", &signature[..41]), BASE64URL),
        (format!("{header}.b\u{f6}dy.{signature}"), BASE64URL),
        // Truncated.
        (format!("{header}.{body}."), TokenError::BadSignature),
        (
            format!("{header}.{body}.{}", BASE64.encode(&mac[..31])),
            TokenError::BadSignature,
        ),
        (
            format!("{header}.{body}.{}", BASE64.encode([0; 32])),
            TokenError::BadSignature,
        ),
        (
            format!("{header}.{body}.{}", BASE64.encode([0; 33])),
            TokenError::BadSignature,
        ),
        // Altered.
        (
            format!("{header}.{body}.{}", other_letter(signature, 0)),
            TokenError::BadSignature,
        ),
        (
            format!("{header}.{}.{signature}", other_letter(body, 20)),
            TokenError::BadSignature,
        ),
        (
            format!("{}.{body}.{signature}", BASE64.encode(r#"{"alg":"HS256"}"#)),
            TokenError::BadSignature,
        ),
        (
            sign(
                &SigningKey([8; 32]),
                HEADER.as_bytes(),
                good.to_string().as_bytes(),
            ),
            TokenError::BadSignature,
        ),
        // Algorithms: none, with and without a signature, in all spellings (RFC 8725 §2.1).
        (format!("{none}.{body}."), NOT_HS256),
        (format!("{none}.{body}.{signature}"), NOT_HS256),
        (with_header(r#"{"alg":"none"}"#), NOT_HS256),
        (with_header(r#"{"alg":"nOnE"}"#), NOT_HS256),
        (with_header(r#"{"alg":"HS384"}"#), NOT_HS256),
        (with_header(r#"{"alg":"RS256"}"#), NOT_HS256),
        (with_header(r#"{"alg":"hs256"}"#), NOT_HS256),
        (with_header(r#"{"alg":""}"#), NOT_HS256),
        (with_header(r#"{"alg":"HS256","alg":"none"}"#), JWS),
        (with_header(r#"{"alg":["HS256"]}"#), JWS),
        (with_header(r#"{"typ":"JWT"}"#), JWS),
        (with_header("[]"), JWS),
        (with_header(r#"{"alg":"HS256"} x"#), JWS),
        (with_header("\u{f6}"), JWS),
        (
            with_header(r#"{"alg":"HS256","crit":["exp"],"exp":1}"#),
            TokenError::Malformed("its header has \"crit\", which is not supported"),
        ),
        // Signed by us, and yet not what we issue.
        (signed(HEADER, ""), CLAIMS),
        (signed(HEADER, "null"), CLAIMS),
        (signed(HEADER, &format!("{good}{good}")), CLAIMS),
        (signed(HEADER, &"[".repeat(2000)), CLAIMS),
        (without("exp"), CLAIMS),
        (without("sub"), CLAIMS),
        (without("iss"), CLAIMS),
        (without("cred"), CLAIMS),
        (with("exp", "1700003600".into()), CLAIMS),
        (with("exp", (-1).into()), CLAIMS),
        (with("exp", 1.7e9.into()), CLAIMS),
        (with("sub", 7.into()), CLAIMS),
        (with("aud", "another".into()), CLAIMS),
        (with("topics", "a/#".into()), CLAIMS),
        (
            with("iss", "another".into()),
            TokenError::Malformed("its issuer is not \"tidings\""),
        ),
        (with("exp", 0.into()), TokenError::Expired),
        (with("sub", "carol".into()), TokenError::UnknownUser),
        (with("sub", "".into()), TokenError::UnknownUser),
        // The claims of one user with the name of another.
        (with("sub", "eve".into()), TokenError::CredentialsChanged),
        (with("cred", "".into()), TokenError::CredentialsChanged),
    ] {
        assert_eq!(refused(&access, &token, NOW), expected, "{token:.300}");
    }
}

#[test]
fn the_size_is_bounded() {
    let (_file, access) = access();
    let token = access.issue("bob", HOUR, NOW).unwrap();
    let claims = claims(&token).to_string();
    // Space around JSON means nothing. There are lengths that base64 does not have, but the sum of
    // two has them all.
    let padded = |bytes: usize| {
        let mut all =
            (0..3).flat_map(|in_header| (2_000..3_000).map(move |more| (in_header, more)));
        let found = all.find_map(|(in_header, in_claims)| {
            let header = format!("{HEADER}{}", " ".repeat(in_header));
            let claims = format!("{claims}{}", " ".repeat(in_claims));
            let token = sign(&key(), header.as_bytes(), claims.as_bytes());
            (token.len() == bytes).then_some(token)
        });
        found.expect("there is one")
    };
    let longest = padded(TOKEN_BYTES_MAX);
    assert_eq!(longest.len(), TOKEN_BYTES_MAX);
    assert!(access.bearer("c", &longest, NOW).is_ok());
    let huge = "x".repeat(64 << 20);
    for token in [&padded(TOKEN_BYTES_MAX + 1), &huge] {
        let expected = TokenError::Malformed("it has more than 4096 bytes");
        assert_eq!(refused(&access, token, NOW), expected);
    }
}

proptest! {
    /// Nothing that somebody sends panics, and no alteration of a token is a token.
    #[test]
    fn altered_tokens_are_refused(at in 0_usize..400, byte in 0_u8..128, cut in any::<bool>()) {
        let user_line = "bob:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA";
        let (_file, access) = access_with(user_line, "");
        let token = access.issue("bob", HOUR, NOW).unwrap();
        let at = at % token.len();
        let mut altered = token.clone().into_bytes();
        match cut {
            true => altered.truncate(at),
            false => altered[at] = byte,
        }
        let altered = String::from_utf8(altered).unwrap();
        let answer = access.bearer("c", &altered, NOW);
        prop_assert_eq!(answer.is_ok(), altered == token, "{}", altered);
    }

    #[test]
    fn any_text_is_only_a_bad_token(text in any::<String>(), dots in "[A-Za-z0-9_-]*\\.[A-Za-z0-9_-]*\\.[A-Za-z0-9_-]*") {
        prop_assert!(verify(&key(), &text, NOW).is_err());
        prop_assert!(verify(&key(), &dots, NOW).is_err());
    }
}

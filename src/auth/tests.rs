use super::*;
use acta_events::{RuntimeId, WorkerId};
use proptest::prelude::*;
use std::net::IpAddr;

const SECRET: &str = "a configured secret";

fn worker(id: &str) -> WorkerRef {
    WorkerRef {
        runtime_id: RuntimeId::parse("external").unwrap(),
        worker_id: WorkerId::parse(id).unwrap(),
    }
}

fn issued(role: Role) -> Issued {
    Issued {
        token: TokenId::parse("t-1").unwrap(),
        role,
        worker: (role == Role::Worker).then(|| worker("w-1")),
        host: (role == Role::Host).then(|| HostId::parse("h-1").unwrap()),
    }
}

fn access(role: Role) -> Access {
    let authenticator = Authenticator::new([SECRET]).unwrap();
    authenticator.authenticate(Some(b"Bearer x"), |_| Some(issued(role))).unwrap()
}

#[test]
fn a_header_is_a_scheme_one_space_and_a_token_of_any_form() {
    let rows: [(&[u8], Option<&[u8]>); 14] = [
        (b"Bearer abc", Some(b"abc")),
        (b"bearer abc", Some(b"abc")),
        (b"BEARER a b", Some(b"a b")),
        (b"Bearer  abc", Some(b" abc")),
        (b"Bearer \xff", Some(b"\xff")),
        (b"Bearer Bearer x", Some(b"Bearer x")),
        (b"Bearer ", None),
        (b"Bearer", None),
        (b"Bearer\tabc", None),
        (b"Bearerabc", None),
        (b"Basic abc", None),
        (b" Bearer abc", None),
        (b"abc", None),
        (b"", None),
    ];
    for (header, token) in rows {
        assert_eq!(bearer(header), token, "{header:?}");
    }
}

#[test]
fn a_token_says_who_is_asking() {
    let authenticator = Authenticator::new(["first", SECRET]).unwrap();
    let nobody = |_: &Digest| None;
    for token in ["first", SECRET] {
        let header = format!("Bearer {token}");
        let access = authenticator.authenticate(Some(header.as_bytes()), nobody).unwrap();
        assert_eq!(access, Access::operator(Actor::operator()));
    }
    let other = new_token();
    let lookup = |digest: &Digest| (*digest == token_digest(&other)).then(|| issued(Role::Worker));
    let header = format!("Bearer {other}");
    let access = authenticator.authenticate(Some(header.as_bytes()), lookup).unwrap();
    assert_eq!(access.actor.as_str(), "token:t-1");
    assert_eq!((access.role, access.worker), (Role::Worker, Some(worker("w-1"))));
    for header in [None, Some("Bearer second"), Some("Bearer "), Some("Basic x"), Some("first")] {
        let refused = authenticator.authenticate(header.map(str::as_bytes), lookup).unwrap_err();
        assert_eq!(refused.code, Code::Unauthorized, "{header:?}");
        assert!(!refused.message.contains("second"), "{refused}");
    }
}

#[test]
fn without_authentication_everybody_is_an_operator_but_a_known_token_still_counts() {
    let authenticator = Authenticator::new([SECRET]).unwrap().open();
    assert!(!authenticator.demands_token());
    let nobody = |_: &Digest| None;
    for header in [None, Some("Bearer stale"), Some("nonsense")] {
        let access = authenticator.authenticate(header.map(str::as_bytes), nobody).unwrap();
        assert_eq!(access, Access::operator(Actor::anonymous()));
    }
    let known = |_: &Digest| Some(issued(Role::Worker));
    let access = authenticator.authenticate(Some(b"Bearer x"), known).unwrap();
    assert_eq!(access.role, Role::Worker);
    let header = format!("Bearer {SECRET}");
    let access = authenticator.authenticate(Some(header.as_bytes()), nobody).unwrap();
    assert_eq!(access.actor, Actor::operator());
}

#[test]
fn configured_tokens_are_checked_and_never_shown() {
    for (token, why) in [
        ("", TokenError::Empty),
        (" x", TokenError::Unsendable),
        ("x\n", TokenError::Unsendable),
        ("x\u{0}y", TokenError::Unsendable),
    ] {
        assert_eq!(Authenticator::new([SECRET, token]).unwrap_err(), why);
    }
    let debug = format!("{:?}", Authenticator::new([SECRET]).unwrap());
    assert!(!debug.contains(SECRET) && !debug.contains(&token_digest(SECRET).to_string()));
}

#[test]
fn a_role_does_what_it_may_and_is_told_who_else_could() {
    let observer = access(Role::Observer);
    observer.require(Permission::ReadWorkers).unwrap();
    let refused = observer.require(Permission::ReadAll).unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    assert!(refused.message.contains("`observer`"), "{refused}");
    assert!(refused.message.ends_with("one of: operator, auditor"), "{refused}");
}

#[test]
fn a_worker_and_a_host_speak_only_for_themselves() {
    let code = |answer: Result<(), Rejection>| answer.map_err(|refused| refused.code);
    let host = |id: &str| HostId::parse(id).unwrap();
    for (role, own, other) in [
        (Role::Operator, Ok(()), Ok(())),
        (Role::Worker, Ok(()), Err(Code::Unauthorized)),
        (Role::Observer, Err(Code::Forbidden), Err(Code::Forbidden)),
        (Role::Host, Err(Code::Forbidden), Err(Code::Forbidden)),
    ] {
        assert_eq!(code(access(role).require_worker(&worker("w-1"))), own, "{role:?}");
        assert_eq!(code(access(role).require_worker(&worker("w-2"))), other, "{role:?}");
    }
    for (role, own, other) in [
        (Role::Operator, Ok(()), Ok(())),
        (Role::Host, Ok(()), Err(Code::Forbidden)),
        (Role::Worker, Err(Code::Forbidden), Err(Code::Forbidden)),
    ] {
        assert_eq!(code(access(role).require_host(&host("h-1"))), own, "{role:?}");
        assert_eq!(code(access(role).require_host(&host("h-2"))), other, "{role:?}");
    }
    let unbound = Access { worker: None, host: None, ..access(Role::Worker) };
    assert!(unbound.require_worker(&worker("w-1")).is_err());
    let unbound = Access { worker: None, host: None, ..access(Role::Host) };
    assert!(unbound.require_host(&host("h-1")).is_err());
}

#[test]
fn tokens_are_long_and_all_different() {
    let tokens: std::collections::BTreeSet<_> = (0..100).map(|_| new_token()).collect();
    assert_eq!(tokens.len(), 100);
    for token in tokens {
        assert_eq!(token.len(), TOKEN_CHARS);
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')));
    }
}

fn policy(listen: &str) -> HostPolicy {
    let listen: IpAddr = listen.parse().unwrap();
    HostPolicy::new(["acta.example.com", "other.example.com:8443", "10.1.2.3"], listen).unwrap()
}

#[test]
fn the_service_answers_only_to_names_that_are_its_own() {
    let rows = [
        ("localhost", true),
        ("LocalHost:1", true),
        ("localhost.:8080", true),
        ("127.0.0.1:8080", true),
        ("127.9.9.9", true),
        ("[::1]", true),
        ("[::1]:8080", true),
        ("[::ffff:127.0.0.1]", true),
        ("192.168.1.5:8080", true),
        ("192.168.1.6", false),
        ("0.0.0.0", false),
        ("[::]", false),
        ("acta.example.com", true),
        ("Acta.Example.com.:99", true),
        ("other.example.com:8443", true),
        ("other.example.com", false),
        ("10.1.2.3:1", true),
        ("evil.example", false),
        ("localhost.evil.example", false),
        ("evil.localhost", false),
        ("127.0.0.1.evil.example", false),
        ("user@localhost", false),
        ("localhost:", false),
        ("localhost:+80", false),
        ("localhost:99999", false),
        ("localhost/x", false),
        ("[::1", false),
        ("", false),
        (".", false),
        ("..localhost", false),
    ];
    for (host, ours) in rows {
        let answer = policy("192.168.1.5").check(Some(host), None);
        assert_eq!(answer.is_ok(), ours, "{host}: {answer:?}");
        if let Err(refused) = answer {
            assert_eq!(refused.code, Code::Forbidden);
            assert!(refused.message.contains("allowed_hosts"), "{refused}");
        }
    }
    for (listen, host, ours) in [
        ("0.0.0.0", "203.0.113.7:80", true),
        ("::", "203.0.113.7", true),
        ("::", "[2001:db8::1]:80", true),
        ("0.0.0.0", "0.0.0.0:8080", true),
        ("0.0.0.0", "evil.example", false),
        ("::1", "203.0.113.7", false),
        ("::ffff:192.168.1.5", "192.168.1.5", true),
    ] {
        assert_eq!(policy(listen).check(Some(host), None).is_ok(), ours, "{listen} {host}");
    }
}

#[test]
fn only_our_own_pages_may_use_the_service() {
    let rows = [
        (Some("localhost:8080"), "http://localhost:8080", true),
        (Some("localhost:8080"), "http://LOCALHOST:8080", true),
        (Some("localhost:8080"), "http://localhost:3000", false),
        (Some("localhost:8080"), "http://localhost", false),
        (Some("localhost:8080"), "http://127.0.0.1:8080", false),
        (Some("localhost:80"), "http://localhost", true),
        (Some("localhost"), "http://localhost:80", true),
        (Some("[::1]:8080"), "http://[::1]:8080", true),
        (Some("acta.example.com"), "https://acta.example.com", true),
        (Some("acta.example.com:443"), "https://acta.example.com", true),
        (Some("localhost:8080"), "https://acta.example.com", true),
        (Some("localhost:8080"), "https://other.example.com:8443", true),
        (Some("localhost:8080"), "https://other.example.com", false),
        (Some("localhost:8080"), "http://evil.example", false),
        (Some("localhost:8080"), "http://localhost:8080.evil.example", false),
        (Some("localhost:8080"), "null", false),
        (Some("localhost:8080"), "", false),
        (Some("localhost:8080"), "file://", false),
        (Some("localhost:8080"), "chrome-extension://localhost:8080", false),
        (Some("localhost:8080"), "http://localhost:8080/", false),
        (None, "http://localhost:8080", false),
        (None, "https://acta.example.com", true),
    ];
    for (host, origin, ours) in rows {
        let answer = policy("127.0.0.1").check(host, Some(origin));
        assert_eq!(answer.is_ok(), ours, "{host:?} {origin}: {answer:?}");
    }
    policy("127.0.0.1").check(None, None).expect("a client of HTTP/1.0 is no browser");
}

#[test]
fn an_entry_of_allowed_hosts_that_is_none_is_named() {
    for entry in ["", "http://acta.example.com", "a b", "*", "host:port"] {
        let error = HostPolicy::new([entry], "127.0.0.1".parse().unwrap()).unwrap_err();
        assert_eq!(error.entry, entry);
    }
    HostPolicy::new(
        ["::1", "[::1]:80", "a_b.example", "xn--mnchen-3ya.de."],
        "::1".parse().unwrap(),
    )
    .unwrap();
}

proptest! {
    #[test]
    fn a_token_is_accepted_only_if_it_is_exactly_the_same(token in "[!-~]{1,40}", other in "[!-~]{1,40}") {
        let authenticator = Authenticator::new([&token]).unwrap();
        let try_token = |text: &str| {
            authenticator.authenticate(Some(format!("Bearer {text}").as_bytes()), |_| None).is_ok()
        };
        prop_assert!(try_token(&token));
        prop_assert_eq!(try_token(&other), token == other);
        prop_assert!(!try_token(&token[1..]));
        let extended = format!("{token}x");
        prop_assert!(!try_token(&extended));
    }

    #[test]
    fn no_name_of_somebody_else_is_ours(host in "\\PC{0,30}") {
        let ours = policy("127.0.0.1").check(Some(&host), None).is_ok();
        let known = ["localhost", "127.", "::", "acta.example.com", "other.example.com:8443", "10.1.2.3"];
        let lower = host.to_ascii_lowercase();
        prop_assert!(!ours || known.iter().any(|known| lower.contains(known)));
    }
}

//! What was stored once is understood for ever: a header per event name and version, as it
//! stands in the log. The files are append-only, as are the lines of SUMS.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use acta_events::{block::Block, record::CommandRef, *};
use std::{collections::BTreeMap, fs, path::PathBuf};
use support::{RawContent, raw_block};
use uuid::Uuid;

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn process() -> ProcessRef {
    ProcessRef { pid: 4242, started_ticks: 123_456_789, boot: "b0071d".into() }
}

fn named(name: &str) -> NamedRef {
    NamedRef { name: name.into(), reference: format!("{name}:main") }
}

fn templates() -> Vec<TemplateSummary> {
    vec![
        TemplateSummary { name: "echo".into(), startable: true },
        TemplateSummary { name: "claude-code".into(), startable: false },
    ]
}

fn bundle() -> BundleRef {
    BundleRef { id: "team.bundle".into(), digest: "a1".repeat(32) }
}

fn worker() -> WorkerRef {
    WorkerRef { runtime_id: id("embedded-worker-runtime"), worker_id: id("w-0123") }
}

fn capabilities() -> HostCapabilities {
    HostCapabilities {
        os: "linux".into(),
        arch: "x86_64".into(),
        has_workspace_fs: true,
        has_shell: true,
        has_git: true,
        supports_worktrees: true,
        max_workers: Some(8),
    }
}

fn host_registered(capabilities: HostCapabilities) -> HostRegistered {
    let (kind, label) = ("embedded-host".into(), "A host".into());
    HostRegistered { host: id("host-1"), kind, label, capabilities }
}

fn host_updated(capabilities: HostCapabilities) -> HostUpdated {
    HostUpdated { host: id("host-1"), label: "Another label".into(), capabilities }
}

/// What the files of old versions mean today.
fn old_events() -> Vec<(&'static str, Event)> {
    let of = |arch| HostCapabilities::of_machine("linux", arch);
    vec![
        ("host_registered.v1", host_registered(of("x86_64")).into()),
        ("host_updated.v1", host_updated(of("aarch64")).into()),
        (
            "log_forked.v1",
            LogForked {
                epoch: Epoch(2),
                parent: Epoch(1),
                fork: Sequence(41),
                digest: Digest([7; 32]),
                root: None,
            }
            .into(),
        ),
    ]
}

fn service_events() -> Vec<Event> {
    vec![
        ServiceStarted { acta: "0.1.0".into() }.into(),
        ServiceStopped { reason: "signal".into() }.into(),
        LogForked {
            epoch: Epoch(2),
            parent: Epoch(1),
            fork: Sequence(41),
            digest: Digest([7; 32]),
            root: Some(Digest([9; 32])),
        }
        .into(),
        DispatchResumed { epoch: Epoch(2) }.into(),
        HistoryExpired {
            through: Sequence(65_536),
            base: Digest([7; 32]),
            root: Digest([9; 32]),
            segments: 1,
            bytes: 4_194_304,
            policy: RetentionPolicy { keep_s: Some(2_592_000), keep_bytes: Some(1 << 30) },
        }
        .into(),
        RuntimeRegistered { kind: "embedded".into(), label: "Here".into(), templates: templates() }
            .into(),
        RuntimeUpdated { label: "There".into(), templates: templates() }.into(),
        RuntimeStopped {}.into(),
        host_registered(capabilities()).into(),
        host_updated(HostCapabilities { arch: "aarch64".into(), ..capabilities() }).into(),
        HostLost { host: id("host-1"), last_seen_at: Some(Timestamp(1_795_202_000_000_000)) }
            .into(),
        HostFound { host: id("host-1") }.into(),
        RemoteRuntimeRegistered {
            label: "Elsewhere".into(),
            remote: RemoteAddress {
                url: "http://10.0.0.7:7421/acta".into(),
                token_env: Some("ELSEWHERE_TOKEN".into()),
            },
        }
        .into(),
        RuntimeRetired {}.into(),
        LocalWorkerFound {
            worker: id("local-worker-coder-0123"),
            host: id("host-1"),
            label: "Coder".into(),
            hint: "coder.1".into(),
            role: Some("coder".into()),
            profile: Some("builtin:coder".into()),
            status: LocalWorkerStatus::PendingSegment,
        }
        .into(),
        LocalWorkerLost { worker: id("local-worker-coder-0123") }.into(),
        LocalPodsInspected {
            host: id("host-1"),
            state: LocalPodsState::Available,
            problems: [
                (LocalPodProblem::MetadataUnreadable, 1),
                (LocalPodProblem::MetadataInvalid, 2),
                (LocalPodProblem::WorkspaceRootMissing, 3),
                (LocalPodProblem::WorkspaceNotVisible, 4),
                (LocalPodProblem::TooMany, 5),
            ]
            .into(),
        }
        .into(),
        ConfigBundleStored {
            bundle: bundle(),
            revision: "3".into(),
            workspace_id: "ws".into(),
            created_at: "2026-11-20T19:14:00Z".into(),
            provenance: Provenance { source: "operator".into(), detail: Some("by hand".into()) },
            profiles: vec!["builtin:coder".into(), "reviewer".into()],
            declaration_count: 2,
        }
        .into(),
        TokenIssued {
            token: id("t-1"),
            digest: Digest([9; 32]),
            role: Role::Worker,
            label: Some("for the worker".into()),
            worker: Some(worker()),
            host: Some(id("host-1")),
        }
        .into(),
        TokenRevoked { token: id("t-1") }.into(),
        CursorCommitted { name: id("billing"), cursor: "AQ".into(), position: Sequence(40) }.into(),
        ReadsRecorded {
            reads: vec![ReadNote {
                what: "/v1/workers/w-0123?at=40".into(),
                count: 2,
                head: Sequence(41),
            }],
            more: 3,
        }
        .into(),
        ContentRedacted {
            sequence: Sequence(40),
            content: Digest([8; 32]),
            repeats: Some(ErasureOrder {
                by: id("token:t-2"),
                at: Timestamp(1_795_202_039_000_001),
            }),
        }
        .into(),
    ]
}

fn worker_events() -> Vec<Event> {
    vec![
        WorkerCreated {
            intent: IntentKind::Role { role: "reviewer".into() },
            profile: ProfileSelector::Named("reviewer".into()),
            template: Some("echo".into()),
            host: Some(id("host-1")),
            config_bundle: Some(bundle()),
            requested_capabilities: vec!["net".into()],
            workspace_refs: vec![named("ws")],
            mount_refs: vec![named("mount")],
        }
        .into(),
        WorkerConnected { backend: "process".into(), incarnation: 2, process: Some(process()) }
            .into(),
        WorkerSpawnFailed { message: "no such program".into() }.into(),
        WorkerInputAccepted { kind: InputKind::User, item: 5, revision: Revision(7) }.into(),
        WorkerInputDispatched { input: Sequence(40), turn: 3 }.into(),
        WorkerProcessStarted { turn: 3, process: process() }.into(),
        WorkerProcessEnded { turn: Some(3) }.into(),
        WorkerInputFailed { through: Sequence(40), count: 2, message: "it ended".into() }.into(),
        WorkerInterrupted {
            reason: "service_lost".into(),
            turn: Some(3),
            input: Some(Sequence(40)),
            again: true,
        }
        .into(),
        WorkerOutput {
            event: OutputKind::TextDone,
            turn: 3,
            text: Some(TextSpan { first: Sequence(38), bytes: 12, item: 6 }),
        }
        .into(),
        WorkerTurnEnded {
            turn: 3,
            result: TurnResult::Finished,
            exit: Some(ExitStatus { code: None, signal: Some(9) }),
        }
        .into(),
        WorkerDiagnosed { source: "stderr".into() }.into(),
        WorkerExited { exit: ExitStatus { code: Some(0), signal: None } }.into(),
        WorkerStopped { revision: Revision(8) }.into(),
        WorkerCancelled { revision: Revision(8) }.into(),
    ]
}

fn external_events() -> Vec<Event> {
    let (message, source) = (Sequence(40), worker());
    let delivery =
        Delivery { mode: DeliveryMode::Push, url: Some("https://agent.example/a2a".into()) };
    vec![
        AgentAwaited { label: Some("my laptop".into()) }.into(),
        AgentRegistered { delivery, leased: true }.into(),
        WorkerOnline {}.into(),
        WorkerOffline {}.into(),
        WorkerDegraded { reason: DegradedReason::Deaf }.into(),
        WorkerRecovered {}.into(),
        MessageReceived { source: Some(source.clone()), method: "message/send".into(), item: 5 }
            .into(),
        MessageAnswered { message, asker: Some(source.clone()), item: 6 }.into(),
        ReplyReceived { source, message, item: 7 }.into(),
        WorkerNotified { message: Some(message), item: 8 }.into(),
        WorkerReported { activity: ActivityKind::TaskUpdate, message: Some(message), item: 9 }
            .into(),
        InboxRead { inbox: Inbox::Messages, through: message }.into(),
        MessageDelivered { message, attempts: 2 }.into(),
        DeliveryFailed { message, attempts: 8, reason: "it answered 503".into() }.into(),
        DeliveryRetried { message }.into(),
    ]
}

const CONTENT: [u8; 32] = [5; 32];

fn content() -> StoredContent {
    let digest = Digest(CONTENT);
    StoredContent { digest, len: 12, media_type: MediaType::Text, body: ContentBody::File }
}

/// What each file says, with every optional field there.
fn records() -> BTreeMap<String, Record> {
    let events = service_events().into_iter().chain(worker_events()).chain(external_events());
    let events = events.map(|event| (format!("{}.v{}", event.name(), event.version()), event));
    let old = old_events().into_iter().map(|(name, event)| (name.to_owned(), event));
    events
        .chain(old)
        .map(|(name, event)| {
            let header = Header {
                seq: Sequence(42),
                id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_002a),
                time: Timestamp(1_795_202_040_123_456),
                runtime: Some(worker().runtime_id),
                worker: Some(worker().worker_id),
                version: Some(Version(6)),
                actor: id("token:t-1"),
                command: Some(CommandRef { key: id("k!1"), fingerprint: Digest([3; 32]) }),
                trace: Some(id("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
                event,
            };
            (name, Record::new(header, Some(content())).unwrap())
        })
        .collect()
}

fn files() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "json") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn every_kind_has_a_file_and_every_file_a_meaning() {
    write_new_files();
    let kinds = Event::KINDS.iter().map(|(name, version)| format!("{name}.v{version}"));
    let kinds: std::collections::BTreeSet<_> = kinds.collect();
    assert_eq!(kinds.len(), Event::KINDS.len(), "a name and version stands for one event");
    let (files, records) = (files(), records());
    for kind in &kinds {
        assert!(files.contains_key(kind), "golden/{kind}.json is missing; see `write_new_files`");
    }
    for file in files.keys() {
        assert!(records.contains_key(file), "golden/{file}.json: the test knows no such event");
    }
}

#[test]
fn every_file_is_understood_and_written_the_same_way_again() {
    for (name, stored) in files() {
        let bytes = raw_block(1, 42, [0; 32], &[(&stored, RawContent::File(CONTENT))]);
        let block = Block::decode(bytes.into()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let record = &block.records[0];
        let expected = &records()[&name];
        assert_eq!(record.header, expected.header, "{name}");
        assert_eq!(record.content, expected.content, "{name}");
        let again = Record::new(record.header.clone(), record.content.clone()).unwrap();
        if Event::KINDS.iter().any(|(kind, version)| name == format!("{kind}.v{version}")) {
            assert_eq!(record.digest, expected.digest, "{name}");
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(shown(&again.json), shown(&stored), "{name}");
        }
    }
}

#[test]
fn no_file_was_ever_changed() {
    let sums = fs::read_to_string(dir().join("SUMS")).unwrap();
    let mut files = files();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let stored = files.remove(name).unwrap_or_else(|| panic!("golden/{name}.json is gone"));
        assert_eq!(sha256(&[&stored]).to_string(), sum, "golden/{name}.json was changed");
    }
    assert!(files.is_empty(), "not in SUMS: {:?}", files.keys());
}

/// With `ACTA_WRITE_GOLDEN=1`, the files that are missing are written, and nothing else: for
/// whoever adds an event. What is there already is never touched.
fn write_new_files() {
    use std::io::Write as _;
    if std::env::var_os("ACTA_WRITE_GOLDEN").is_none() {
        return;
    }
    let mut sums =
        fs::OpenOptions::new().create(true).append(true).open(dir().join("SUMS")).unwrap();
    let there = files();
    let old: Vec<_> = old_events().into_iter().map(|(name, _)| name).collect();
    let is_new = |name: &String| !there.contains_key(name) && !old.contains(&name.as_str());
    for (name, record) in records().into_iter().filter(|(name, _)| is_new(name)) {
        fs::write(dir().join(format!("{name}.json")), &record.json).unwrap();
        writeln!(sums, "{}  {name}", sha256(&[&record.json])).unwrap();
    }
}

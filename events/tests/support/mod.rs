//! Anything that can stand in the log, for property tests; and an encoder of blocks that
//! shares no code with the one it is there to test.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use acta_events::{record::CommandRef, *};
use proptest::{collection::vec, option, prelude::*, strategy::Union};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

fn text() -> BoxedStrategy<String> {
    "(?s).{0,24}".boxed()
}

fn id<T>() -> BoxedStrategy<T>
where
    T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug + 'static,
{
    "[A-Za-z0-9:_-]{1,20}".prop_map(|text| text.parse().unwrap()).boxed()
}

/// Small numbers, and the largest.
fn number() -> BoxedStrategy<u64> {
    prop_oneof![6 => 0..40_u64, 1 => any::<u64>(), 2 => Just(u64::MAX)].boxed()
}

fn seq() -> BoxedStrategy<Sequence> {
    number().prop_map(Sequence).boxed()
}

pub(crate) fn digest() -> BoxedStrategy<Digest> {
    any::<[u8; 32]>().prop_map(Digest).boxed()
}

/// Every time that has a text form.
pub(crate) fn time() -> BoxedStrategy<Timestamp> {
    (-62_135_596_800_000_000..253_402_207_200_000_000_i64).prop_map(Timestamp).boxed()
}

fn process() -> BoxedStrategy<ProcessRef> {
    (any::<u32>(), any::<u64>(), text())
        .prop_map(|(pid, started_ticks, boot)| ProcessRef { pid, started_ticks, boot })
        .boxed()
}

fn exit() -> BoxedStrategy<ExitStatus> {
    (any::<Option<i32>>(), any::<Option<i32>>())
        .prop_map(|(code, signal)| ExitStatus { code, signal })
        .boxed()
}

fn bundle() -> BoxedStrategy<BundleRef> {
    (text(), text()).prop_map(|(id, digest)| BundleRef { id, digest }).boxed()
}

fn templates() -> BoxedStrategy<Vec<TemplateSummary>> {
    let one =
        (text(), any::<bool>()).prop_map(|(name, startable)| TemplateSummary { name, startable });
    vec(one, 0..3).boxed()
}

fn refs() -> BoxedStrategy<Vec<NamedRef>> {
    let one = (text(), text()).prop_map(|(name, reference)| NamedRef { name, reference });
    vec(one, 0..3).boxed()
}

fn created() -> BoxedStrategy<WorkerCreated> {
    let intent = prop_oneof![
        Just(IntentKind::Assistant),
        Just(IntentKind::Task),
        text().prop_map(|role| IntentKind::Role { role }),
    ];
    let profile = prop_oneof![
        Just(ProfileSelector::RuntimeDefault),
        text().prop_map(ProfileSelector::Builtin),
        text().prop_map(ProfileSelector::Named),
    ];
    let small = (option::of(text()), option::of(id()), option::of(bundle()), vec(text(), 0..3));
    (intent, profile, small, refs(), refs())
        .prop_map(|(intent, profile, (template, host, bundle, asked), workspaces, mounts)| {
            WorkerCreated {
                intent,
                profile,
                template,
                host,
                config_bundle: bundle,
                requested_capabilities: asked,
                workspace_refs: workspaces,
                mount_refs: mounts,
            }
        })
        .boxed()
}

fn output() -> BoxedStrategy<WorkerOutput> {
    use OutputKind::*;
    let kinds = [
        TextDelta,
        TextDone,
        ThinkingStart,
        ThinkingDelta,
        ThinkingDone,
        ToolCallStart,
        ToolCallArgsDelta,
        ToolCallDone,
        ToolResult,
        Usage,
        RunEnd,
        Error,
        Status,
        Alert,
    ];
    let span = (seq(), number(), number()).prop_map(|(first, bytes, item)| TextSpan {
        first,
        bytes,
        item,
    });
    (proptest::sample::select(kinds.to_vec()), number(), option::of(span))
        .prop_map(|(event, turn, text)| WorkerOutput { event, turn, text })
        .boxed()
}

fn token() -> BoxedStrategy<TokenIssued> {
    use Role::*;
    let role = proptest::sample::select(vec![Operator, Auditor, Observer, Host, Worker]);
    let worker =
        (id(), id()).prop_map(|(runtime_id, worker_id)| WorkerRef { runtime_id, worker_id });
    (id(), digest(), role, option::of(text()), option::of(worker), option::of(id()))
        .prop_map(|(token, digest, role, label, worker, host)| TokenIssued {
            token,
            digest,
            role,
            label,
            worker,
            host,
        })
        .boxed()
}

fn stored_bundle() -> BoxedStrategy<ConfigBundleStored> {
    let texts = (text(), text(), text(), text(), option::of(text()));
    (bundle(), texts, vec(text(), 0..4), number())
        .prop_map(|(bundle, (revision, workspace_id, created_at, source, detail), profiles, n)| {
            ConfigBundleStored {
                bundle,
                revision,
                workspace_id,
                created_at,
                provenance: Provenance { source, detail },
                profiles,
                declaration_count: n,
            }
        })
        .boxed()
}

macro_rules! of {
    ($strategy:expr, $map:expr) => {
        $strategy.prop_map($map).prop_map(Event::from).boxed()
    };
}

fn capabilities() -> impl Strategy<Value = HostCapabilities> {
    let flags = any::<[bool; 4]>();
    (text(), text(), flags, option::of(number())).prop_map(
        |(os, arch, [has_workspace_fs, has_shell, has_git, supports_worktrees], max_workers)| {
            HostCapabilities {
                os,
                arch,
                has_workspace_fs,
                has_shell,
                has_git,
                supports_worktrees,
                max_workers,
            }
        },
    )
}

fn local_worker() -> impl Strategy<Value = LocalWorkerFound> {
    let texts = (text(), text(), option::of(text()), option::of(text()));
    let status = proptest::sample::select(vec![
        LocalWorkerStatus::Segment,
        LocalWorkerStatus::PendingSegment,
        LocalWorkerStatus::MetadataOnly,
    ]);
    (id(), id(), texts, status).prop_map(|(worker, host, (label, hint, role, profile), status)| {
        LocalWorkerFound { worker, host, label, hint, role, profile, status }
    })
}

fn events_of_the_service() -> Vec<BoxedStrategy<Event>> {
    vec![
        of!(text(), |acta| ServiceStarted { acta }),
        of!(text(), |reason| ServiceStopped { reason }),
        of!(
            (any::<u32>(), any::<u32>(), seq(), digest(), proptest::option::of(digest())),
            |(epoch, parent, fork, digest, root)| {
                LogForked { epoch: Epoch(epoch), parent: Epoch(parent), fork, digest, root }
            }
        ),
        of!(any::<u32>(), |epoch| DispatchResumed { epoch: Epoch(epoch) }),
        of!(
            (
                seq(),
                digest(),
                digest(),
                any::<(u64, u64)>(),
                proptest::option::of(any::<u64>()),
                proptest::option::of(any::<u64>())
            ),
            |(through, base, root, (segments, bytes), keep_s, keep_bytes)| HistoryExpired {
                through,
                base,
                root,
                segments,
                bytes,
                policy: RetentionPolicy { keep_s, keep_bytes },
            }
        ),
        of!((text(), text(), templates()), |(kind, label, templates)| RuntimeRegistered {
            kind,
            label,
            templates
        }),
        of!((text(), templates()), |(label, templates)| RuntimeUpdated { label, templates }),
        of!(Just(()), |()| RuntimeStopped {}),
        of!((id(), text(), text(), capabilities()), |(host, kind, label, capabilities)| {
            HostRegistered { host, kind, label, capabilities }
        }),
        of!((id(), text(), capabilities()), |(host, label, capabilities)| HostUpdated {
            host,
            label,
            capabilities
        }),
        of!((id(), option::of(any::<u32>())), |(host, seen)| HostLost {
            host,
            last_seen_at: seen.map(|seen| Timestamp(i64::from(seen)))
        }),
        of!(id(), |host| HostFound { host }),
        of!(local_worker(), |found| found),
        of!(id(), |worker| LocalWorkerLost { worker }),
        of!((id(), 0..5_u8, number()), |(host, problem, count)| {
            let problem = match problem {
                0 => LocalPodProblem::MetadataUnreadable,
                1 => LocalPodProblem::MetadataInvalid,
                2 => LocalPodProblem::WorkspaceRootMissing,
                3 => LocalPodProblem::WorkspaceNotVisible,
                _ => LocalPodProblem::TooMany,
            };
            let problems = [(problem, count)].into();
            LocalPodsInspected { host, state: LocalPodsState::Unreadable, problems }
        }),
        of!(stored_bundle(), |stored| stored),
        of!(token(), |issued| issued),
        of!(id(), |token| TokenRevoked { token }),
        of!((id(), text(), seq()), |(name, cursor, position)| CursorCommitted {
            name,
            cursor,
            position
        }),
        of!((vec((text(), number(), seq()), 0..3), number()), |(reads, more)| {
            let note = |(what, count, head)| ReadNote { what, count, head };
            ReadsRecorded { reads: reads.into_iter().map(note).collect(), more }
        }),
        of!((seq(), digest(), option::of((id(), time()))), |(sequence, content, order)| {
            let repeats = order.map(|(by, at)| ErasureOrder { by, at });
            ContentRedacted { sequence, content, repeats }
        }),
    ]
}

fn events_of_workers() -> Vec<BoxedStrategy<Event>> {
    let kind = prop_oneof![Just(InputKind::User), Just(InputKind::System)];
    let result = prop_oneof![Just(TurnResult::Finished), Just(TurnResult::Paused)];
    let revision = || number().prop_map(Revision);
    vec![
        of!(created(), |created| created),
        of!((text(), any::<u32>(), option::of(process())), |(backend, incarnation, process)| {
            WorkerConnected { backend, incarnation, process }
        }),
        of!(text(), |message| WorkerSpawnFailed { message }),
        of!((kind, number(), revision()), |(kind, item, revision)| WorkerInputAccepted {
            kind,
            item,
            revision
        }),
        of!((seq(), number()), |(input, turn)| WorkerInputDispatched { input, turn }),
        of!((number(), process()), |(turn, process)| WorkerProcessStarted { turn, process }),
        of!(proptest::option::of(number()), |turn| WorkerProcessEnded { turn }),
        of!((seq(), number(), text()), |(through, count, message)| WorkerInputFailed {
            through,
            count,
            message
        }),
        of!((text(), option::of(number()), option::of(seq()), any::<bool>()), |(
            reason,
            turn,
            input,
            again,
        )| {
            WorkerInterrupted { reason, turn, input, again }
        }),
        of!(output(), |output| output),
        of!((number(), result, option::of(exit())), |(turn, result, exit)| WorkerTurnEnded {
            turn,
            result,
            exit
        }),
        of!(text(), |source| WorkerDiagnosed { source }),
        of!(exit(), |exit| WorkerExited { exit }),
        of!(revision(), |revision| WorkerStopped { revision }),
        of!(revision(), |revision| WorkerCancelled { revision }),
    ]
}

fn events_of_agents() -> Vec<BoxedStrategy<Event>> {
    let worker =
        || (id(), id()).prop_map(|(runtime_id, worker_id)| WorkerRef { runtime_id, worker_id });
    let delivery = option::of(text()).prop_map(|url| Delivery {
        mode: if url.is_some() { DeliveryMode::Push } else { DeliveryMode::Poll },
        url,
    });
    let inbox = prop_oneof![Just(Inbox::Messages), Just(Inbox::Replies), Just(Inbox::All)];
    let reason = prop_oneof![Just(DegradedReason::Wedged), Just(DegradedReason::Deaf)];
    vec![
        of!(option::of(text()), |label| AgentAwaited { label }),
        of!((delivery, any::<bool>()), |(delivery, leased)| AgentRegistered { delivery, leased }),
        of!(Just(()), |()| WorkerOnline {}),
        of!(Just(()), |()| WorkerOffline {}),
        of!(reason, |reason| WorkerDegraded { reason }),
        of!(Just(()), |()| WorkerRecovered {}),
        of!((option::of(worker()), text(), number()), |(source, method, item)| MessageReceived {
            source,
            method,
            item
        }),
        of!((seq(), option::of(worker()), number()), |(message, asker, item)| MessageAnswered {
            message,
            asker,
            item
        }),
        of!((worker(), seq(), number()), |(source, message, item)| ReplyReceived {
            source,
            message,
            item
        }),
        of!((option::of(seq()), number()), |(message, item)| WorkerNotified { message, item }),
        of!((option::of(seq()), number()), |(message, item)| WorkerReported {
            activity: ActivityKind::AgentLog,
            message,
            item
        }),
        of!((inbox, seq()), |(inbox, through)| InboxRead { inbox, through }),
        of!((seq(), any::<u32>()), |(message, attempts)| MessageDelivered { message, attempts }),
        of!((seq(), any::<u32>(), text()), |(message, attempts, reason)| DeliveryFailed {
            message,
            attempts,
            reason
        }),
        of!(seq(), |message| DeliveryRetried { message }),
    ]
}

/// Every event, with any data.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    let all = events_of_the_service().into_iter().chain(events_of_workers());
    Union::new(all.chain(events_of_agents()))
}

/// Every event that a worker's state has an opinion on, and those that make one.
pub(crate) fn worker_event() -> impl Strategy<Value = Event> {
    Union::new(events_of_workers().into_iter().chain(events_of_agents()))
}

pub(crate) fn content() -> BoxedStrategy<StoredContent> {
    let media = || prop_oneof![Just(MediaType::Text), Just(MediaType::Json)];
    let inline = (any::<[u8; 16]>(), media(), vec(any::<u8>(), 0..200))
        .prop_map(|(salt, media, bytes)| Content::new(salt, media, bytes.into()).to_stored());
    let body = prop_oneof![Just(ContentBody::File), Just(ContentBody::Erased)];
    let elsewhere =
        (digest(), number(), media(), body).prop_map(|(digest, len, media_type, body)| {
            StoredContent { digest, len, media_type, body }
        });
    prop_oneof![inline, elsewhere].boxed()
}

/// Any header at sequence 1.
pub(crate) fn header() -> BoxedStrategy<Header> {
    let command = ("[!-~]{1,30}", digest()).prop_map(|(key, fingerprint)| CommandRef {
        key: IdempotencyKey::parse(&key).unwrap(),
        fingerprint,
    });
    let trace = "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
        .prop_map(|text| TraceParent::parse(&text).unwrap());
    let about = (option::of(id()), option::of(id()), option::of(number().prop_map(Version)));
    let by = (id(), option::of(command), option::of(trace));
    (any::<u128>(), time(), about, by, event())
        .prop_map(|(uuid, time, (runtime, worker, version), (actor, command, trace), event)| {
            Header {
                seq: Sequence(1),
                id: Uuid::from_u128(uuid),
                time,
                runtime,
                worker,
                version,
                actor,
                command,
                trace,
                event,
            }
        })
        .boxed()
}

/// A record's content as a block stores it.
pub(crate) enum RawContent {
    None,
    Inline { salt: [u8; 16], bytes: Vec<u8> },
    File([u8; 32]),
    Erased([u8; 32]),
}

/// Sets the trailer of a block right, whatever the block says. For damage that a digest does
/// not tell: a newer version's records, or a block that somebody made up.
pub(crate) fn raw_block(
    epoch: u32,
    first: u64,
    previous: [u8; 32],
    records: &[(&[u8], RawContent)],
) -> Vec<u8> {
    let mut out = b"ACTB\x00\x01\x00\x00".to_vec();
    out.extend(epoch.to_be_bytes());
    out.extend(first.to_be_bytes());
    out.extend((records.len() as u32).to_be_bytes());
    out.extend(previous);
    let mut block = Sha256::new_with_prefix(&out);
    for (header, content) in records {
        out.extend((header.len() as u32).to_be_bytes());
        out.extend(*header);
        let content = raw_content(content, &mut out);
        let mut record = Sha256::new_with_prefix([u8::from(content.is_some())]);
        record.update(header);
        record.update(content.as_ref().map_or(&[][..], |digest| digest));
        block.update(record.finalize());
    }
    out.extend(block.finalize());
    out
}

fn raw_content(content: &RawContent, out: &mut Vec<u8>) -> Option<[u8; 32]> {
    match content {
        RawContent::None => {
            out.push(0);
            None
        }
        RawContent::Inline { salt, bytes } => {
            out.push(1);
            out.extend(salt);
            out.extend((bytes.len() as u32).to_be_bytes());
            out.extend(bytes);
            Some(Sha256::new_with_prefix(salt).chain_update(bytes).finalize().into())
        }
        RawContent::File(digest) => {
            out.push(2);
            out.extend(digest);
            Some(*digest)
        }
        RawContent::Erased(digest) => {
            out.push(3);
            out.extend(digest.map(|byte| !byte));
            Some(*digest)
        }
    }
}

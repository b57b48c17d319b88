//! What a running service sends of itself.
//!
//! ```text
//! line    {"acta_snapshot":1,"log_id":…,"epoch":…,"sequence":…,…}
//! line    {"name":…,"bytes":…} · bytes             for each part
//! line    {"name":…,"bytes":…,"in_base":true}      for each that the base has
//! line    {"complete":true}, or {"again":"…"}
//! ```
//!
//! Everything is read as it is sent. What can change meanwhile is either opened beforehand, or
//! only grows, or is a segment whose contents are being erased: then there is an order, and the
//! end says that all of it has to begin again.

use super::{CHECKPOINTS, CONTENT, FORMAT, Manifest, Part, SnapshotError, TAIL, VERIFIER, at};
use crate::{
    audit::{self, Notary, StoredTiles},
    base::Bases,
    checkpoint::Checkpoints,
    content::{ContentStore, copy_hashed},
    data_dir::DataDir,
    journal::{self, ListedSegment, SEGMENTS},
    log::Log,
};
use acta_events::{Digest, LogId, Sequence, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What stands behind the blocks of a part.
const TAIL_END: [u8; 4] = [0; 4];
/// How much is read at once.
const CHUNK: usize = 256 << 10;
/// How long an erasure that is under way is waited for.
const ERASING_MAX: Duration = Duration::from_secs(120);

/// How often, and at which pauses, it is looked whether what is signed can be read.
const HEAD_LOOKS: u32 = 400;
const HEAD_PAUSE: Duration = Duration::from_millis(5);

/// An earlier snapshot that whoever asks has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Base {
    /// The log.
    pub log_id: LogId,
    /// Its last record.
    pub sequence: Sequence,
    /// The digest of that record.
    pub record: Digest,
    /// Its segments by name, with the digests of their frames.
    pub segments: HashMap<String, Digest>,
    /// Its files of the tree that do not change any more.
    #[serde(default)]
    pub tiles: BTreeSet<String>,
    /// Its checkpoints of the projections by name, with their digests.
    #[serde(default)]
    pub checkpoints: HashMap<String, Digest>,
    /// The last record that had expired then.
    #[serde(default)]
    pub expired: Sequence,
}

impl Base {
    /// As a snapshot says of itself.
    pub fn of(manifest: &Manifest) -> Self {
        let segment = |part: &Part| Some((part.name.clone(), part.segment?));
        let is_full = |part: &&Part| {
            part.name.starts_with(&format!("{}/level-", audit::TREE))
                && StoredTiles::is_full(part.bytes)
        };
        let checkpoints = format!("{CHECKPOINTS}/");
        let checkpoint = |part: &Part| {
            part.name.starts_with(&checkpoints).then_some((part.name.clone(), part.sha256?))
        };
        Self {
            log_id: manifest.log_id,
            sequence: manifest.sequence,
            record: manifest.record,
            segments: manifest.parts.iter().filter_map(segment).collect(),
            tiles: manifest.parts.iter().filter(is_full).map(|part| part.name.clone()).collect(),
            checkpoints: manifest.parts.iter().filter_map(checkpoint).collect(),
            expired: manifest.expired(),
        }
    }
}

/// What the first line says: a manifest without parts, and what concerns the base.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Opening {
    acta_snapshot: u32,
    #[serde(flatten)]
    pub(super) manifest: Manifest,
    /// How many bytes follow, about.
    pub(super) bytes: u64,
    /// Of the contents in the base, those that were erased since.
    pub(super) dropped: BTreeSet<Digest>,
    /// Whether the other contents of the base are part of this.
    pub(super) on_base: bool,
    /// The last record that has expired.
    #[serde(default)]
    expired: Sequence,
}

/// What the last line says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    Complete(bool),
    Again(String),
}

enum Source {
    InBase,
    Bytes(Vec<u8>),
    /// As many bytes as the part has.
    Open(File),
    /// The same, of a file that only grows.
    Growing(PathBuf),
    File(PathBuf),
}

/// Everything that is going to be sent, except for the tail, which is read as it is sent.
pub struct Plan {
    log: Arc<Log>,
    opening: Opening,
    parts: Vec<(Part, Source)>,
    sealed: Sequence,
    /// The orders to erase that there were before anything else was looked at.
    orders: Orders,
}

/// Which orders to erase a content the views know. That is what decides whether a content is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Orders {
    count: usize,
    newest: Sequence,
}

impl Orders {
    fn of(log: &Log) -> Self {
        let views = log.views().read();
        let newest = views.redactions.iter().map(|(_, redaction)| redaction.seq).max();
        let count = views.redactions.iter().count();
        Self { count, newest: newest.unwrap_or(Sequence::ZERO) }
    }
}

/// Waits until every recorded order to erase is carried out.
pub async fn settled(log: &Log) -> Result<(), SnapshotError> {
    let Orders { newest, .. } = Orders::of(log);
    if newest == Sequence::ZERO {
        return Ok(());
    }
    let mut erased = log.watch_erased();
    let carried_out = erased.wait_for(|erased| erased.has_all(newest));
    match tokio::time::timeout(ERASING_MAX, carried_out).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(SnapshotError::Again(
            "contents are being erased from the log; try again when that is done, which the log \
             of the service tells"
                .into(),
        )),
    }
}

impl Plan {
    /// Decides what is sent. To be called when [`settled`] has returned. Blocking.
    pub fn new(
        log: &Arc<Log>,
        notary: &Notary,
        data: &Path,
        created: Timestamp,
        base: Option<&Base>,
    ) -> Result<Self, SnapshotError> {
        let expired = log.expired_through();
        Self::made(log, notary, data, created, base)
            .map_err(|error| unless_expired(log, expired, error))
    }

    fn made(
        log: &Arc<Log>,
        notary: &Notary,
        data: &Path,
        created: Timestamp,
        base: Option<&Base>,
    ) -> Result<Self, SnapshotError> {
        let orders = Orders::of(log);
        if !log.watch_erased().borrow().has_all(orders.newest) {
            return Err(SnapshotError::Again("a content is being erased".into()));
        }
        let mut parts = Vec::new();
        let (log_base, expired) = base_of(log, data)?;
        let tree = data.join(audit::TREE);
        let tiles = StoredTiles::in_directory(&tree);
        let mut segments = journal::segments(data, log.id())?;
        let signed = notary
            .sign()
            .map_err(|error| SnapshotError::Again(format!("the end cannot be signed: {error}")))?;
        let sequence = Sequence(signed.size());
        // The tree has a block a moment before everybody may see it.
        for _ in 0..HEAD_LOOKS {
            if log.head() >= sequence {
                break;
            }
            std::thread::sleep(HEAD_PAUSE);
        }
        let record = record_digest(log, sequence)?;
        if let Some(base) = base {
            check_base(log, base, sequence)?;
        }
        let text = |name: &str, text: String| {
            (Part::new(name, text.len() as u64), Source::Bytes(text.into_bytes()))
        };
        parts.push(text(audit::CHECKPOINT, signed.text().into()));
        parts.push(text(VERIFIER, notary.verifier().to_string()));
        ancestors(&data.join(audit::ANCESTORS), &mut parts)?;
        parts.extend(log_base);
        segments.retain(|segment| expired < segment.first && segment.last <= sequence);
        let sealed = segments.last().map_or(expired, |segment| segment.last);
        all_there(&segments, expired)?;
        for segment in segments {
            let name = format!("{SEGMENTS}/{}", segment.name());
            let digest = segment.content.as_ref().map(|content| content.digest);
            let known = base.and_then(|base| base.segments.get(&name));
            let in_base = digest.is_some() && known == digest.as_ref();
            let source = if in_base { Source::InBase } else { Source::File(segment.path().into()) };
            let part = Part { segment: digest, in_base, ..Part::new(name, segment.file_bytes) };
            parts.push((part, source));
        }
        // Among the contents of the base there are some that have expired since, and nobody knows any
        // more which.
        let with_contents = base.filter(|base| base.expired == expired);
        contents(log, data, with_contents, sequence, &mut parts)?;
        let checkpoints = Checkpoints::new(data.join(CHECKPOINTS));
        let fits = |seq: &Sequence| expired < *seq && *seq <= sequence;
        for seq in checkpoints.positions().into_iter().filter(fits) {
            let (path, name) = (checkpoints.path(seq), format!("{CHECKPOINTS}/{:020}.ckpt", seq.0));
            let Some((part, mut file)) = open(&path, &name)? else { continue };
            // One that was written again is another file, though it says the same.
            let known = base.and_then(|base| base.checkpoints.get(&name));
            let in_base = known.is_some() && known == Some(&at(&path, digest_of(&mut file))?);
            let source = if in_base { Source::InBase } else { Source::Open(file) };
            parts.push((Part { in_base, ..part }, source));
        }
        if let Some(tiles) = tiles.filter(|tiles| tiles.size <= sequence.0) {
            for (name, bytes) in tiles.levels {
                let path = tree.join(&name);
                let part = Part::new(format!("{}/{name}", audit::TREE), bytes);
                // The base is the beginning of this log, and what is full belongs to the beginning.
                let known = base.is_some_and(|base| base.tiles.contains(&part.name));
                if known && StoredTiles::is_full(bytes) {
                    parts.push((Part { in_base: true, ..part }, Source::InBase));
                } else {
                    parts.push((part, Source::Growing(path)));
                }
            }
            let name = format!("{}/state", audit::TREE);
            let part = Part::new(name, tiles.state.len() as u64);
            parts.push((part, Source::Bytes(tiles.state)));
        }
        let views = log.views().read();
        let dropped = views.redactions.iter().map(|(_, redaction)| redaction);
        let since = base.map_or(Sequence(u64::MAX), |base| base.sequence);
        let dropped = dropped.filter(|it| it.seq > since).map(|it| it.content).collect();
        let manifest = Manifest {
            format: FORMAT,
            acta: env!("CARGO_PKG_VERSION").into(),
            log_id: log.id(),
            created,
            epoch: views.lineage.current(),
            sequence,
            record,
            taken: Timestamp(jiff::Timestamp::now().as_microsecond()),
            parts: Vec::new(),
        };
        drop(views);
        let sent = parts.iter().filter(|(part, _)| !part.in_base);
        let bytes = sent.map(|(part, _)| part.bytes).sum();
        let on_base = with_contents.is_some();
        let opening = Opening { acta_snapshot: FORMAT, manifest, bytes, dropped, on_base, expired };
        Ok(Self { log: Arc::clone(log), opening, parts, sealed, orders })
    }

    /// The last record in it.
    pub fn sequence(&self) -> Sequence {
        self.opening.manifest.sequence
    }

    /// Gives all of it to `send`, in pieces. Blocking.
    pub fn send<E: From<SnapshotError>>(
        self,
        mut send: impl FnMut(Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { log, opening, parts, sealed, orders } = self;
        send(line(&opening))?;
        for (part, source) in parts {
            let name = part.name.clone();
            if !send_part(part, source, &mut send)? {
                return send(line(&Ending::Again(format!("{name} changed while it was read"))));
            }
        }
        let end = opening.manifest.sequence;
        let mut position = sealed;
        while position < end {
            let read = log.framed_blocks_through(position, end).map_err(SnapshotError::from);
            let (mut frames, last) = match read {
                Err(error) => match unless_expired(&log, opening.expired, error) {
                    SnapshotError::Again(why) => return send(line(&Ending::Again(why))),
                    error => return Err(error.into()),
                },
                Ok(read) => read,
            };
            if last <= position {
                return send(line(&Ending::Again(format!("the blocks after {position} are gone"))));
            }
            frames.extend_from_slice(&TAIL_END);
            let name = format!("{TAIL}/{:020}.blocks", position.next().0);
            send(line(&Part::new(name, frames.len() as u64)))?;
            send(frames.into())?;
            position = last;
        }
        if log.expired_through() > opening.expired {
            return send(line(&Ending::Again("history has expired meanwhile".into())));
        }
        // An order that is recorded behind the end may have been seen on the way, and one from before
        // may stand there while its record is not in the tree yet.
        let ending = match orders == Orders::of(&log) && orders.newest <= end {
            true => Ending::Complete(true),
            false => Ending::Again("a content was erased meanwhile".into()),
        };
        send(line(&ending))
    }
}

/// What could not be read since it has expired meanwhile is a reason to begin again.
fn unless_expired(log: &Log, expired: Sequence, error: SnapshotError) -> SnapshotError {
    if log.expired_through() > expired && !matches!(error, SnapshotError::Base(_)) {
        return SnapshotError::Again("history has expired meanwhile".into());
    }
    error
}

/// Segments follow one another. One that is missing is in no snapshot, and nothing else would tell.
fn all_there(segments: &[ListedSegment], expired: Sequence) -> Result<(), SnapshotError> {
    let mut end = expired;
    for segment in segments {
        if segment.first != end.next() {
            let (first, last) = (end.next(), Sequence(segment.first.0.saturating_sub(1)));
            return Err(SnapshotError::Again(format!(
                "records {first} to {last} are in no file below {SEGMENTS}/. If that is said again, \
                 stop the service and put the file back, or restore an earlier snapshot"
            )));
        }
        end = segment.last;
    }
    Ok(())
}

/// The base of a log whose beginning has expired, and the last record that has.
fn base_of(log: &Log, data: &Path) -> Result<(Option<(Part, Source)>, Sequence), SnapshotError> {
    let expired = log.expired_through();
    if expired == Sequence::ZERO {
        return Ok((None, expired));
    }
    let bases = Bases::of(data);
    let bytes = bases.bytes(expired).map_err(|error| SnapshotError::Again(error.to_string()))?;
    let name = Manifest::base_name(expired);
    Ok((Some((Part::new(name, bytes.len() as u64), Source::Bytes(bytes))), expired))
}

fn line(value: &impl Serialize) -> Bytes {
    // Made of texts, numbers and maps with text keys: that always serialises.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

/// Sends one part; false if there is less of it than was thought.
fn send_part<E: From<SnapshotError>>(
    mut part: Part,
    source: Source,
    send: &mut impl FnMut(Bytes) -> Result<(), E>,
) -> Result<bool, E> {
    let mut file = match source {
        Source::InBase => return send(line(&part)).map(|()| true),
        Source::Bytes(bytes) => {
            send(line(&part))?;
            return send(bytes.into()).map(|()| true);
        }
        Source::Open(file) => file,
        Source::Growing(path) => at(&path, File::open(&path))?,
        Source::File(path) => match File::open(&path) {
            Ok(file) => {
                // A segment of which something was erased meanwhile is another file.
                part.bytes = at(&path, file.metadata())?.len();
                file
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(SnapshotError::Io { path, error }.into()),
        },
    };
    send(line(&part))?;
    let mut left = part.bytes;
    while left > 0 {
        let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
        match file.read(&mut chunk).map_err(SnapshotError::from)? {
            // Whoever receives it notices that something is missing.
            0 => return Ok(false),
            n => {
                chunk.truncate(n);
                left -= n as u64;
                send(chunk.into())?;
            }
        }
    }
    Ok(true)
}

fn record_digest(log: &Log, seq: Sequence) -> Result<Digest, SnapshotError> {
    if seq == Sequence::ZERO {
        return Ok(Digest::ZERO);
    }
    let found = log.read_blocking(Sequence(seq.0 - 1), seq, 1)?;
    let digest = found.first().map(|logged| logged.record.digest);
    digest.ok_or_else(|| SnapshotError::Again(format!("record {seq} is not there")))
}

/// What is built upon has to be the beginning of this very log.
fn check_base(log: &Log, base: &Base, end: Sequence) -> Result<(), SnapshotError> {
    if base.log_id != log.id() {
        return Err(SnapshotError::Base("it is of another log".into()));
    }
    if base.sequence <= log.expired_through() {
        let what = format!("record {}, where it ends, has expired here", base.sequence);
        return Err(SnapshotError::Base(what));
    }
    if base.sequence > end || record_digest(log, base.sequence)? != base.record {
        let what = format!("record {} of it is not in this log", base.sequence);
        return Err(SnapshotError::Base(what));
    }
    Ok(())
}

fn ancestors(dir: &Path, parts: &mut Vec<(Part, Source)>) -> Result<(), SnapshotError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => at(dir, other)?,
    };
    for entry in entries {
        let entry = at(dir, entry)?;
        let epoch = entry.file_name().to_string_lossy().into_owned();
        for name in [audit::CHECKPOINT, VERIFIER] {
            let path = entry.path().join(name);
            let opened = open(&path, &format!("{}/{epoch}/{name}", audit::ANCESTORS))?;
            parts.extend(opened.map(|(part, file)| (part, Source::Open(file))));
        }
    }
    Ok(())
}

/// Opens a file, unless it has just been removed: checkpoints are thinned out with age.
fn open(path: &Path, name: &str) -> Result<Option<(Part, File)>, SnapshotError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => at(path, other)?,
    };
    let bytes = at(path, file.metadata())?.len();
    Ok(Some((Part::new(name, bytes), file)))
}

/// Of all of a file, which can be read from its beginning again.
fn digest_of(file: &mut File) -> io::Result<Digest> {
    let digest = copy_hashed(file, &mut io::sink())?;
    file.rewind()?;
    Ok(digest)
}

/// The contents in files that the base does not have.
fn contents(
    log: &Log,
    data: &Path,
    base: Option<&Base>,
    through: Sequence,
    parts: &mut Vec<(Part, Source)>,
) -> Result<(), SnapshotError> {
    let dir = data.join(CONTENT);
    if !dir.exists() {
        return Ok(());
    }
    let store = ContentStore::new(&dir);
    let after = base.map_or(Sequence::ZERO, |base| base.sequence);
    let mut named = BTreeSet::new();
    log.content_files_between(after, through, |digest| {
        named.insert(digest);
    })?;
    for digest in named {
        let path = store.path(digest);
        let bytes = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let why = format!("the content {digest} is gone, or is being erased");
                return Err(SnapshotError::Again(why));
            }
            other => at(&path, other)?.len(),
        };
        let name = digest.to_string();
        let part = Part::new(format!("{CONTENT}/{}/{name}", &name[..2]), bytes);
        parts.push((part, Source::File(path)));
    }
    Ok(())
}

/// When the log of a data directory was made, without taking it.
pub fn created(data: &Path) -> Result<Timestamp, SnapshotError> {
    Ok(DataDir::created_of(data)?)
}

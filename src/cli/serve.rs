//! `acta serve`: the service itself. The only place that names concrete journals.

use super::{
    credentials::{OPERATOR_TOKEN_FILE, Secret, ServiceNote},
    serve_args::{ServeArgs, Store},
    serve_local_pods,
    serve_manifest::{Watch, Watched, registration},
};
use crate::{
    audit::{self, LogKey, Notary, NotaryError, NotaryOwner, Tree},
    auth::{Authenticator, HostPolicy, operator_token},
    backend::Processes,
    base::Bases,
    checkpoint::Checkpoints,
    command::{Command, Request},
    content::ContentStore,
    data_dir::DataDir,
    disk_use::free_bytes,
    dispatch::{DispatchOwner, Kills, Surroundings},
    engine::{Engine, QueueLimits, SystemClock},
    eraser::EraserOwner,
    host_leases::HostLeases,
    http::{self, Limits, Reads, ReadsOwner, Surface},
    index::Index,
    journal::{Journal, MemoryJournal, SealLimits, SledJournal},
    log::{Contents, Log},
    manifest::Manifest,
    remote::{MonitorOwner, Remotes},
    retention::RetentionOwner,
    snapshot::Newest,
    trust::Trust,
};
use acta_events::{Epoch, HostCapabilities, HostId, HostRegistered, LogId, generated_id};
use anyhow::{Context as _, Result, anyhow};
use parking_lot::RwLock;
use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// With less than this, what does not open lacks room.
const FREE_BYTES_MIN: u64 = 64 << 10;

/// What the service has open.
pub(super) struct Opened {
    /// Keeps other processes out of the data directory.
    data: Option<DataDir>,
    journal: Arc<dyn Journal>,
    pub(super) log: Arc<Log>,
    notary: Arc<Notary>,
}

impl Opened {
    /// Signs what was appended, and closes the log. For whoever runs no engine. Blocking.
    pub(super) fn close(self) -> Result<()> {
        self.notary.sign().context("what was appended could not be signed")?;
        self.journal.close().context("the log could not be closed in good order")
    }
}

/// Opens the log of a stopped service, to change it without one. Blocking.
pub(super) fn open_stopped(data: &Path) -> Result<Opened> {
    drop(DataDir::inspect(data)?);
    open_on(Store::Sled, data, SealLimits::default())
}

/// Runs the service until it is told to stop.
pub(crate) async fn run(args: ServeArgs) -> Result<()> {
    allow_many_files();
    // Before anything is opened: a file that cannot be used is a mistake in the options.
    let trust = Trust::new(args.ca.as_deref())?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}; choose another --listen", args.listen))?;
    let address = listener.local_addr().context("the listener has no address")?;
    let opening = args.clone();
    let opened = tokio::task::spawn_blocking(move || open(&opening)).await??;
    let tokens = operator_tokens(&args, &opened)?;
    let engine = Engine::start(Arc::clone(&opened.log), queue_limits(&args), SystemClock)
        .context("the engine could not be started")?;
    let manifest = manifest(&args);
    let (host, registered) = this_host();
    let label = args.display_name.clone().unwrap_or_else(|| "Embedded worker runtime".into());
    announce(&args, &engine, &label, &manifest, registered).await?;
    super::serve_agents::announce(&args.runtime_id, &engine).await?;
    let manifest = Arc::new(RwLock::new(Arc::new(manifest)));
    let manifest_problem = Arc::default();
    let watch = Watch::start(Watched {
        path: Manifest::locate(args.manifest.as_deref()),
        manifest: Arc::clone(&manifest),
        engine: engine.handle(),
        runtime: args.runtime_id.clone(),
        label,
        problem: Arc::clone(&manifest_problem),
    });
    let kills = Kills::default();
    let dispatch = DispatchOwner::start(Surroundings {
        backend: Processes::default(),
        log: Arc::clone(&opened.log),
        engine: engine.handle(),
        manifest: Arc::clone(&manifest),
        runtime: args.runtime_id.clone(),
        work_dir: work_dir(&opened),
        kills: kills.clone(),
        stop_grace: Duration::from_millis(args.limits.stop_grace_ms),
    });
    let authenticator =
        Authenticator::new(&tokens).map(|known| if args.no_auth { known.open() } else { known })?;
    let pods = serve_local_pods::source(&args.local_pods);
    let own_hosts = [Some(host.clone()), pods.as_ref().map(|pods| pods.host.clone())];
    let pods_owner =
        serve_local_pods::start(&args.local_pods, pods, &opened.log, &engine.handle()).await?;
    let (host_leases, leases_owner) = HostLeases::start(
        Arc::clone(&opened.log),
        engine.handle(),
        own_hosts.into_iter().flatten().collect(),
        Duration::from_millis(args.limits.host_lease_ms),
    );
    let remotes =
        Remotes::new(trust.clone()).context("the client for other services could not be set up")?;
    let monitor = MonitorOwner::start(remotes.clone(), Arc::clone(&opened.log));
    let eraser = EraserOwner::start(Arc::clone(&opened.log));
    let (retention, retention_owner) = opened
        .data
        .as_ref()
        .map(|data| {
            let (log, policy) = (Arc::clone(&opened.log), args.retention.policy());
            RetentionOwner::start(log, engine.handle(), data.path(), policy)
        })
        .unzip();
    let newest_snapshot = Newest::default();
    let snapshots = super::serve_snapshots::start(
        &args.snapshots,
        &opened.log,
        &opened.notary,
        opened.data.as_ref().map(DataDir::path),
        &newest_snapshot,
    );
    let (reads, reads_owner) = reads(&args, &engine).unzip();
    let (agents, agents_owner) =
        super::serve_agents::start(&args.agents, &opened.log, &engine.handle(), &trust)?;
    let mut surface = Surface::new(
        Arc::clone(&opened.log),
        engine.handle(),
        manifest,
        args.runtime_id.clone(),
        host,
        authenticator,
        HostPolicy::new(&args.allowed_host, address.ip())?,
        limits(&args),
        Arc::clone(&opened.notary),
        args.public_log,
        remotes.clone(),
        agents,
    );
    surface.reads = reads;
    surface.data = opened.data.as_ref().map(|data| data.path().to_owned());
    surface.host_leases = Some(host_leases);
    surface.snapshots = newest_snapshot;
    surface.retention = retention.unwrap_or_default();
    surface.kills = kills;
    surface.manifest_problem = manifest_problem;
    let surface = Arc::new(surface);
    let notary = NotaryOwner::start(Arc::clone(&opened.notary))
        .context("the thread that signs could not be started")?;
    let shutdown = surface.shutdown.clone();
    let server = tokio::spawn(http::serve(listener, surface));
    // Whoever has read the listening line may ask for the end at once.
    let signals = StopSignals::watch()?;
    let note = leave_note(&args, address);
    say_listening(address, &opened.log)?;
    let reason = signals.first().await;
    tracing::info!(reason, "stopping");
    shutdown.begin();
    server.await.context("the server ended in a panic")?;
    watch.close().await;
    leases_owner.close().await;
    monitor.close().await;
    if let Some(pods) = pods_owner {
        pods.close().await;
    }
    dispatch.close().await;
    agents_owner.close().await;
    if let Some(reads) = reads_owner {
        reads.close().await;
    }
    if let Some(snapshots) = snapshots {
        snapshots.close().await;
    }
    eraser.close().await;
    if let Some(retention) = retention_owner {
        retention.close().await;
    }
    if let Some(note) = note {
        drop(std::fs::remove_file(note));
    }
    close(engine, notary, opened, reason).await
}

/// Opens the log and takes it into use. Blocking.
fn open(args: &ServeArgs) -> Result<Opened> {
    open_on(args.store, &args.data, args.limits.seal()).map_err(|error| {
        let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
        let is_full = causes.any(|cause| cause.kind() == io::ErrorKind::StorageFull)
            || free_bytes(&args.data).is_ok_and(|free| free < FREE_BYTES_MIN);
        match is_full {
            true => error.context(format!(
                "there is no room left on the disk of {}; make room and start again",
                args.data.display()
            )),
            false => error,
        }
    })
}

fn open_on(store: Store, path: &Path, seal: SealLimits) -> Result<Opened> {
    let OpenedLog { data, journal, log, tree } = open_log(store, path, seal)?;
    if let Some(data) = &data {
        log.check_begin(&Bases::of(data.path()))?;
    }
    let epoch = log.end().epoch;
    let notary = open_notary(data.as_ref(), log.id(), epoch, &tree)?;
    Ok(Opened { data, journal, log, notary: Arc::new(notary) })
}

/// A log that nothing signs yet.
pub(super) struct OpenedLog {
    pub(super) data: Option<DataDir>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) log: Arc<Log>,
    pub(super) tree: Arc<Tree>,
}

/// Opens a log and takes it into use. Blocking.
pub(super) fn open_log(store: Store, path: &Path, seal: SealLimits) -> Result<OpenedLog> {
    let (data, id, journal, index, contents, checkpoints, tree) = match store {
        Store::Memory => {
            let id = LogId(uuid::Builder::from_random_bytes(rand::random()).into_uuid());
            let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(id));
            let index = Index::in_memory();
            (None, id, journal, index, Contents::in_memory(), None, Tree::in_memory())
        }
        Store::Sled => {
            let data = DataDir::open(path)?;
            let journal = Arc::new(SledJournal::open_sealing(&data, seal)?);
            let index = open_index(&data.subpath("index"), &*journal)?;
            let files = Arc::new(ContentStore::new(data.content_path()));
            let checkpoints = Checkpoints::new(data.subpath("checkpoints"));
            let id = data.log_id();
            let tree = Tree::open_behind(&data.subpath(audit::TREE), journal.begin().as_ref())?;
            (Some(data), id, journal as _, index, Contents::Files(files), Some(checkpoints), tree)
        }
    };
    let tree = Arc::new(tree);
    let (log, replayed) = Log::open_with_tree(
        id,
        Arc::clone(&journal),
        index,
        contents,
        checkpoints,
        Arc::clone(&tree),
    )?;
    tracing::info!(log = %id, head = %replayed.head, replayed_from = %replayed.from, "the log is open");
    Ok(OpenedLog { data, journal, log: Arc::new(log), tree })
}

/// The key that signs, made at the first start of an epoch, and what was signed last.
pub(super) fn open_notary(
    data: Option<&DataDir>,
    log: LogId,
    epoch: Epoch,
    tree: &Arc<Tree>,
) -> Result<Notary> {
    let Some(data) = data else {
        return Ok(Notary::open(LogKey::generate(log), Arc::clone(tree), None)?);
    };
    let file = data.subpath(audit::CHECKPOINT);
    let key_file = data.subpath(audit::KEY);
    let has_signed = file.try_exists().context("the file checkpoint cannot be looked for")?;
    let has_key = key_file.try_exists().context("the file log.key cannot be looked for")?;
    // The first start makes both before anything is recorded.
    if has_key && !has_signed && tree.size() > 0 {
        return Err(NotaryError::Missing.into());
    }
    let key = LogKey::load_or_make(&key_file, log, epoch, has_signed)?;
    Ok(Notary::open(key, Arc::clone(tree), Some(&file))?)
}

/// An index that has read further than the log goes is of another history: it is made anew.
fn open_index(dir: &Path, journal: &dyn Journal) -> Result<Index> {
    let index = Index::open(dir)?;
    if index.flushed_through() <= journal.head().seq {
        return Ok(index);
    }
    drop(index);
    tracing::warn!("the index is ahead of the log; it is made anew");
    std::fs::remove_dir_all(dir).context("the index cannot be removed")?;
    Ok(Index::open(dir)?)
}

fn operator_tokens(args: &ServeArgs, opened: &Opened) -> Result<Vec<String>> {
    let configured = args.operator_tokens().map_err(|error| anyhow!(error))?;
    let mut tokens: Vec<String> =
        configured.iter().map(|token: &Secret| token.expose().to_owned()).collect();
    let file = match &opened.data {
        Some(data) => data.subpath(OPERATOR_TOKEN_FILE),
        // A log in memory still has an operator, who looks in the same place.
        None if tokens.is_empty() && !args.no_auth => {
            std::fs::create_dir_all(&args.data)?;
            args.data.join(OPERATOR_TOKEN_FILE)
        }
        None => return Ok(tokens),
    };
    let operator = operator_token(&file)?;
    if let Some(warning) = &operator.warning {
        tracing::warn!("{warning}");
    }
    tokens.push(operator.token);
    Ok(tokens)
}

fn work_dir(opened: &Opened) -> PathBuf {
    match &opened.data {
        Some(data) => data.subpath("work"),
        None => std::env::temp_dir().join(format!("acta-work-{}", std::process::id())),
    }
}

fn manifest(args: &ServeArgs) -> Manifest {
    let loaded = Manifest::load(args.manifest.as_deref());
    if let Some(warning) = &loaded.warning {
        tracing::warn!("{warning}");
    }
    loaded.manifest
}

/// Records that the service is there, and what it runs, where that is news.
async fn announce(
    args: &ServeArgs,
    engine: &Engine,
    label: &str,
    manifest: &Manifest,
    host: HostRegistered,
) -> Result<()> {
    let runtime = args.runtime_id.clone();
    let found = Command::FindHost { host: host.host.clone() };
    let commands = [
        Command::StartService { acta: env!("CARGO_PKG_VERSION").into() },
        registration(&runtime, label, manifest),
        Command::RegisterHost { runtime, registered: host },
        // It may have been lost to a service that went on elsewhere with this log.
        found,
    ];
    for command in commands {
        engine.handle().submit(Request::service(command)).await?;
    }
    Ok(())
}

/// This machine, as a host. Its name is part of its identity.
fn this_host() -> (HostId, HostRegistered) {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let host = HostId::parse(&generated_id("embedded-", name))
        .expect("a generated identifier is an identifier");
    let registered = HostRegistered {
        host: host.clone(),
        kind: "embedded-worker-runtime-host".into(),
        label: if name.is_empty() { "this machine".into() } else { name.into() },
        capabilities: HostCapabilities::of_machine(std::env::consts::OS, std::env::consts::ARCH),
    };
    (host, registered)
}

/// What records the reads of auditors, if they are to be recorded.
fn reads(args: &ServeArgs, engine: &Engine) -> Option<(Reads, ReadsOwner)> {
    let interval = Duration::from_millis(args.limits.audit_reads_interval_ms);
    args.audit_reads.then(|| Reads::start(engine.handle(), interval))
}

fn queue_limits(args: &ServeArgs) -> QueueLimits {
    QueueLimits {
        commands: to_usize(args.limits.queued_commands_max),
        bytes: to_usize(args.limits.queued_bytes_max),
    }
}

fn limits(args: &ServeArgs) -> Limits {
    Limits {
        body_bytes: to_usize(args.limits.body_bytes_max),
        content_bytes: to_usize(args.limits.content_bytes_max),
        transcript_items: to_usize(args.limits.transcript_page_max),
        event_records: to_usize(args.limits.event_page_max),
        observer_idle: Duration::from_millis(args.limits.observer_idle_ms),
        ..Limits::default()
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Leaves a note about where the token is, for the command line of the same user.
fn leave_note(args: &ServeArgs, address: SocketAddr) -> Option<PathBuf> {
    if args.no_auth {
        return None;
    }
    let data = std::path::absolute(&args.data).ok()?;
    let path = ServiceNote::path(
        &ServiceNote::state_directory()?,
        &address.ip().to_string(),
        address.port(),
    );
    let note = ServiceNote { url: format!("http://{address}"), data };
    match note.write(&path) {
        Ok(()) => Some(path),
        Err(error) => {
            tracing::warn!(%error, "the command line will need --data to find its token");
            None
        }
    }
}

fn say_listening(address: SocketAddr, log: &Log) -> Result<()> {
    let line = serde_json::json!({
        "listening": format!("http://{address}"),
        "log_id": log.id(),
        "epoch": log.end().epoch,
        "head": log.head(),
    });
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").context("standard output is closed")?;
    stdout.flush().context("standard output is closed")
}

/// The signals that ask the service to end.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// From now on they are taken note of; until then each ends the process at once.
    fn watch() -> Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    async fn first(mut self) -> &'static str {
        let reason = self.next().await;
        // Whoever asks twice does not want to wait.
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("stopping at once; the next start settles what was under way");
            std::process::exit(1);
        });
        reason
    }
}

async fn close(engine: Engine, notary: NotaryOwner, opened: Opened, reason: &str) -> Result<()> {
    let stop = Request::service(Command::StopService { reason: reason.into() });
    if let Err(error) = engine.handle().submit(stop).await {
        tracing::warn!(%error, "the end of the service could not be recorded");
    }
    tokio::task::spawn_blocking(move || {
        engine.close();
        notary.close();
        if let Some(job) = opened.log.checkpoint_now() {
            job.run();
        }
        let closed = opened.journal.close();
        drop(opened.data);
        closed
    })
    .await?
    .context("the log could not be closed in good order")?;
    tracing::info!("stopped");
    Ok(())
}

/// Connections and children need more files than a shell usually allows.
fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

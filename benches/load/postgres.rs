//! The baseline: PostgreSQL as an event store in its fairest fast form, durable, on the same
//! disk.
//!
//! One statement per event bumps the version row of the stream and inserts the event with a
//! unique command key. Each client has a stream of its own, so that no client waits for the row
//! lock of another. There is no position in the whole log and no index besides that of the key:
//! Acta does more per event, and PostgreSQL is the faster for it. A function and a CTE are both tried, with one and two threads of pgbench;
//! the fastest then runs for the whole window, and the better of its probe and its window counts.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::Options;
use crate::report::{Figure, Report};

const CLIENTS: u32 = 64;
const PROBE_SECONDS: u64 = 2;
const DEADLINE: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
create table streams (stream_id int primary key, version bigint not null) with (fillfactor = 10);
create table events (
  stream_id int not null, version bigint not null,
  command_key text not null unique, data text not null);
insert into streams select n, 0 from generate_series(0, 63) n;
create function append_event(stream int, key text, content text) returns bigint
language plpgsql as $$
declare bumped bigint;
begin
  update streams set version = version + 1 where stream_id = stream returning version into bumped;
  insert into events (stream_id, version, command_key, data)
    values (stream, bumped, key, content);
  return bumped;
end $$;
";

const FUNCTION: &str = "select append_event(:client_id::int, \
  concat('load-', :run::int, '-', :client_id::int, '-', :n::bigint), :content);";

const CTE: &str = "with bumped as (update streams set version = version + 1 \
  where stream_id = :client_id::int returning version) \
  insert into events (stream_id, version, command_key, data) select :client_id::int, version, \
  concat('load-', :run::int, '-', :client_id::int, '-', :n::bigint), :content \
  from bumped returning version;";

/// A temporary cluster on a Unix socket, ended and removed on drop.
struct Cluster {
    server: Child,
    bin: PathBuf,
    user: Option<(u32, u32)>,
    sockets: TempDir,
    _data: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.server.id().cast_signed());
        // SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one.
        for signal in [Signal::SIGINT, Signal::SIGQUIT] {
            let _ = kill(pid, signal);
            let deadline = Instant::now() + DEADLINE;
            while Instant::now() < deadline {
                if !matches!(self.server.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Events per second, or none when PostgreSQL is not installed.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<Option<f64>> {
    println!("postgres: {CLIENTS} clients, prepared, synchronous_commit=on");
    let Some(bin) = installation() else {
        eprintln!(
            "  skipped: PostgreSQL is not installed (Debian: apt-get install postgresql-15 \
             postgresql-contrib; initdb, postgres, pgbench and psql are needed)"
        );
        return Ok(None);
    };
    let cluster = Cluster::start(&bin, &options.directory)?;
    let settings = cluster.query(
        "select concat_ws(', ', 'PostgreSQL ' || current_setting('server_version'), \
         'fsync=' || current_setting('fsync'), \
         'synchronous_commit=' || current_setting('synchronous_commit'), \
         'wal_sync_method=' || current_setting('wal_sync_method'), \
         'shared_buffers=' || current_setting('shared_buffers'))",
    )?;
    report
        .condition("baseline", format!("{}, {CLIENTS} clients, one stream each", settings.trim()));
    let mut best: Option<(f64, &str, &str, u32)> = None;
    let mut run = 0;
    for (name, script) in [("function", FUNCTION), ("CTE", CTE)] {
        for threads in [1, 2] {
            run += 1;
            let (rate, _) = cluster.pgbench(script, run, threads, PROBE_SECONDS)?;
            println!("  probe: {name}, {threads} pgbench threads: {rate:.0} /s");
            if best.is_none_or(|(fastest, ..)| rate > fastest) {
                best = Some((rate, name, script, threads));
            }
        }
    }
    let (probed, name, script, threads) = best.context("no probe ran")?;
    let before = cluster.events()?;
    let seconds = options.seconds.ceil().max(1.0) as u64;
    let (window, transactions) = cluster.pgbench(script, run + 1, threads, seconds)?;
    let added = cluster.events()? - before;
    ensure!(added == transactions, "{transactions} transactions added {added} events");
    let rate = window.max(probed);
    report.add(Figure::new("PostgreSQL, 64 clients: rate", rate, "/s").note(format!(
        "{name}, {threads} pgbench threads, {added} events at {window:.0} /s, best probe {probed:.0}"
    )));
    Ok(Some(rate))
}

/// The first directory that holds all programs needed.
fn installation() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        places.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    places.extend(std::env::split_paths(&path));
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<PathBuf> = versions.flatten().map(|entry| entry.path()).collect();
        versions.sort();
        places.extend(versions.into_iter().rev().map(|version| version.join("bin")));
    }
    let needed = ["initdb", "postgres", "pgbench", "psql"];
    places.into_iter().find(|place| needed.iter().all(|program| place.join(program).is_file()))
}

/// PostgreSQL refuses to run as root; then it runs as `postgres` or `nobody`.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    for user in ["postgres", "nobody"] {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(user));
        let fields: Vec<&str> = line.unwrap_or("").split(':').collect();
        if let [_, _, uid, gid, ..] = fields[..] {
            return Ok(Some((uid.parse()?, gid.parse()?)));
        }
    }
    anyhow::bail!("running as root, and there is no user `postgres` or `nobody`")
}

fn directory_for(user: Option<(u32, u32)>, parent: &Path) -> Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("acta-pg-").tempdir_in(parent)?;
    if let Some((uid, gid)) = user {
        std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid))?;
    }
    Ok(directory)
}

impl Cluster {
    fn start(bin: &Path, parent: &Path) -> Result<Self> {
        let user = unprivileged()?;
        let data = directory_for(user, parent)?;
        // The path of a Unix socket is at most 107 bytes long.
        let sockets = directory_for(user, &std::env::temp_dir())?;
        let cluster = data.path().join("cluster");
        let mut initdb = command(&bin.join("initdb"), user);
        initdb.args(["-U", "bench", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "-D"]);
        finish(initdb.arg(&cluster)).context("initdb")?;
        let mut server = command(&bin.join("postgres"), user);
        server.arg("-D").arg(&cluster).arg("-k").arg(sockets.path());
        for setting in [
            "listen_addresses=",
            "synchronous_commit=on",
            "fsync=on",
            "full_page_writes=on",
            "shared_buffers=256MB",
            "max_connections=100",
            "wal_buffers=16MB",
            "max_wal_size=4GB",
            "checkpoint_timeout=30min",
            "jit=off",
            // Less than a minute of inserts needs no vacuum and no statistics.
            "autovacuum=off",
            "track_activities=off",
            "track_counts=off",
        ] {
            server.args(["-c", setting]);
        }
        let log = std::fs::File::create(data.path().join("server.log"))?;
        let server = server.stdout(Stdio::null()).stderr(log).spawn().context("postgres")?;
        let cluster = Self { server, bin: bin.to_owned(), user, sockets, _data: data };
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = cluster.query("select 1") {
            ensure!(Instant::now() < deadline, "PostgreSQL does not answer: {error:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
        cluster.query(SCHEMA)?;
        Ok(cluster)
    }

    fn client(&self, program: &str) -> Command {
        let mut command = command(&self.bin.join(program), self.user);
        command.arg("-h").arg(self.sockets.path()).args(["-U", "bench"]);
        command
    }

    fn query(&self, sql: &str) -> Result<String> {
        let mut psql = self.client("psql");
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", sql]);
        finish(&mut psql).context("psql")
    }

    fn events(&self) -> Result<u64> {
        Ok(self.query("select count(*) from events")?.trim().parse()?)
    }

    /// Transactions per second, and how many there were.
    fn pgbench(&self, script: &str, run: u32, threads: u32, seconds: u64) -> Result<(f64, u64)> {
        let file = self.sockets.path().join(format!("script-{run}.sql"));
        std::fs::write(&file, format!("\\set n :n + 1\n{script}\n"))?;
        std::os::unix::fs::chown(&file, self.user.map(|user| user.0), None)?;
        let content =
            "please review the branch and report what changed in the build before noon; ".repeat(2);
        let mut pgbench = self.client("pgbench");
        pgbench.args(["-n", "-M", "prepared", "-D", "n=0", "-D", &format!("run={run}")]);
        pgbench.args(["-D", &format!("content={}", &content[..120])]);
        pgbench.args(["-c", &CLIENTS.to_string(), "-j", &threads.to_string()]);
        pgbench.args(["-T", &seconds.to_string(), "-f"]).arg(&file).arg("postgres");
        let text = finish(&mut pgbench).context("pgbench")?;
        let after = |name: &str| -> Result<String> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next());
            Ok(value.with_context(|| format!("no {name:?} in {text}"))?.to_owned())
        };
        let transactions = after("number of transactions actually processed: ")?;
        Ok((after("tps = ")?.parse()?, transactions.parse()?))
    }
}

fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    // The directory of the bench may not be readable to the other user.
    command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Runs to the end and returns what was printed; all callers bound their own length.
fn finish(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", output.status, errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! Whole scans by the real binary, compared with a bare HTTP client that fetches the same data and
//! keeps nothing. `docs/reference/performance.md` has the results.
//!
//! ```sh
//! cargo bench --bench scan                      # everything
//! cargo bench --bench scan -- latency memory    # some of it
//! ```
//!
//! The simulated API and the bare client are this program again, each in a process of its own.

mod floor;
mod process;
mod simulator;
mod world;

use process::{Service, Usage, run};
use simulator::{COUNTS, Counts};
use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};
use world::World;

/// How often each is measured; the median counts.
const TIMES: usize = 5;
const CONCURRENCY: usize = 16;
const MIB: f64 = 1_048_576.0;
const LOG: &str = "[notifiers.log.log]\n";

/// Runs a measurement and prints its result.
type Row = fn(&mut Bench) -> anyhow::Result<()>;
/// What a check used, and what the API counted meanwhile.
type Checked = (Usage, Counts);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let role = arguments.first().map(String::as_str);
    if !matches!(role, Some("simulator" | "floor")) {
        return measure(&arguments);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let world = |at: usize| {
        let world = arguments.get(at..).and_then(World::parse);
        world.ok_or_else(|| anyhow::anyhow!("a world is expected: {arguments:?}"))
    };
    match (role, arguments.get(1)) {
        (Some("floor"), Some(address)) => {
            runtime.block_on(floor::main(address, CONCURRENCY, world(2)?))
        }
        _ => Ok(runtime.block_on(simulator::main(world(1)?))?),
    }
}

fn measure(wanted: &[String]) -> anyhow::Result<()> {
    let rows: [(&str, Row); 11] = [
        ("latency", latency),
        ("processor", processor),
        ("python", python),
        ("counts", counts),
        ("memory", memory),
        ("hostile", hostile),
        ("service", service),
        ("limit", limit),
        ("delivery", delivery),
        ("growth", growth),
        ("size", size),
    ];
    let named: Vec<&String> = wanted.iter().filter(|one| !one.starts_with("--")).collect();
    let mut bench = Bench::new()?;
    for (name, row) in rows {
        if named.is_empty() || named.iter().any(|one| *one == name) {
            row(&mut bench)?;
        }
    }
    Ok(())
}

struct Bench {
    certvigil: PathBuf,
    own: PathBuf,
    folder: tempfile::TempDir,
}

/// A simulated API that runs.
struct Api {
    /// Runs as long as this.
    _service: Service,
    address: String,
    world: World,
}

impl Api {
    fn counts(&self) -> anyhow::Result<Counts> {
        let mut stream = std::net::TcpStream::connect(&self.address)?;
        let host = &self.address;
        write!(stream, "GET {COUNTS} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(serde_json::from_str(body)?)
    }
}

impl Bench {
    fn new() -> anyhow::Result<Bench> {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_certvigil"));
        let certvigil = std::env::var_os("CERTVIGIL_BINARY").map_or(built, PathBuf::from);
        Ok(Bench { certvigil, own: std::env::current_exe()?, folder: tempfile::tempdir()? })
    }

    fn api(&self, world: World) -> anyhow::Result<Api> {
        let mut command = Command::new(&self.own);
        command.arg("simulator").args(world.arguments()).stdout(Stdio::piped());
        let mut service = Service::start(command)?;
        let address = service.first_line()?;
        Ok(Api { _service: service, address, world })
    }

    /// A configuration that watches the API, with a state of its own.
    fn configuration(&self, api: &Api, more: &str) -> anyhow::Result<PathBuf> {
        let folder = tempfile::tempdir_in(self.folder.path())?.keep();
        let state = folder.join("state.db");
        let text = format!(
            "[organizations.bench]\nadmin_key = \"sk-admin-bench\"\nbase_url = \"http://{}/v1\"\n\
             requests_per_second = 0\nconcurrency = {CONCURRENCY}\n\
             {more}[http]\nlisten = \"off\"\n[state]\nurl = \"sqlite://{}\"\n\
             [schedule]\ncron = \"0 0 1 1 *\"\n",
            api.address,
            state.display()
        );
        let file = folder.join("certvigil.toml");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// One `certvigil check`, and what the API counted.
    fn check(&self, world: World) -> anyhow::Result<(Usage, Counts)> {
        let api = self.api(world)?;
        let file = self.configuration(&api, LOG)?;
        let used = run(&self.certvigil, [Path::new("check"), Path::new("--config"), &file])?;
        Ok((used, api.counts()?))
    }

    fn floor(&self, world: World) -> anyhow::Result<Usage> {
        let api = self.api(world)?;
        let arguments = ["floor".to_owned(), api.address.clone()];
        run(&self.own, arguments.into_iter().chain(world.arguments()))
    }

    /// The service, after its first scan.
    fn service(&self, api: &Api, more: &str) -> anyhow::Result<Service> {
        let file = self.configuration(api, more)?;
        let log = file.with_extension("log");
        let mut command = Command::new(&self.certvigil);
        command.arg("run").arg("--config").arg(&file).stdout(Stdio::null());
        command.stderr(std::fs::File::create(&log)?);
        let service = Service::start(command)?;
        let begun = std::time::Instant::now();
        while !std::fs::read_to_string(&log)?.contains("scan finished") {
            anyhow::ensure!(
                begun.elapsed() < Duration::from_secs(300),
                "no scan: {}",
                std::fs::read_to_string(&log)?
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(service)
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Both, in turns.
fn beside(bench: &Bench, world: World, times: usize) -> anyhow::Result<(Vec<Checked>, Vec<Usage>)> {
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..times {
        floor.push(bench.floor(world)?);
        ours.push(bench.check(world)?);
    }
    Ok((ours, floor))
}

fn latency(bench: &mut Bench) -> anyhow::Result<()> {
    let world = World { latency: Duration::from_millis(20), ..World::of(1_000, 50, true) };
    let (ours, floor) = beside(bench, world, TIMES)?;
    let wall = median(ours.iter().map(|(used, _)| used.wall.as_secs_f64()).collect());
    let scan = median(ours.iter().map(|(_, counts)| counts.lasted.as_secs_f64()).collect());
    let bare = median(floor.iter().map(|used| used.wall.as_secs_f64()).collect());
    let start = ours.iter().map(|(used, counts)| {
        counts.first.unwrap_or_default().saturating_sub(used.started).as_secs_f64() * 1e3
    });
    let start = median(start.collect());
    let (requests, least) = (ours[0].1.answered, world.paths().len());
    say(&format!(
        "latency: {requests} requests (least {least}), {} connections; whole check {:.0} ms, from first request to last answer {:.0} ms, bare client {:.0} ms: {:.3} x and {:.3} x; start to first request {start:.0} ms",
        ours[0].1.connections,
        wall * 1e3,
        scan * 1e3,
        bare * 1e3,
        wall / bare,
        scan / bare
    ))
}

fn processor(bench: &mut Bench) -> anyhow::Result<()> {
    for world in
        [World::of(10_000, 1, true), World::of(10_000, 50, true), World::of(200, 50, false)]
    {
        let (ours, floor) = beside(bench, world, 3)?;
        let of = |all: Vec<f64>| median(all) * 1e6 / world.paths().len() as f64;
        let used = of(ours.iter().map(|(used, _)| used.processor.as_secs_f64()).collect());
        let wall = of(ours.iter().map(|(used, _)| used.wall.as_secs_f64()).collect());
        let bare = of(floor.iter().map(|used| used.processor.as_secs_f64()).collect());
        say(&format!(
            "processor, {} projects, {} {} certificates: {used:.1} µs a request (wall {wall:.1}), bare client {bare:.1} µs: {:.2} x; peak {:.1} MiB; {} requests",
            world.projects,
            world.certificates,
            if world.is_shared() { "shared" } else { "different" },
            used / bare,
            ours[0].0.peak_bytes as f64 / MIB,
            ours[0].1.answered,
        ))?;
    }
    Ok(())
}

/// The official Python client, for as many requests as it takes a while.
fn python(bench: &mut Bench) -> anyhow::Result<()> {
    let Some(python) = std::env::var_os("CERTVIGIL_BENCH_PYTHON") else {
        return say("python: skipped, for CERTVIGIL_BENCH_PYTHON names no Python that has openai");
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/python_client.py");
    let each = |projects: usize, run: &dyn Fn(World) -> anyhow::Result<Usage>| {
        let (few, many) = (World::of(100, 50, true), World::of(projects, 50, true));
        let more = (run(many)?.processor.as_secs_f64()) - run(few)?.processor.as_secs_f64();
        anyhow::Ok(more * 1e6 / (many.paths().len() - few.paths().len()) as f64)
    };
    let theirs = each(1_100, &|world| {
        let api = bench.api(world)?;
        run(Path::new(&python), [script, api.address.as_str()])
    })?;
    let ours = each(10_000, &|world| Ok(bench.check(world)?.0))?;
    say(&format!(
        "python: {theirs:.0} µs a request, certvigil {ours:.1} µs: 1/{:.0} (both without their start)",
        theirs / ours
    ))
}

/// Instructions and allocations, which do not depend on what else the machine does.
fn counts(bench: &mut Bench) -> anyhow::Result<()> {
    let valgrind = |tool: &str, world: World| -> anyhow::Result<String> {
        let api = bench.api(world)?;
        let file = bench.configuration(&api, LOG)?;
        let none = format!("--{tool}-out-file=/dev/null");
        let ran = Command::new("valgrind")
            .args([&format!("--tool={tool}"), &none, "--error-exitcode=0"])
            .arg(&bench.certvigil)
            .args([Path::new("check"), Path::new("--config"), &file])
            .stdout(Stdio::null())
            .output()?;
        Ok(String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    if Command::new("valgrind").arg("--version").output().is_err() {
        return say("counts: skipped, for there is no valgrind");
    }
    let number = |text: &str, before: &str| -> anyhow::Result<f64> {
        let rest = text.split(before).nth(1).unwrap_or_default().trim_start();
        let digits: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
        let digits = digits.replace(',', "");
        digits.parse().map_err(|_| anyhow::anyhow!("no number behind {before:?}: {text}"))
    };
    let (few, many) = (World::of(100, 50, true), World::of(1_100, 50, true));
    let requests = (many.paths().len() - few.paths().len()) as f64;
    let more = |tool: &str, before: &str, and: &str| -> anyhow::Result<(f64, f64)> {
        let (a, b) = (valgrind(tool, few)?, valgrind(tool, many)?);
        let of = |text: &str| anyhow::Ok((number(text, before)?, number(text, and)?));
        let ((few, few_and), (many, many_and)) = (of(&a)?, of(&b)?);
        Ok(((many - few) / requests, (many_and - few_and) / requests))
    };
    let (instructions, _) = more("callgrind", "Collected :", "Collected :")?;
    let (bytes, blocks) = more("dhat", "Total:", "bytes in ")?;
    say(&format!(
        "counts, for each request more: {instructions:.0} instructions, {blocks:.1} allocations of {bytes:.0} bytes in all"
    ))
}

fn memory(bench: &mut Bench) -> anyhow::Result<()> {
    for world in [
        World::of(10, 1, true),
        World::of(1_000, 50, true),
        World::of(10_000, 50, true),
        World::of(10_000, 150, true),
    ] {
        let (check, _) = bench.check(world)?;
        let api = bench.api(world)?;
        let service = bench.service(&api, LOG)?;
        let peak = service.status("VmHWM")? * 1_024;
        let after = service.status("VmRSS")? * 1_024;
        let each = peak as f64 / (api.world.projects * api.world.certificates) as f64;
        say(&format!(
            "memory, {} projects x {} shared: check peak {:.1} MiB, service peak {:.1} MiB ({each:.0} bytes for each certificate), after it {:.1} MiB",
            world.projects,
            world.certificates,
            check.peak_bytes as f64 / MIB,
            peak as f64 / MIB,
            after as f64 / MIB,
        ))?;
    }
    Ok(())
}

/// More than certvigil holds, all of it in its last week.
fn hostile(bench: &mut Bench) -> anyhow::Result<()> {
    let in_five_days = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() + 5 * 86_400;
    let soon = |world: World| World { expires_at: in_five_days, ..world };
    for (what, world) in [
        ("25 000 projects, each with another certificate", World::of(25_000, 1, false)),
        ("2 000 projects x 1 000 different certificates", World::of(2_000, 1_000, false)),
        (
            "2 000 projects x 1 000 certificates, of which each has one more",
            World { stride: 1, ..World::of(2_000, 1_000, false) },
        ),
    ] {
        let api = bench.api(soon(world))?;
        let service = bench.service(&api, LOG)?;
        let peak = service.status("VmHWM")? as f64 / 1_024.0;
        say(&format!("hostile, {what}: the service's peak is {peak:.1} MiB"))?;
    }
    Ok(())
}

fn service(bench: &mut Bench) -> anyhow::Result<()> {
    let api = bench.api(World::of(10, 5, true))?;
    let service = bench.service(&api, LOG)?;
    let first = api.counts()?.first.unwrap_or_default().saturating_sub(service.started);
    std::thread::sleep(Duration::from_secs(5));
    let before = service.wake_ups()?;
    std::thread::sleep(Duration::from_secs(30));
    let woken = service.wake_ups()? - before;
    say(&format!(
        "service: first request after {:.0} ms; idle {:.1} MiB; {:.2} wake-ups a second",
        first.as_secs_f64() * 1e3,
        service.status("VmRSS")? as f64 / 1_024.0,
        woken as f64 / 30.0
    ))
}

fn limit(bench: &mut Bench) -> anyhow::Result<()> {
    let world =
        World { allowed: 100, latency: Duration::from_millis(20), ..World::of(4_000, 5, true) };
    let (used, counts) = bench.check(world)?;
    let later = counts.tenths.get(100..counts.tenths.len().saturating_sub(5)).unwrap_or_default();
    let (answered, refused) = later.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let seconds = later.len() as f64 / 10.0;
    say(&format!(
        "limit: {} answered, {} refused in {:.0} s; after ten seconds {:.1} a second answered, {:.2} % refused",
        counts.answered,
        counts.refused,
        used.wall.as_secs_f64(),
        f64::from(answered) / seconds,
        100.0 * f64::from(refused) / f64::from(answered + refused).max(1.0)
    ))
}

/// A thousand alerts of ten organizations, each a webhook of its own, to a receiver that takes 50
/// ms.
fn delivery(bench: &mut Bench) -> anyhow::Result<()> {
    const CERTIFICATES: usize = 1_000;
    const ORGANIZATIONS: usize = 10;
    const LATENCY: Duration = Duration::from_millis(50);
    let soon = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() + 5 * 86_400;
    for concurrency in [4, 16] {
        let api = bench.api(World {
            expires_at: soon,
            ..World::of(2, CERTIFICATES / ORGANIZATIONS / 2, false)
        })?;
        let receiver = bench.api(World { latency: LATENCY, ..World::of(0, 0, true) })?;
        let others = (1..ORGANIZATIONS).map(|n| {
            let api = &api.address;
            format!("[organizations.other_{n}]\nadmin_key = \"sk-admin-bench\"\nbase_url = \"http://{api}/v1\"\n")
        });
        let more = others.collect::<String>()
            + &format!(
                "[notifiers.webhook.hook]\nformat = \"opsgenie\"\nkey = \"x\"\nurl = \"http://{}/x\"\n\
             concurrency = {concurrency}\nmax_per_minute = 6000\n",
                receiver.address
            );
        let service = bench.service(&api, &more)?;
        let begun = std::time::Instant::now();
        let counts = loop {
            let counts = receiver.counts()?;
            if counts.answered >= CERTIFICATES as u64 {
                break counts;
            }
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(300), "{counts:?}");
            std::thread::sleep(Duration::from_millis(100));
        };
        let ideal = LATENCY.as_secs_f64() * CERTIFICATES.div_ceil(concurrency) as f64;
        let lasted = counts.lasted.as_secs_f64();
        say(&format!(
            "delivery, concurrency {concurrency}: {} webhooks in {lasted:.2} s, ideal {ideal:.2} s: {:.3} x; peak {:.1} MiB",
            counts.answered,
            lasted / ideal,
            service.status("VmHWM")? as f64 / 1_024.0
        ))?;
    }
    Ok(())
}

fn growth(bench: &mut Bench) -> anyhow::Result<()> {
    for projects in [10, 100, 1_000, 10_000, 25_000] {
        let world = World::of(projects, 5, true);
        let (used, counts) = bench.check(world)?;
        let requests = counts.answered as f64;
        say(&format!(
            "growth, {projects} projects: {requests} requests, wall {:.3} s, processor {:.3} s ({:.1} µs a request), peak {:.1} MiB",
            used.wall.as_secs_f64(),
            used.processor.as_secs_f64(),
            used.processor.as_secs_f64() * 1e6 / requests,
            used.peak_bytes as f64 / MIB
        ))?;
    }
    Ok(())
}

fn size(bench: &mut Bench) -> anyhow::Result<()> {
    let bytes = std::fs::metadata(&bench.certvigil)?.len();
    say(&format!("size: {:.1} MiB", bytes as f64 / MIB))
}

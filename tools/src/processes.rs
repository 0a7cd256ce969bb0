//! A run divided among several processes of this program, for more descriptors and more load than
//! one can have. The first process starts the others, lets all begin at the same time, distributes
//! the numbers of sent messages, and adds up the measurements.
//!
//! The processes exchange lines of JSON over standard input and output.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    address::LoopbackAddress,
    churn, clock,
    coordinator::{Coordinator, SingleProcess},
    error::{Error, Result},
    limits::PROCESS_TIMEOUT,
    load::{self, RunSettings},
    meter::{Meter, Reading, Usage},
    outcome::{BrokerUse, Measured, Outcome},
    progress::Progress,
    scenario::{Scenario, Share, Workload},
    transport::{Sources, Transport},
};

/// Time between the last process becoming ready and the start, in which all are notified.
const NOTICE: Duration = Duration::from_millis(50);

/// The first message to a process.
#[derive(Debug, Serialize, Deserialize)]
struct Assignment {
    workload: Workload,
    run: u32,
    share: Share,
    address: String,
    publishers_at: Option<String>,
    sources: Sources,
    transport: Transport,
    warm_up: Duration,
    span: Duration,
    messages_max: u64,
}

/// The messages of a process, in this order.
#[derive(Debug, Serialize, Deserialize)]
enum WorkerMessage {
    Ready,
    /// Number of messages of each of its publishers.
    Sent(Vec<u64>),
    Measured(Box<Measured>),
    Failed(String),
}

/// The messages to a process after its assignment, in this order.
#[derive(Debug, Serialize, Deserialize)]
enum CoordinatorMessage {
    StartAt(u64),
    AllSent(Vec<u64>),
}

/// Runs the whole workload, in this process or in several.
pub fn measure(workload: Workload, processes: u32, settings: RunSettings) -> Result<Outcome> {
    let run = run_number();
    let transport = settings.transport.kind();
    workload.check_processes(processes)?;
    let measured = if processes == 1 {
        measure_share(workload, run, Share::WHOLE, settings, &mut SingleProcess::default())?
    } else {
        Workers::start(workload, run, processes, &settings)?.measure(workload, &settings)?
    };
    Ok(Outcome::new(workload, transport, processes, measured))
}

fn measure_share(
    workload: Workload,
    run: u32,
    share: Share,
    settings: RunSettings,
    coordinator: &mut dyn Coordinator,
) -> Result<Measured> {
    if workload.scenario.is_traffic() {
        load::measure(workload, run, share, settings, coordinator)
    } else {
        churn::measure(workload, run, share, settings, coordinator)
    }
}

/// Different for each recent run on this machine.
fn run_number() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros() as u32);
    micros ^ std::process::id().rotate_left(20)
}

/// The other processes.
struct Workers {
    workers: Vec<Worker>,
}

struct Worker {
    child: Child,
    input: ChildStdin,
    said: Receiver<String>,
}

impl Workers {
    fn start(workload: Workload, run: u32, processes: u32, settings: &RunSettings) -> Result<Self> {
        let mut team = Self { workers: Vec::new() };
        for number in 0..processes {
            let mut worker = Worker::start()?;
            worker.tell(&Assignment {
                workload,
                run,
                share: Share { number, processes },
                address: settings.address.to_string(),
                publishers_at: settings.publishers_at.map(|address| address.to_string()),
                sources: settings.sources,
                transport: settings.transport.clone(),
                warm_up: settings.warm_up,
                span: settings.span,
                messages_max: settings.messages_max / u64::from(processes),
            })?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    fn measure(&mut self, workload: Workload, settings: &RunSettings) -> Result<Measured> {
        let resident = || settings.meter.map(|meter| meter.resident_bytes()).transpose();
        let mut resident_before = resident()?;
        for worker in &mut self.workers {
            worker.receive(|said| matches!(said, WorkerMessage::Ready).then_some(()))?;
        }
        let is_traffic = workload.scenario != Scenario::Connections;
        if is_traffic {
            resident_before = resident()?;
        }
        let start_ns = clock::after(clock::now_ns(), NOTICE);
        self.send_to_all(&CoordinatorMessage::StartAt(start_ns))?;
        let (usage, resident_in_span) = if is_traffic {
            let span_ns = clock::after(start_ns, settings.warm_up);
            sleep_until(span_ns);
            let begin = Reading::now(settings.meter)?;
            let end_ns = clock::after(span_ns, settings.span);
            let mut progress =
                Progress::new(settings.progress, settings.span, workload.scenario.unit().1, 0);
            while clock::now_ns() < end_ns {
                thread::sleep(Duration::from_millis(20));
                progress.tick(clock::now_ns(), None);
            }
            (Reading::now(settings.meter)?.broker_since(&begin), resident()?)
        } else {
            (None, None)
        };
        let begin = connections_begin(settings.meter, is_traffic)?;
        let all_sent = self.gather_sent(workload)?;
        let (usage, resident_after) = match begin {
            None => (usage, resident_in_span),
            Some(before) => {
                let now = settings.meter.map(|meter| meter.usage()).transpose()?;
                (now.map(|now| now.since(before)), resident()?)
            }
        };
        self.send_to_all(&CoordinatorMessage::AllSent(all_sent))?;
        let mut measured = self.gather_measured()?;
        measured.broker = BrokerUse { usage, resident: resident_before.zip(resident_after) };
        Ok(measured)
    }

    fn gather_sent(&mut self, workload: Workload) -> Result<Vec<u64>> {
        let mut all_sent = vec![0; workload.publishers as usize];
        let processes = self.workers.len();
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let sent = worker.receive(|said| match said {
                WorkerMessage::Sent(sent) => Some(sent),
                _ => None,
            })?;
            for (index, count) in sent.into_iter().enumerate() {
                all_sent[index * processes + number] = count;
            }
        }
        Ok(all_sent)
    }

    fn gather_measured(&mut self) -> Result<Measured> {
        let mut all: Option<Measured> = None;
        for worker in &mut self.workers {
            let measured = worker.receive(|said| match said {
                WorkerMessage::Measured(measured) => Some(*measured),
                _ => None,
            })?;
            match &mut all {
                None => all = Some(measured),
                Some(all) => all.add(&measured),
            }
        }
        Ok(all.expect("there is one process at least"))
    }

    fn send_to_all(&mut self, what: &CoordinatorMessage) -> Result<()> {
        self.workers.iter_mut().try_for_each(|worker| worker.tell(what))
    }
}

/// The broker's CPU usage so far, if connecting is measured, which takes as long as it takes.
fn connections_begin(meter: Option<Meter>, is_traffic: bool) -> Result<Option<Usage>> {
    if is_traffic { Ok(None) } else { meter.map(|meter| meter.usage()).transpose() }
}

fn sleep_until(ns: u64) {
    thread::sleep(Duration::from_nanos(ns.saturating_sub(clock::now_ns())));
}

impl Worker {
    fn start() -> Result<Self> {
        let failed = |source| Error::io("start another load process", source);
        let binary = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(binary)
            .arg("share")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let input = child.stdin.take().expect("piped");
        let output = child.stdout.take().expect("piped");
        Ok(Self { child, input, said: lines(output) })
    }

    fn tell(&mut self, what: &impl Serialize) -> Result<()> {
        write_line(&mut self.input, what)
    }

    /// The next message, which must be of the expected kind.
    fn receive<T>(&mut self, wanted: impl FnOnce(WorkerMessage) -> Option<T>) -> Result<T> {
        let line = self.said.recv_timeout(PROCESS_TIMEOUT).map_err(|error| {
            Error::Broker(match error {
                RecvTimeoutError::Timeout => {
                    format!("no message from a load process in {PROCESS_TIMEOUT:?}")
                }
                RecvTimeoutError::Disconnected => "a load process has exited".into(),
            })
        })?;
        let said: WorkerMessage = parse(&line)?;
        if let WorkerMessage::Failed(why) = said {
            return Err(Error::Broker(why));
        }
        wanted(said)
            .ok_or_else(|| Error::Broker(format!("unexpected message from a load process: {line}")))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Only a failed process, or one of a failed run, still exists; it holds no data to save.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// One of the other processes: runs its assigned share.
pub fn share() -> Result<()> {
    let heard = lines(io::stdin());
    let outcome = take_part(&heard);
    if let Err(error) = &outcome {
        send(&WorkerMessage::Failed(error.to_string()))?;
    }
    Ok(())
}

fn take_part(heard: &Receiver<String>) -> Result<()> {
    let line = heard.recv_timeout(PROCESS_TIMEOUT).map_err(|_| coordinator_exited())?;
    let assignment: Assignment = parse(&line)?;
    let settings = RunSettings {
        address: assignment.address.parse::<LoopbackAddress>().map_err(Error::Usage)?,
        publishers_at: assignment
            .publishers_at
            .map(|address| address.parse::<LoopbackAddress>())
            .transpose()
            .map_err(Error::Usage)?,
        meter: None,
        warm_up: assignment.warm_up,
        span: assignment.span,
        messages_max: assignment.messages_max,
        sources: assignment.sources,
        transport: assignment.transport,
        progress: false,
    };
    let Assignment { workload, run, share, .. } = assignment;
    let measured = measure_share(workload, run, share, settings, &mut Coordinated { heard })?;
    send(&WorkerMessage::Measured(Box::new(measured)))
}

/// Coordinated by the first process.
struct Coordinated<'a> {
    heard: &'a Receiver<String>,
}

impl Coordinator for Coordinated<'_> {
    fn await_start(&mut self) -> Result<u64> {
        send(&WorkerMessage::Ready)?;
        let line = self.heard.recv_timeout(PROCESS_TIMEOUT).map_err(|_| coordinator_exited())?;
        match parse(&line)? {
            CoordinatorMessage::StartAt(ns) => {
                sleep_until(ns);
                Ok(ns)
            }
            CoordinatorMessage::AllSent(_) => Err(coordinator_exited()),
        }
    }

    fn tell_sent(&mut self, own: Vec<u64>) -> Result<()> {
        send(&WorkerMessage::Sent(own))
    }

    fn everyones_sent(&mut self) -> Result<Option<Vec<u64>>> {
        match self.heard.try_recv() {
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(coordinator_exited()),
            Ok(line) => match parse(&line)? {
                CoordinatorMessage::AllSent(sent) => Ok(Some(sent)),
                CoordinatorMessage::StartAt(_) => Err(coordinator_exited()),
            },
        }
    }
}

fn coordinator_exited() -> Error {
    Error::Broker("the coordinating process has exited".into())
}

/// Lines as they arrive.
fn lines(input: impl io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(input).lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn send(what: &WorkerMessage) -> Result<()> {
    write_line(&mut io::stdout().lock(), what)
}

fn write_line(output: &mut impl Write, what: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string(what).expect("numbers and names");
    text.push('\n');
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|source| Error::io("write to another load process", source))
}

fn parse<T: DeserializeOwned>(line: &str) -> Result<T> {
    serde_json::from_str(line).map_err(|error| {
        Error::Broker(format!("invalid message from another load process: {line}: {error}"))
    })
}

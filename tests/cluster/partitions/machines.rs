//! Three machines as network namespaces, with a link between each two, and a link from each to the test.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::folder::Folder;
use crate::support::Broker;

/// Set in the process that runs inside a namespace of its own.
const INSIDE: &str = "RINGMQ_TEST_INSIDE";

const MACHINES: usize = 3;

/// A process that holds a namespace, until its standard input ends.
struct Namespace {
    holder: Child,
    _input: ChildStdin,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Machines, each with a broker that runs its engine server, as documented for three machines.
pub struct Machines {
    pub brokers: Vec<Broker>,
    namespaces: Vec<Namespace>,
    _folder: Folder,
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Runs `ip` with these arguments.
fn ip(arguments: &str) {
    let done = succeeds(Command::new("ip").args(arguments.split_whitespace()));
    assert!(done, "ip {arguments}");
}

/// Runs a test in a namespace of its own, in this program started again; true in that one. False where the test has run
/// there, or cannot run here, which a notice says.
pub fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        return true;
    }
    let isolate = ["--net", "--map-root-user", "--"];
    let probe = "ip link add name probe0 type veth peer name probe1 && nsenter --version";
    if !succeeds(Command::new("unshare").args(isolate).args(["sh", "-c", probe])) {
        eprintln!(
            "SKIPPED: network namespaces with links (unshare, nsenter, ip) are not allowed here"
        );
        return false;
    }
    let program = std::env::current_exe().expect("this program");
    let status = Command::new("unshare")
        .args(isolate)
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(status.expect("it runs").success(), "{test}, in a namespace of its own");
    false
}

impl Machines {
    /// Starts all, and waits until each knows the others.
    pub fn start(program: &str) -> Self {
        let folder = Folder::new("machines");
        let namespaces: Vec<Namespace> = (0..MACHINES).map(|_| namespace()).collect();
        let machines = Self { brokers: Vec::new(), namespaces, _folder: folder };
        for (one, other) in PAIRS {
            machines.connect(one, other);
        }
        (0..MACHINES).for_each(|of| machines.connect_to_test(of));
        let secret = machines._folder.write("secret", "a secret of the servers\n");
        let script = |of: usize| machines.script(of);
        let starts: Vec<String> = (0..MACHINES).map(script).collect();
        let brokers: Vec<Broker> = std::thread::scope(|scope| {
            let start = |of: usize| {
                let folder = Path::new(&machines._folder.path(&format!("{of}"))).to_owned();
                let (start, secret) = (starts[of].clone(), secret.clone());
                scope.spawn(move || {
                    let routes = (0..MACHINES).filter(|other| *other != of);
                    let routes = routes.map(|other| format!("\"{}:6222\"", address(of, other)));
                    let text = format!(
                        "mode = \"auto\"\ncores = 1\n[access]\nanonymous = true\n[storage]\ndata = {folder:?}\n\
                         [cluster]\nname = \"machines\"\nnode = {of}\nengine_path = {program:?}\n\
                         routes = [{}]\nroutes_secret_file = {secret:?}\n",
                        routes.collect::<Vec<_>>().join(", "),
                    );
                    Broker::run_by(&start, &format!("10.77.{of}.2:1883"), &text)
                })
            };
            let starting: Vec<_> = (0..MACHINES).map(start).collect();
            starting.into_iter().map(|one| one.join().expect("a broker starts")).collect()
        });
        Self { brokers, ..machines }
    }

    /// A command that runs another one on a machine.
    fn script(&self, machine: usize) -> String {
        format!("nsenter --target {} --net --", self.namespaces[machine].holder.id())
    }

    /// Runs `ip` on a machine.
    fn ip_at(&self, machine: usize, arguments: &str) {
        let script = self.script(machine);
        let mut words = script.split_whitespace();
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg("ip").args(arguments.split_whitespace());
        assert!(succeeds(&mut command), "ip {arguments} on machine {machine}");
    }

    /// Makes a link between two machines.
    fn connect(&self, one: usize, other: usize) {
        let [id, other_id] = [one, other].map(|of| self.namespaces[of].holder.id());
        ip(&format!(
            "link add name to{other} netns {id} type veth peer name to{one} netns {other_id}"
        ));
        for (at, to) in [(one, other), (other, one)] {
            self.ip_at(at, &format!("address add {}/24 dev to{to}", address(to, at)));
            self.ip_at(at, &format!("link set to{to} up"));
        }
    }

    /// Makes the link over which clients of the test connect.
    fn connect_to_test(&self, machine: usize) {
        let id = self.namespaces[machine].holder.id();
        ip(&format!("link add name test{machine} type veth peer name test netns {id}"));
        ip(&format!("address add 10.77.{machine}.1/24 dev test{machine}"));
        ip(&format!("link set test{machine} up"));
        self.ip_at(machine, "link set lo up");
        self.ip_at(machine, &format!("address add 10.77.{machine}.2/24 dev test"));
        self.ip_at(machine, "link set test up");
    }

    /// Takes the links of a machine to the others down or up.
    pub fn set_links(&self, machine: usize, state: &str) {
        for other in (0..MACHINES).filter(|other| *other != machine) {
            self.ip_at(machine, &format!("link set to{other} {state}"));
        }
    }
}

const PAIRS: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];

/// The address of a machine on its link from another one.
fn address(from: usize, machine: usize) -> String {
    format!("10.78.{}{}.{}", from.min(machine) + 1, from.max(machine) + 1, machine + 1)
}

fn namespace() -> Namespace {
    let mut holder = Command::new("unshare")
        .args(["--net", "sh", "-c", "echo; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    let mut output = holder.stdout.take().expect("piped");
    // Once it has said something, it is in its namespace.
    std::io::Read::read_exact(&mut output, &mut [0]).expect("it runs");
    let mut input = holder.stdin.take().expect("piped");
    input.flush().expect("it reads");
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    Namespace { holder, _input: input }
}

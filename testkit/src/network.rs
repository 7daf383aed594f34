//! A network of the test's own: nodes in network namespaces, each with an address of its own, and a
//! router between them that drops packets without a trace.
//!
//! ```ignore
//! let network = Network::new(&["a", "b"])?;
//! let redis = Redis::start_in(network.node("a"), &[]).await;
//! network.cut(&["a"], &["b"]);    // what `a` sends to `b` is dropped; the way back is open
//! network.lose(10);               // every tenth packet between any two nodes is dropped
//! network.heal();
//! ```
//!
//! Needs root, `ip` and `nft`. No interface, address or route of the machine itself is changed: both
//! ends of each pair of interfaces are made in namespaces, so networks with the same addresses do
//! not meet. The namespaces are removed on drop and when the test process dies. Those that are left
//! nevertheless are removed by the next network.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip` keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// The beginning of the name of every namespace. The process and its start follow.
const PREFIX: &str = "hookgate-test.";

/// The router forwards all packets except those between the pairs in `cuts`, and a share of all
/// others.
const RULES: &str = "table ip network {
  set cuts { type ipv4_addr . ipv4_addr; }
  counter dropped { }
  chain cut {
    type filter hook forward priority 0
    ip saddr . ip daddr @cuts counter name dropped drop
  }
  chain lose { type filter hook forward priority 1; }
}
";

/// Forwards packets, and does not drop those whose way back is cut.
const FORWARD: &str =
    "for each in all default; do echo 0 >/proc/sys/net/ipv4/conf/$each/rp_filter; done
echo 1 >/proc/sys/net/ipv4/ip_forward";

/// Removes the namespaces whose names begin with `$1` when the test process is gone.
const REMOVE_AFTER_US: &str = r#"trap '' INT TERM
cat >/dev/null
for name in /run/netns/"$1"*; do [ ! -e "$name" ] || ip netns del "${name##*/}"; done"#;

/// Where the programs of root are, which others may not have on their path.
const SYSTEM_PATH: &str = ":/usr/sbin:/sbin";

/// One network at a time is built, because `ip` sets up its directory on first use.
static BUILDING: Mutex<()> = Mutex::new(());

/// A host of a [`Network`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    namespace: String,
    address: Ipv4Addr,
}

impl Node {
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The address of the router on the way to this node.
    fn gateway(&self) -> Ipv4Addr {
        let [a, b, number, _] = self.address.octets();
        Ipv4Addr::new(a, b, number, 1)
    }

    /// The interface of the router on the way to this node.
    fn port(&self) -> String {
        let [_, _, number, _] = self.address.octets();
        format!("to-{number}")
    }

    /// The words that run the command after them on this node, under the same pid.
    pub fn entrance(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace].map(str::to_owned).to_vec()
    }

    /// A command line that runs on this node.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(&self.entrance()[1..]).arg(program);
        command
    }

    /// Moves the current thread onto this node, and with it the sockets, threads and processes that
    /// it makes from now on.
    pub fn enter(&self) {
        let file = fs::File::open(format!("{NAMES}/{}", self.namespace)).expect("a namespace");
        let file = std::os::fd::AsFd::as_fd(&file);
        move_into_link_name_space(file, Some(LinkNameSpaceType::Network)).expect("root may enter");
    }
}

/// Runs a test as root: here, or else in a process of its own by `sudo`, if that asks for no
/// password. `test` is the name of the test in this program. Otherwise the test is skipped.
pub fn as_root(test: &str, body: impl FnOnce()) {
    for program in ["ip", "nft"] {
        let find = format!("PATH=$PATH{SYSTEM_PATH} && command -v {program}");
        assert!(run("sh", &["-c", &find], "").is_ok(), "no {program}: run scripts/setup test");
    }
    if rustix::process::geteuid().is_root() {
        return body();
    }
    if run("sudo", &["-n", "true"], "").is_err() {
        return skip(test, "it needs root, or sudo without a password");
    }
    let kept = std::env::vars().filter(|(name, _)| {
        matches!(&**name, "PATH" | "TMPDIR" | "CI")
            || ["NETWORKS_", "TESTKIT_", "HOOKGATE_TEST_"].iter().any(|part| name.starts_with(part))
    });
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "env"]).args(kept.map(|(name, value)| {
        let further = if name == "PATH" { SYSTEM_PATH } else { "" };
        format!("{name}={value}{further}")
    }));
    sudo.arg(std::env::current_exe().expect("a test knows its path"));
    let output = sudo.args(["--exact", test, "--nocapture"]).output().expect("sudo runs");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    eprintln!("{printed}");
    assert!(output.status.success() && printed.contains("1 passed"), "{test} as root has failed");
}

/// Reports on standard error that a test is skipped, and why. In the workflow no test is skipped.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{test} cannot run: {why}");
    // Unlike `eprintln!`, this is shown although the test passes.
    let _ = writeln!(std::io::stderr(), "\n{test} is SKIPPED: {why}");
}

/// Nodes and the router between them; removed on drop.
#[derive(Debug)]
pub struct Network {
    router: String,
    nodes: HashMap<String, Node>,
}

impl Network {
    /// A network of nodes with these names. Fails with the reason if this machine cannot make one.
    pub fn new(names: &[&str]) -> Result<Self, String> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = own_prefix();
        remove_abandoned();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = |part: &str| format!("{prefix}{serial}.{part}");
        let node = |(number, part): (u8, &&str)| {
            let address = Ipv4Addr::new(10, 77, number, 2);
            ((*part).to_owned(), Node { namespace: name(part), address })
        };
        let network = Self { router: name("router"), nodes: (0..).zip(names).map(node).collect() };
        network.build()?;
        Ok(network)
    }

    fn build(&self) -> Result<(), String> {
        let nodes = || self.nodes.values();
        let router = &self.router;
        let names = nodes().map(|node| &node.namespace).chain([router]);
        batch(&[], names.map(|name| format!("netns add {name}\n")))?;
        run("ip", &["netns", "exec", router, "sh", "-c", FORWARD], "")?;
        let pair = |node: &Node| {
            let (name, port) = (&node.namespace, node.port());
            format!("link add name eth0 netns {name} type veth peer name {port} netns {router}\n")
        };
        batch(&[], nodes().map(pair))?;
        let end = |node: &Node| {
            let (gateway, port) = (node.gateway(), node.port());
            format!("addr add {gateway}/24 dev {port}\nlink set {port} up\n")
        };
        batch(&["-n", router], nodes().map(end))?;
        for node in nodes() {
            let (address, gateway) = (node.address, node.gateway());
            let lines = format!(
                "link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n\
                 route add default via {gateway}\n"
            );
            batch(&["-n", &node.namespace], [lines])?;
        }
        self.nft(RULES)
    }

    pub fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// Drops what each of `from` sends to each of `to` from now on. The way back stays as it is.
    pub fn cut(&self, from: &[&str], to: &[&str]) {
        let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
        let pairs = pairs.filter(|(from, to)| from != to);
        let addresses = pairs.map(|(from, to)| (self.node(from).address, self.node(to).address));
        let elements: Vec<String> = addresses.map(|(from, to)| format!("{from} . {to}")).collect();
        self.nft(&format!("add element ip network cuts {{ {} }}\n", elements.join(", ")))
            .expect("nft cuts");
    }

    /// Drops all packets between each of one group and each of the other.
    pub fn part(&self, some: &[&str], others: &[&str]) {
        self.cut(some, others);
        self.cut(others, some);
    }

    /// Drops this percentage of all packets, at random.
    pub fn lose(&self, percent: u8) {
        let rule = format!("numgen random mod 100 < {percent} counter name dropped drop");
        self.nft(&format!("add rule ip network lose {rule}\n")).expect("nft loses");
    }

    /// Forwards all packets again.
    pub fn heal(&self) {
        self.nft("flush set ip network cuts\nflush chain ip network lose\n").expect("nft heals");
    }

    /// The number of packets that were dropped so far.
    pub fn dropped(&self) -> u64 {
        let words =
            ["netns", "exec", &self.router, "nft", "list", "counter", "ip", "network", "dropped"];
        let listed = run("ip", &words, "").expect("nft lists");
        let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|count| count.parse().ok()).expect("a number of packets")
    }

    fn nft(&self, rules: &str) -> Result<(), String> {
        run("ip", &["netns", "exec", &self.router, "nft", "-f", "-"], rules).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.nodes.values().map(|node| &node.namespace).chain([&self.router]) {
            // Whatever remains is removed with the process.
            let _ = run("ip", &["netns", "del", name], "");
        }
    }
}

/// The beginning of the names of this process's namespaces. The first call starts the process that
/// removes them in the end.
fn own_prefix() -> &'static str {
    static PREFIX_AND_REMOVER: OnceLock<(String, Child)> = OnceLock::new();
    let (prefix, _remover) = PREFIX_AND_REMOVER.get_or_init(|| {
        let pid = std::process::id().to_string();
        let start = start_of(&pid).expect("this process runs");
        let prefix = format!("{PREFIX}{pid}.{start}.");
        let mut remover = Command::new("sh");
        remover.args(["-c", REMOVE_AFTER_US, "remover", &prefix]);
        let remover = remover.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("sh");
        (prefix, remover)
    });
    prefix
}

/// Removes the namespaces of processes that are gone, whose remover was killed too.
fn remove_abandoned() {
    for entry in fs::read_dir(NAMES).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let Some(process) = name.strip_prefix(PREFIX) else { continue };
        let mut parts = process.split('.');
        let (pid, start) = (parts.next().unwrap_or_default(), parts.next());
        if start.is_none() || start_of(pid).as_deref() != start {
            let _ = run("ip", &["netns", "del", &name], "");
        }
    }
}

/// When a process began, in ticks since the start of the machine; `None` if it is gone.
fn start_of(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the start is the 22nd field.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

/// Runs several commands of `ip`.
fn batch(options: &[&str], lines: impl IntoIterator<Item = String>) -> Result<(), String> {
    let lines: Vec<String> = lines.into_iter().collect();
    run("ip", &[options, &["-batch", "-"]].concat(), &lines.concat()).map(drop)
}

/// Runs a program with this input, and returns what it printed, or why it failed.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{program} {}: {why}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let mut stdin = child.stdin.take().expect("the input is a pipe");
    // A program that does not read its input says why in its output.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let Output { status, stdout, stderr } =
        child.wait_with_output().map_err(|error| failed(&error))?;
    if !status.success() {
        return Err(failed(&String::from_utf8_lossy(&stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn test(name: &str, body: impl FnOnce()) {
        as_root(&format!("network::tests::{name}"), body);
    }

    /// A socket on a node.
    fn socket(network: &Network, node: &str) -> UdpSocket {
        let node = network.node(node);
        std::thread::scope(|scope| {
            let bound = scope.spawn(|| {
                node.enter();
                UdpSocket::bind((node.address(), 7)).expect("a port of the node")
            });
            bound.join().expect("a socket")
        })
    }

    fn send(from: &UdpSocket, to: &UdpSocket, word: &str) {
        from.send_to(word.as_bytes(), to.local_addr().expect("bound")).expect("sent");
    }

    fn received(by: &UdpSocket) -> String {
        let mut word = [0; 16];
        let length = by.recv(&mut word).expect("a packet");
        String::from_utf8_lossy(&word[..length]).into_owned()
    }

    #[test]
    fn one_direction_is_cut_and_healed() {
        test("one_direction_is_cut_and_healed", || {
            let network = match Network::new(&["a", "b", "c"]) {
                Ok(network) => network,
                Err(why) => return skip("network", &why),
            };
            let (a, b) = (socket(&network, "a"), socket(&network, "b"));
            send(&a, &b, "before");
            assert_eq!(received(&b), "before");
            network.cut(&["a"], &["b", "c"]);
            send(&a, &b, "cut off");
            send(&b, &a, "back");
            assert_eq!(received(&a), "back");
            network.heal();
            send(&a, &b, "after");
            assert_eq!(received(&b), "after");
            assert_eq!(network.dropped(), 1);
            network.lose(50);
            while network.dropped() == 1 {
                send(&b, &a, "lost or not");
            }
        });
    }

    #[test]
    fn namespaces_go_with_their_network_or_its_process() {
        test("namespaces_go_with_their_network_or_its_process", || {
            let exists = |name: &str| Path::new(NAMES).join(name).exists();
            // No process has this id.
            let abandoned = format!("{PREFIX}0.{}.0.a", std::process::id());
            if let Err(why) = run("ip", &["netns", "add", &abandoned], "") {
                return skip("network", &why);
            }
            let network = Network::new(&["a"]).expect("root makes a network");
            let own = network.node("a").namespace.clone();
            assert!(!exists(&abandoned) && exists(&own) && exists(&network.router));
            let other = Network::new(&["a"]).expect("another one");
            assert!(exists(&own), "its process runs");
            drop((network, other));
            assert!(!exists(&own));
        });
    }

    #[test]
    fn a_process_has_one_start() {
        let own = start_of(&std::process::id().to_string());
        let is_number = |start: &String| start.parse::<u64>().is_ok_and(|start| start > 0);
        assert!(own.as_ref().is_some_and(is_number), "{own:?}");
        assert_eq!(own, start_of("self"));
        assert_eq!(start_of("0"), None);
    }

    #[test]
    fn a_failure_says_which_command_and_why() {
        let error = run("ip", &["netns", "del", "hookgate-no-such-name"], "").unwrap_err();
        assert!(error.starts_with("ip netns del hookgate-no-such-name: "), "{error}");
        assert!(run("hookgate-no-such-program", &[], "").is_err());
    }
}

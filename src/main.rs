//! The command line.

use anyhow::Context;
use clap::{Parser, Subcommand};
use hookgate::admin::health_command as health;
use hookgate::app::Launch;
use hookgate::app::workers::ShutdownResult;
use hookgate::auth;
use hookgate::config::Config;
use hookgate::config::check::CheckReport;
use hookgate::endpoints::verification::Verification;
use hookgate::endpoints::verify_command::{self, CapturedHeaders, CapturedRequest};
use hookgate::files::text_file;
use hookgate::files::text_file::Stamp;
use hookgate::ids::{OrganizationId, UserId};
use hookgate::logging::printable::printable;
use hookgate::process::dumpable;
use hookgate::process::file_limit;
use hookgate::queue::{self, Origin};
use hookgate::settings::Fault;
use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for wrong usage or a faulty configuration.
const EXIT_CONFIGURATION: u8 = 2;

/// Webhook ingress for workflow engines that run on BullMQ.
#[derive(Parser)]
#[command(version = hookgate::BUILD, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service
    Serve(ConfigArgument),
    /// Validates the configuration and prints every fault
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// Also connects to MongoDB and Redis, fetches the JWK set, and reports their state
        #[arg(long)]
        connect: bool,
        /// Prints one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Checks whether a service on this machine is alive (/livez); exit code 0 or 1
    Health {
        /// Address of the admin port; default: admin.listen from the environment, or 127.0.0.1:9464
        #[arg(long, value_name = "IP:PORT")]
        address: Option<SocketAddr>,
    },
    /// Prints a job as it would be written, with made-up values: name, data and options
    ExampleJob {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print the job of a delivery to an endpoint
        #[arg(long)]
        delivery: bool,
    },
    /// Mints a token with the first configured secret, for tests
    Token {
        #[command(flatten)]
        config: ConfigArgument,
        /// The organization of the token
        #[arg(long)]
        organization: String,
        /// The user of the token
        #[arg(long)]
        user: String,
        /// The validity of the token
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Says whether a delivery would be accepted, and why not; exit code 0 or 1
    Verify(VerifyArguments),
    /// Prints which queue gets the jobs of each organization: organization, tab, name of the queue
    Shard {
        #[command(flatten)]
        config: ConfigArgument,
        /// The organizations; - stands for the lines of standard input
        #[arg(required = true, value_name = "ORGANIZATION")]
        organizations: Vec<String>,
    },
}

#[derive(clap::Args)]
#[group(id = "source", required = true, multiple = false)]
struct VerificationArgument {
    /// A file with a verification in JSON, as it is in a document
    #[arg(long, value_name = "FILE", group = "source")]
    description: Option<PathBuf>,
    /// The name of a verification of the configuration
    #[arg(long, value_name = "NAME", group = "source")]
    named: Option<String>,
}

#[derive(clap::Args)]
struct VerifyArguments {
    #[command(flatten)]
    verification: VerificationArgument,
    #[command(flatten)]
    config: ConfigArgument,
    /// A captured request of HTTP/1.1; the options below replace its parts
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// The method; default: POST
    #[arg(long)]
    method: Option<String>,
    /// The whole address as the sender sees it, with its query
    #[arg(long)]
    url: Option<String>,
    /// A header field, "Name: value"; can be given several times
    #[arg(long, value_name = "FIELD")]
    header: Vec<String>,
    /// A file with the body as it came; - is standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The address of the client
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// The time of the delivery, such as 2026-01-02T03:04:05Z; default: now
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339)]
    at: Option<SystemTime>,
}

#[derive(clap::Args)]
struct ConfigArgument {
    /// The configuration file
    #[arg(
        long,
        env = "HOOKGATE_CONFIG",
        default_value = "config/hookgate.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
}

fn main() -> ExitCode {
    panic::set_hook(Box::new(print_panic));
    // A panic is already logged; the exit code reports it as a failure.
    panic::catch_unwind(run).unwrap_or(ExitCode::FAILURE)
}

fn run() -> ExitCode {
    // This runs before any secret is read.
    if let Err(error) = dumpable::make_dumpable(false) {
        print_error(format_args!("cannot disable core dumps and debugger access: {error}"));
    }
    let outcome = match Arguments::parse().command {
        Command::Serve(argument) => serve(&argument),
        Command::Check { config, connect, json } => check(&config.config, connect, json),
        Command::Health { address } => ask_health(address),
        Command::ExampleJob { config, delivery } => example_job(&config, delivery),
        Command::Token { config, organization, user, ttl } => {
            token(&config, &organization, &user, ttl)
        }
        Command::Verify(arguments) => verify(arguments),
        Command::Shard { config, organizations } => shard(&config, &organizations),
    };
    outcome.unwrap_or_else(|error| {
        print_error(format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn serve(argument: &ConfigArgument) -> anyhow::Result<ExitCode> {
    let (launch, config) = match Launch::new()?.load(&argument.config) {
        Some(Ok(loaded)) => loaded,
        Some(Err(faults)) => return Ok(print_faults(argument, faults)),
        None => {
            print_error(format_args!("stopped before the configuration was read"));
            return Ok(ExitCode::SUCCESS);
        }
    };
    if config.telemetry.dumpable {
        dumpable::make_dumpable(true)?;
    }
    let log = config.telemetry.start()?;
    let stamp = config.stamp.as_ref();
    let (modified, sha256) = (stamp.and_then(Stamp::modified), stamp.and_then(Stamp::sha256));
    let file = argument.config.display();
    let version = hookgate::BUILD;
    tracing::info!(version, config = %file, modified, sha256, "hookgate starting");
    Ok(match launch.run(config, argument.config.clone(), log)? {
        ShutdownResult::Clean => ExitCode::SUCCESS,
        ShutdownResult::CutShort => ExitCode::FAILURE,
    })
}

fn check(path: &Path, connect: bool, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::load(path);
    let mut report = CheckReport::new(path, &config);
    if let (Ok(config), true) = (&config, connect) {
        file_limit::require(file_limit::STARTUP_FILES)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(report.connect(config));
        // A name lookup or a file call may still be running on a blocking thread. Its result is not
        // needed.
        runtime.shutdown_background();
    }
    print_line(&if json { serde_json::to_string_pretty(&report)? } else { report.to_string() })?;
    Ok(match config {
        Err(_) => ExitCode::from(EXIT_CONFIGURATION),
        Ok(_) if report.is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
    })
}

fn ask_health(address: Option<SocketAddr>) -> anyhow::Result<ExitCode> {
    health::ask(address.unwrap_or_else(|| Config::admin_of_environment().listen))?;
    print_line("ok")?;
    Ok(ExitCode::SUCCESS)
}

fn example_job(argument: &ConfigArgument, is_delivery: bool) -> anyhow::Result<ExitCode> {
    let config = match load(argument) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let origin = if is_delivery { Origin::Delivery } else { Origin::Webhook };
    let node_type = config.triggers.first_node_type();
    print_line(&queue::example_job(&config.queue, node_type, origin)?)?;
    Ok(ExitCode::SUCCESS)
}

fn shard(argument: &ConfigArgument, organizations: &[String]) -> anyhow::Result<ExitCode> {
    let config = match load(argument) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    let input = std::io::stdin().lock();
    let Err(error) = queue::print_shards(&config.queue, organizations, input, &mut output) else {
        return Ok(ExitCode::SUCCESS);
    };
    match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        // The reader has closed the pipe and needs no more output.
        Some(std::io::ErrorKind::BrokenPipe) => Ok(ExitCode::SUCCESS),
        Some(_) => Err(error),
        None => Ok(print_usage_error(&error)),
    }
}

fn token(
    argument: &ConfigArgument,
    organization: &str,
    user: &str,
    ttl: Duration,
) -> anyhow::Result<ExitCode> {
    let config = match load(argument) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    match mint(&config, organization, user, ttl) {
        Ok(token) => {
            print_line(&token)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            print_error(format_args!("{error:#}"));
            Ok(ExitCode::from(EXIT_CONFIGURATION))
        }
    }
}

fn mint(config: &Config, organization: &str, user: &str, ttl: Duration) -> anyhow::Result<String> {
    let organization = OrganizationId::new(organization).context("--organization")?;
    let user = UserId::new(user).context("--user")?;
    auth::mint(&config.auth.jwt, &user, &organization, ttl)
}

fn verify(arguments: VerifyArguments) -> anyhow::Result<ExitCode> {
    let verification = match verification(&arguments) {
        Ok(Ok(verification)) => verification,
        Ok(Err(faults)) => return Ok(print_faults(&arguments.config, faults)),
        Err(error) => return Ok(print_usage_error(&error)),
    };
    let at = arguments.at.unwrap_or_else(SystemTime::now);
    let request = match captured_request(arguments) {
        Ok(request) => request,
        Err(error) => return Ok(print_usage_error(&error)),
    };
    let report = verify_command::Report::new(&verification, &request, at);
    for (name, value) in report.lines() {
        print_line(&printable(format_args!("{name}: {value}")))?;
    }
    Ok(if report.is_accepted() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The verification that is meant, or the faults of the configuration.
fn verification(arguments: &VerifyArguments) -> anyhow::Result<Result<Verification, Vec<Fault>>> {
    let VerificationArgument { description, named } = &arguments.verification;
    if let Some(path) = description {
        let read = || verify_command::read_description(&text_file::read(path)?);
        return read().with_context(|| path.display().to_string()).map(Ok);
    }
    let mut verifications = match Config::verifications(&arguments.config.config) {
        Ok(verifications) => verifications,
        Err(faults) => return Ok(Err(faults)),
    };
    let name = named.as_deref().unwrap_or_default();
    let found = verifications.remove(name);
    let found = found.with_context(|| format!("there is no [endpoints.verification.{name}]"))?;
    Ok(Ok(found.verification))
}

/// The request that the options describe.
fn captured_request(arguments: VerifyArguments) -> anyhow::Result<CapturedRequest> {
    let mut request = match &arguments.request {
        Some(path) => CapturedRequest::parse(&read_input(path)?)
            .with_context(|| path.display().to_string())?,
        None => CapturedRequest { method: "POST".to_owned(), ..CapturedRequest::default() },
    };
    if let Some(method) = arguments.method {
        request.method = method;
    }
    if let Some(url) = arguments.url {
        request.url = url;
    }
    let mut headers = CapturedHeaders::default();
    for field in &arguments.header {
        headers.add(field.as_bytes()).context("--header")?;
    }
    request.headers.replace(headers);
    if let Some(path) = &arguments.body {
        request.body = read_input(path)?;
    }
    request.client = arguments.client;
    Ok(request)
}

/// Reads a file, or standard input for `-`.
fn read_input(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut input = Vec::new();
        std::io::stdin().read_to_end(&mut input).context("standard input")?;
        return Ok(input);
    }
    std::fs::read(path).with_context(|| path.display().to_string())
}

fn print_usage_error(error: &anyhow::Error) -> ExitCode {
    print_error(format_args!("{error:#}"));
    ExitCode::from(EXIT_CONFIGURATION)
}

/// Loads the configuration. If it has faults, prints them and returns the exit code.
fn load(argument: &ConfigArgument) -> Result<Config, ExitCode> {
    Config::load(&argument.config).map_err(|faults| print_faults(argument, faults))
}

fn print_faults(argument: &ConfigArgument, faults: Vec<Fault>) -> ExitCode {
    print_to_stderr(&CheckReport::new(&argument.config, &Err(faults)).to_string());
    ExitCode::from(EXIT_CONFIGURATION)
}

fn print_line(text: &str) -> std::io::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        // The reader has closed the pipe and needs no more output.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Prints a panic. Used by commands without a log, and before the log is started.
fn print_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    print_error(format_args!("panic at {place}: {}", panic.payload_as_str().unwrap_or_default()));
}

/// Prints an error as one line. It may contain text from servers, files and arguments, which is
/// escaped.
fn print_error(error: fmt::Arguments<'_>) {
    print_to_stderr(&printable(format_args!("hookgate: {error}")));
}

fn print_to_stderr(text: &str) {
    // A failure to write to standard error cannot be reported anywhere.
    let _ = writeln!(std::io::stderr(), "{text}");
}
